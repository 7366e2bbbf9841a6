"""Answers groups of items, one after the other, with one loaded model, while the next images are read in threads.

Reading, view building and the drawing of evidence release the interpreter, so they run beside the network. How far
ahead is bounded: a few images or one group, and of each the first few fields; the others are read when their turn
comes. One group at most waits for its evidence. Images go to the network one at a time and in order, because a product
over several samples may differ from that over one in its last digits, and a row must not depend on its neighbours. Only
where the run is one of groups with several items are these encoded together, and the free answers about them written
together.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from dragonfly_cli.batch.evidence import evidence_name, write_item_evidence
from dragonfly_cli.batch.groups import Group
from dragonfly_cli.batch.items import Item
from dragonfly_cli.batch.job import IMAGES_AHEAD, Job
from dragonfly_cli.batch.result import Result
from dragonfly_cli.engine.answering import check_question
from dragonfly_cli.engine.desk import MOST_TOGETHER, Desk
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.errors import BUG_CODE, DragonflyError, InputError, LostDeviceError, UsageError
from dragonfly_cli.fields import LookPlan, plan_looks
from dragonfly_cli.output.record import storable_settings
from dragonfly_cli.pipeline import Inquiry, ReadAhead, Request, encode_ahead, prepare, read_ahead
from dragonfly_cli.readers import Source
from dragonfly_cli.searching import answer_planned, inquiries

_FIELDS_AHEAD = 4

# Gives the next group, or None where there is none; with True it waits until it knows.
Take = Callable[[bool], Group | None]


@dataclass(frozen=True)
class _Open:
    """An image that has been opened and read ahead."""

    source: Source
    plan: LookPlan
    read: ReadAhead


@dataclass
class _AskedImage:
    """An image about which everything was asked, still open, so that it can be drawn.

    ``failure``, a code and a reason, is that of all questions behind the records; ``misfits`` are the results of
    questions that cannot be put to the model, and that ``fitting`` is without.
    """

    item: Item
    fitting: Item
    misfits: list[Result]
    opened: _Open | None = None
    records: list[dict[str, Any]] = field(default_factory=list)
    failure: tuple[int, str] | None = None


class Worker:
    """A loaded model; raises what ``pipeline.prepare`` raises."""

    def __init__(self, job: Job) -> None:
        self.model, self._request = prepare(job.checkpoint, job.questions, job.answering, {})
        self._job = job

    def answers(
        self, take: Take, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[Group, list[list[Result]]]]:
        """Yields the results of every item of a group, in the order in which the groups were taken.

        After ``stopped`` says so no other group is begun.
        """
        waiting: deque[tuple[Group, list[Future[_Open]]]] = deque()
        drawing: deque[tuple[Group, list[Future[list[Result]]]]] = deque()
        pool = ThreadPoolExecutor(IMAGES_AHEAD + 1, "reader")
        ahead = self._job.groups_ahead
        try:
            while True:
                while len(waiting) <= ahead and (group := take(not waiting and not drawing)) is not None:
                    waiting.append((group, [pool.submit(self.read, item) for item in group.items]))
                goes_on = bool(waiting) and not stopped()
                if goes_on:
                    group, reading = waiting.popleft()
                    asked = self.ask(group, reading)
                    if not self._job.evidence:
                        yield group, [self.finish(each) for each in asked]
                        continue
                    drawing.append((group, [pool.submit(self.finish, each) for each in asked]))
                elif not drawing:
                    return
                if not goes_on or len(drawing) > 1:
                    group, drawn = drawing.popleft()
                    yield group, [each.result() for each in drawn]
        finally:
            for _, reading in waiting:
                for each in reading:
                    each.add_done_callback(_close)
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

    def read_now(self, item: Item) -> Future[_Open]:
        """The same here and now: an image, or why it cannot be read."""
        reading: Future[_Open] = Future()
        try:
            reading.set_result(self.read(item))
        except Exception as error:
            reading.set_exception(error)
        return reading

    def answer(self, item: Item) -> list[Result]:
        """The results of all questions of an item; those that an error left without an answer say so."""
        return self.finish(self._ask(item, self.read_now(item)))

    def ask(self, group: Group, reading: Sequence[Future[_Open]]) -> list[_AskedImage]:
        """What the network does: all questions in one go, so that no answer depends on where an earlier run ended."""
        if len(group.items) > 1:
            try:
                return self._ask_together(group, reading)
            except Exception:  # it must not cost the others; whose it is shows when they are asked one by one
                for each in reading:
                    _close(each)
            return [self._ask(item, self.read_now(item)) for item in group.items]
        return [self._ask(item, each) for item, each in zip(group.items, reading, strict=True)]

    def _ask(self, item: Item, reading: Future[_Open]) -> _AskedImage:
        asked = self._fitting(item)
        try:
            asked.opened = opened = reading.result()
            request = self._request_for(asked.fitting)
            answers = answer_planned(self.model, opened.source, opened.plan, request, read=opened.read)
            for record in answers:
                asked.records.append(_named(record, item))  # one by one, so that those before an error are kept
        except LostDeviceError:  # no other image can be asked about either
            raise
        except DragonflyError as error:
            asked.failure = error.exit_code, error.message
        except Exception as error:  # a bug met in one image must not cost the night; the error code tells it
            bug = f"this is a bug in dragonfly ({type(error).__name__}); ask about this image with --debug"
            asked.failure = BUG_CODE, f"{item.image}: {bug}"
        return asked

    def _ask_together(self, group: Group, reading: Sequence[Future[_Open]]) -> list[_AskedImage]:
        """Raises what goes wrong, but for an image that cannot be read, which costs its neighbours nothing."""
        desk = Desk(self.model, self._request.sampling, max(MOST_TOGETHER, len(group.items)))
        asked = [self._opened(*each) for each in zip(group.items, reading, strict=True)]
        encode_ahead(self.model, [one.opened.read for one in asked if one.opened])
        begun = [self._begin(desk, one) for one in asked]
        desk.write()
        for one, some in zip(asked, begun, strict=True):
            one.records = [_named(record, one.item) for inquiry in some for record in inquiry.records()]
        return asked

    def _begin(self, desk: Desk, asked: _AskedImage) -> list[Inquiry]:
        """Everything is asked of the image if it could be opened, and free answers wait at the desk."""
        begun: list[Inquiry] = []
        if not (opened := asked.opened):
            return begun
        request = self._request_for(asked.fitting)
        try:
            for inquiry in inquiries(desk, opened.source, opened.plan, request, opened.read):
                inquiry.draft()
                begun.append(inquiry)
        except InputError as error:
            asked.failure = error.exit_code, error.message
        return begun

    def finish(self, asked: _AskedImage) -> list[Result]:
        """Writes evidence, closes the image and gives its results; may run beside the network.

        Raises OutputError where evidence cannot be written, which is no failure of this image.
        """
        item, records = asked.item, asked.records
        if asked.opened:
            with closing(asked.opened.source) as source:
                if records and self._job.evidence:
                    stem = self._job.evidence / evidence_name(item, self._job.settings)
                    records = write_item_evidence(stem, item, source, asked.opened.plan, records)
        answered = [Result(key, record) for key, record in zip(asked.fitting.keys, records, strict=False)]
        failed = asked.fitting.failures(*asked.failure, but=len(records)) if asked.failure else []
        return answered + failed + asked.misfits

    def _opened(self, item: Item, reading: Future[_Open]) -> _AskedImage:
        asked = self._fitting(item)
        try:
            asked.opened = reading.result()
        except InputError as error:
            asked.failure = error.exit_code, error.message
        return asked

    def _fitting(self, item: Item) -> _AskedImage:
        """The item with the questions that can be put; each of the others, as one that is too long, fails alone."""
        fitting: list[Question] = []
        misfits: list[Result] = []
        for question in item.questions:
            try:
                check_question(self.model, question)
                fitting.append(question)
            except UsageError as error:
                misfits += item.asking([question]).failures(error.exit_code, error.message)
        return _AskedImage(item, item.asking(fitting), misfits)

    def _request_for(self, item: Item) -> Request:
        """That of the run, with the calibration that was there when it began, for this item's questions and options."""
        own = storable_settings(asdict(item.opening) | asdict(item.looking))
        settings = own | self._request.settings
        return replace(self._request, questions=list(item.questions), control=item.control, settings=settings)


def _named(record: dict[str, Any], item: Item) -> dict[str, Any]:
    return record | {"image": item.image}


def _close(reading: Future[_Open]) -> None:
    if not reading.cancelled() and reading.exception() is None:
        reading.result().source.close()
