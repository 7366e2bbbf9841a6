"""``--dry-run``: what would run, what cannot be read, and how long and with how much memory. Nothing is written.

Every image is opened, none of its pixels read, but those of one: it is answered, and what that took is the estimate
for the rest. That loads the model. Rows that an earlier run left count as done.
"""

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from time import perf_counter

from dragonfly_cli.batch.items import Item
from dragonfly_cli.batch.job import Job
from dragonfly_cli.batch.ledger import Ledger
from dragonfly_cli.batch.progress import duration
from dragonfly_cli.engine.checkpoints import canvas_of
from dragonfly_cli.errors import DragonflyError
from dragonfly_cli.fields import plan_looks
from dragonfly_cli.output.terminal import say, show


@dataclass(frozen=True)
class Opened:
    """An item that can be opened: how many fields it has. Or one that cannot: why."""

    item: Item
    fields: int
    error: str = ""


def show_plan(items: list[Item], ledger: Ledger, job: Job) -> None:
    """A few lines on stdout, and an ``error:`` line on stderr for every image that cannot be opened."""
    done = ledger.held()
    left = [item for item in items if not done.keys() >= set(item.keys)]
    canvas_wh = canvas_of(job.checkpoint)
    opened = [_open(item, canvas_wh) for item in left]
    for each in opened:
        if each.error:
            say(f"error: {each.error}")
    readable = [each for each in opened if not each.error]
    show(f"images: {len(items)}, of which done: {len(items) - len(left)}\n")
    show(f"cannot be read: {len(opened) - len(readable)}\n")
    show(f"rows to write: {sum(len(each.item.questions) for each in opened)}\n")
    show(f"fields to look at: {sum(each.fields for each in readable)}\n")
    for line in _estimate(readable, job) if readable else ():
        show(line + "\n")


def _open(item: Item, canvas_wh: tuple[int, int]) -> Opened:
    try:
        with closing(item.open()) as source:
            return Opened(item, len(plan_looks(source, item.looking, canvas_wh).fields))
    except DragonflyError as error:
        return Opened(item, 0, error.message)


def _estimate(readable: list[Opened], job: Job) -> Iterator[str]:
    """Of the first image's time per field and question, which is taken after the model is warm."""
    from dragonfly_cli.batch.worker import Worker

    worker = Worker(replace(job, evidence=None))
    first = readable[0]
    for _ in range(2):
        started = perf_counter()
        worker.answer(first.item)
        seconds = perf_counter() - started
    each = seconds / (first.fields * len(first.item.questions))
    total = each * sum(opened.fields * len(opened.item.questions) for opened in readable)
    memory = f"{_peak_bytes() / 1e9:.1f} GB{_of_device(str(worker.model.device))}"
    yield f"time: about {duration(total)} by one process ({each:.3g} s for a field and a question)"
    yield f"memory: {memory} for each process, measured like the time on {first.item.image}"


def _peak_bytes() -> int:
    import resource  # not to be had on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _of_device(device: str) -> str:
    if device == "cpu":
        return ""
    import torch

    return f" and {torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB on {device}"
