"""Answers items, one after the other, with one loaded model, while the next images are read in threads.

Reading, view building and the drawing of evidence release the interpreter, so they run beside the network. How far
ahead is bounded: a few images, and of each the first few fields; the others are read when their turn comes. One image
at most waits for its evidence. Images go to the network one at a time and in order, because a product over several
samples may differ from that over one in its last digits, and a row must not depend on its neighbours.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from dragonfly_cli.batch.evidence import evidence_name, write_item_evidence
from dragonfly_cli.batch.items import Item
from dragonfly_cli.batch.job import IMAGES_AHEAD, Job
from dragonfly_cli.batch.result import Result
from dragonfly_cli.errors import BUG_CODE, DragonflyError
from dragonfly_cli.fields import LookPlan, plan_looks
from dragonfly_cli.pipeline import ReadAhead, Request, prepare, read_ahead, storable_settings
from dragonfly_cli.readers import Source
from dragonfly_cli.searching import answer_planned

_FIELDS_AHEAD = 4

# Gives the next item, or None where there is none; with True it waits until it knows.
Take = Callable[[bool], Item | None]


@dataclass(frozen=True)
class _Open:
    """An image that has been opened and read ahead."""

    source: Source
    plan: LookPlan
    read: ReadAhead


@dataclass
class _Asked:
    """An image about which everything was asked, still open, so that it can be drawn."""

    item: Item
    opened: _Open | None = None
    records: list[dict[str, Any]] = field(default_factory=list)
    failed: list[Result] = field(default_factory=list)


class Worker:
    """A loaded model; raises what ``pipeline.prepare`` raises."""

    def __init__(self, job: Job) -> None:
        self.model, self._request = prepare(job.checkpoint, job.questions, job.answering, {})
        self._job = job

    def answers(self, take: Take, stopped: Callable[[], bool] = lambda: False) -> Iterator[tuple[Item, list[Result]]]:
        """Yields the results of every item, in the order in which they were taken.

        After ``stopped`` says so no other item is begun.
        """
        waiting: deque[tuple[Item, Future[_Open]]] = deque()
        drawing: deque[tuple[Item, Future[list[Result]]]] = deque()
        pool = ThreadPoolExecutor(IMAGES_AHEAD + 1, "reader")
        try:
            while True:
                while len(waiting) <= IMAGES_AHEAD and (item := take(not waiting and not drawing)) is not None:
                    waiting.append((item, pool.submit(self.read, item)))
                goes_on = bool(waiting) and not stopped()
                if goes_on:
                    item, reading = waiting.popleft()
                    asked = self.ask(item, reading.result)
                    if not self._job.evidence:
                        yield item, self.finish(asked)
                        continue
                    drawing.append((item, pool.submit(self.finish, asked)))
                elif not drawing:
                    return
                if not goes_on or len(drawing) > 1:
                    item, drawn = drawing.popleft()
                    yield item, drawn.result()
        finally:
            for _, reading in waiting:
                reading.add_done_callback(_close)
            pool.shutdown(cancel_futures=True)

    def read(self, item: Item) -> _Open:
        """Opens an image and reads its first fields; raises what opening and reading raise."""
        source = item.open()
        try:
            plan = plan_looks(source, item.looking, self.model.canvas_wh)
            return _Open(source, plan, read_ahead(self.model, source, plan.certain[:_FIELDS_AHEAD]))
        except BaseException:
            source.close()
            raise

    def answer(self, item: Item, read: Callable[[], _Open]) -> list[Result]:
        """The results of all questions of an item; those that an error left without an answer say so."""
        return self.finish(self.ask(item, read))

    def ask(self, item: Item, read: Callable[[], _Open]) -> _Asked:
        """What the network does: all questions in one go, so that no answer depends on where an earlier run ended."""
        asked = _Asked(item)
        try:
            asked.opened = read()
            for record in self._records(item, asked.opened):
                asked.records.append(record)  # one by one, so that those before an error are kept
        except DragonflyError as error:
            asked.failed = item.failures(error.exit_code, error.message, but=len(asked.records))
        except Exception as error:  # a bug met in one image must not cost the night; the error code tells it
            bug = f"this is a bug in dragonfly ({type(error).__name__}); ask about this image with --debug"
            asked.failed = item.failures(BUG_CODE, f"{item.image}: {bug}", but=len(asked.records))
        return asked

    def finish(self, asked: _Asked) -> list[Result]:
        """Writes evidence, closes the image and gives its results; may run beside the network.

        Raises OutputError where evidence cannot be written, which is no failure of this image.
        """
        records = asked.records
        if asked.opened:
            with closing(asked.opened.source) as source:
                if records and self._job.evidence:
                    stem = self._job.evidence / evidence_name(asked.item, self._job.settings)
                    records = write_item_evidence(stem, asked.item, source, asked.opened.plan, records)
        return [Result(key, record) for key, record in zip(asked.item.keys, records, strict=False)] + asked.failed

    def _records(self, item: Item, opened: _Open) -> Iterator[dict[str, Any]]:
        answers = answer_planned(self.model, opened.source, opened.plan, self._request_for(item), read=opened.read)
        return (record | {"image": item.image} for record in answers)

    def _request_for(self, item: Item) -> Request:
        """That of the run, with the calibration that was there when it began, for this item's questions and options."""
        own = storable_settings(asdict(item.opening) | asdict(item.looking))
        settings = own | self._request.settings
        return replace(self._request, questions=list(item.questions), control=item.control, settings=settings)


def _close(reading: "Future[Any]") -> None:
    if not reading.cancelled() and reading.exception() is None:
        reading.result().source.close()
