"""Workers on the machines of a Ray cluster: one actor for every GPU, each with its own model.

Actors read images by path, so every machine must see the files under the same name, and have dragonfly and the model
installed. Work is handed out by need. When an actor is lost, with its process or its machine, what it had is asked
again of others, and another one starts wherever there is room. One process, the caller's, writes.
"""

import logging
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from itertools import count
from threading import Lock
from typing import Any, Self

import ray
from ray.exceptions import RayActorError, RayError

from dragonfly_cli.batch.groups import Group
from dragonfly_cli.batch.handout import Handout
from dragonfly_cli.batch.job import LOOK_UP_S, Job, Stopped, lost
from dragonfly_cli.batch.result import Result
from dragonfly_cli.errors import DeviceError, DragonflyError, as_told
from dragonfly_cli.process import begin_process


class _Actor:
    """A worker on some machine. Groups of images are read side by side; the network answers one at a time."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._device = Lock()
        self._stopped = False

    def begin(self) -> DragonflyError | None:
        """Loads the model; what goes wrong is returned, as Ray would wrap what is raised."""
        begin_process()
        try:
            from dragonfly_cli.batch.worker import Worker

            self._worker = Worker(self._job)
        except Exception as error:
            return as_told(error)
        return None

    def answer(self, group: Group) -> list[list[Result]] | DragonflyError | None:
        """The results of every item, None if they were not begun before the run was stopped, or what ends the run."""
        try:
            reading = [self._worker.read_now(item) for item in group.items]
            with self._device:
                if self._stopped:
                    return None
                asked = self._worker.ask(group, reading)
            return [self._worker.finish(each) for each in asked]
        except Exception as error:
            return as_told(error)

    def stop(self) -> None:
        self._stopped = True


class RayActors:
    """``wished`` actors, or one for every GPU of the cluster, or one; use it in a ``with``."""

    def __init__(self, job: Job, wished: int | None, address: str | None, stopped: Stopped) -> None:
        self._job = job
        self._wished = wished
        self._address = address
        self._stopped = stopped
        self._numbers = count()
        self._actors: dict[int, Any] = {}
        self._beginning: dict[Any, int] = {}  # promises to have loaded the model
        self._answering: dict[Any, tuple[int, Group]] = {}  # promises of results

    def __enter__(self) -> Self:
        """Waits until one actor is ready; raises the error of one that cannot begin."""
        try:
            _connect(self._address)
            resources = ray.cluster_resources()
            is_wanted = self._job.answering.device != "cpu"
            self._kind = "GPU" if is_wanted and resources.get("GPU", 0) >= 1 else "CPU"
            room = int(resources.get(self._kind, 0))
            for _ in range(min(self._wished or (room if self._kind == "GPU" else 1), max(1, room))):
                self._start()
            while len(self._beginning) == len(self._actors):
                for promise in self._arrived():
                    self._welcome(promise)
        except BaseException:
            ray.shutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors.values():
            ray.kill(actor)
        ray.shutdown()

    def answers(self, groups: Iterable[Group]) -> Iterator[list[Result]]:
        handout = Handout(groups, self._job.groups_ahead + 1)
        while True:
            if self._stopped():
                self._stop(handout)
            self._hand_out(handout)
            if not handout.outstanding and not handout.waits_for_a_worker:
                return
            for promise in self._arrived():
                if promise in self._beginning:
                    self._welcome(promise)
                elif promise in self._answering:  # and not of an actor that is known to be lost
                    yield from self._received(promise, handout)

    def _received(self, promise: Any, handout: Handout) -> Iterator[list[Result]]:
        number, group = self._answering.pop(promise)
        try:
            answered = ray.get(promise)
        except RayActorError:
            self._lose(number)
            yield from (lost(each) for each in handout.lost(number))
            return
        if isinstance(answered, DragonflyError):
            raise answered
        handout.done(number, group.place)
        yield from answered or ()

    def _hand_out(self, handout: Handout) -> None:
        beginning = set(self._beginning.values())
        for number, group in handout.deal(number for number in self._actors if number not in beginning):
            self._answering[self._actors[number].answer.remote(group)] = number, group

    def _arrived(self) -> list[Any]:
        pending = [*self._beginning, *self._answering]
        arrived, _ = ray.wait(pending, num_returns=len(pending), timeout=LOOK_UP_S)
        return list(arrived)

    def _start(self) -> None:
        need = {"num_gpus": 1} if self._kind == "GPU" else {"num_cpus": 1}
        actor = ray.remote(_Actor).options(max_concurrency=self._job.groups_ahead + 2, **need).remote(self._job)
        number = next(self._numbers)
        self._actors[number] = actor
        self._beginning[actor.begin.remote()] = number

    def _welcome(self, promise: Any) -> None:
        """Takes in an actor that has begun; raises the error of the last of those that could not."""
        number = self._beginning.pop(promise)
        try:
            error = ray.get(promise)
        except RayActorError:
            error = DeviceError("the Ray actors ended while they loaded the model", "give fewer --workers")
        if error is not None:
            self._actors.pop(number)
            if not self._actors:
                raise error

    def _lose(self, number: int) -> None:
        """Forgets an actor and starts another; raises DeviceError if the cluster has no room for any."""
        self._actors.pop(number)
        self._answering = {promise: whose for promise, whose in self._answering.items() if whose[0] != number}
        if len(self._beginning) == len(self._actors) and ray.cluster_resources().get(self._kind, 0) < 1:
            raise DeviceError("every machine of the Ray cluster was lost", "run the same command again to go on")
        self._start()

    def _stop(self, handout: Handout) -> None:
        handout.stop()
        for actor in self._actors.values():
            actor.stop.remote()


def _connect(address: str | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    beside = {} if address else {"include_dashboard": False}
    terminate = signal.getsignal(signal.SIGTERM)  # Ray takes it, to end with other exit codes
    try:
        ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **beside)
    except SystemExit:
        sys.exit(128 + signal.SIGTERM)
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        raise DeviceError(
            f"--engine ray: there is no cluster at {address or 'this machine'}", "check --address, or leave it out"
        ) from error
    finally:
        signal.signal(signal.SIGTERM, terminate)
