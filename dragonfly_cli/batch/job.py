"""What answers the items of a run: one worker in this process, several processes, or Ray; all give the same rows."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from dragonfly_cli.batch.groups import Group
from dragonfly_cli.batch.handout import TRIES
from dragonfly_cli.batch.items import Item
from dragonfly_cli.batch.options import Engine, WorkOptions
from dragonfly_cli.batch.result import Result
from dragonfly_cli.engine.checkpoints import Checkpoint
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.errors import DeviceError, UsageError
from dragonfly_cli.options import AnswerOptions

# Images that a worker reads before their turn, or else one whole group of them: bounds its memory.
IMAGES_AHEAD = 2

# How soon a wish to stop is noticed while no results arrive.
LOOK_UP_S = 0.5

Stopped = Callable[[], bool]


@dataclass(frozen=True)
class Job:
    """All that a worker needs to begin: it can be sent to another process.

    ``questions`` are those of the command: what is wrong with one of these ends the run before it begins.
    With ``evidence``, a folder, it writes the files of every image there before it gives the results back. Their names
    have ``settings`` in them, a hash of what decides the answers: runs that ask differently may share the folder.
    A group has ``together`` items, whose free answers are written together.
    """

    checkpoint: Checkpoint
    questions: list[Question]
    answering: AnswerOptions
    evidence: Path | None = None
    settings: str = ""
    together: int = 1

    @property
    def groups_ahead(self) -> int:
        """How many groups a worker reads before their turn."""
        return -(-IMAGES_AHEAD // self.together)


class Workforce(Protocol):
    """Entering loads the model, and raises what ``pipeline.prepare`` raises; leaving ends every process."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def answers(self, groups: Iterable[Group]) -> Iterator[list[Result]]:
        """Yields the results of each item as soon as those of its group are there, in any order of groups.

        Once the run is to be stopped, no other group is begun. Raises OutputError if evidence cannot be written.
        """


class OneWorker:
    """A worker in this process; groups are answered in their order."""

    def __init__(self, job: Job, stopped: Stopped) -> None:
        self._job = job
        self._stopped = stopped

    def __enter__(self) -> Self:
        from dragonfly_cli.batch.worker import Worker

        self._worker = Worker(self._job)
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to end."""

    def answers(self, groups: Iterable[Group]) -> Iterator[list[Result]]:
        remaining = iter(groups)
        for _, answered in self._worker.answers(lambda wait: next(remaining, None), self._stopped):
            yield from answered


def check_work_options(options: WorkOptions) -> None:
    """Raises UsageError for what cannot be had, or contradicts itself."""
    if options.engine is Engine.ray:
        if find_spec("ray") is None:
            raise UsageError("--engine ray: Ray is not installed", 'pip install "dragonfly-cli[ray]"')
    elif options.address is not None:
        raise UsageError("--address is for --engine ray alone", "add --engine ray, or leave --address out")


def workforce(job: Job, options: WorkOptions, stopped: Stopped) -> Workforce:
    """``options.workers`` of them; by default one here, and one for every GPU of a Ray cluster."""
    if options.engine is Engine.ray:
        from dragonfly_cli.batch.on_ray import RayActors

        return RayActors(job, options.workers, options.address, stopped)
    if options.workers and options.workers > 1:
        from dragonfly_cli.batch.processes import Processes

        return Processes(job, options.workers, stopped)
    return OneWorker(job, stopped)


def lost(item: Item) -> list[Result]:
    """What is written of an item that was given up, as its workers ended again and again."""
    why = f"{item.image}: {TRIES} workers ended while they had it (out of memory, or a decoder crashed)"
    return item.failures(DeviceError.exit_code, why)
