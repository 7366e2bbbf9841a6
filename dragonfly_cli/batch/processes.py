"""Several workers on one machine, each a process with its own model; with GPUs, each has its own.

Work is handed out by need. A process that dies - killed for memory, or by a decoder that crashed - is replaced, and
what it had is asked again. Results go back to the one process that writes.
"""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, Self

from dragonfly_cli.batch.groups import Group
from dragonfly_cli.batch.handout import Handout
from dragonfly_cli.batch.job import LOOK_UP_S, Job, Stopped, lost
from dragonfly_cli.batch.result import Result
from dragonfly_cli.errors import DeviceError, DragonflyError, as_told
from dragonfly_cli.process import begin_process

_END_S = 10  # how long a process may take to end by itself


class _Process:
    """A process and this end of its pipe: groups go out; readiness, results or an error come back."""

    def __init__(self, job: Job, number: int, threads: int) -> None:
        spawning = get_context("spawn")  # a fork of a process with threads, as torch's are, may hang
        self.connection, theirs = spawning.Pipe()
        self.number = number
        self.ready = False
        self.error: DragonflyError | None = None
        self._process = spawning.Process(target=_serve, args=(theirs, job, number, threads), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, group: Group | None) -> None:
        with suppress(OSError):  # that it is gone is seen by what it sends: nothing
            self.connection.send(group)

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        self.send(None)
        self._process.join(_END_S)
        self._process.kill()
        self._process.join()
        self.connection.close()


class Processes:
    """``count`` workers; use it in a ``with``."""

    def __init__(self, job: Job, count: int, stopped: Stopped) -> None:
        self._job = job
        self._count = count
        self._stopped = stopped
        self._processes: dict[Connection, _Process] = {}

    def __enter__(self) -> Self:
        """Waits until one is ready; raises the error of one that cannot begin."""
        try:
            for number in range(self._count):
                self._start(number)
            while not any(process.ready for process in self._processes.values()):
                for connection, message in self._messages():
                    if message is None:
                        self._replace(connection)
                    else:
                        self._welcome(connection, message)
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._kill()
        for process in self._processes.values():
            process.end()

    def answers(self, groups: Iterable[Group]) -> Iterator[list[Result]]:
        handout = Handout(groups, self._job.groups_ahead + 1)
        while True:
            if self._stopped():
                handout.stop()
                for process in self._processes.values():
                    process.send(None)
            self._hand_out(handout)
            if not handout.outstanding and not handout.waits_for_a_worker:
                return
            for connection, message in self._messages():
                if isinstance(message, tuple):
                    place, answered = message
                    handout.done(connection, place)
                    yield from answered
                elif message is None:
                    yield from (lost(item) for item in handout.lost(connection))
                    self._replace(connection)
                else:
                    self._welcome(connection, message)

    def _hand_out(self, handout: Handout) -> None:
        ready = [connection for connection, process in self._processes.items() if process.ready]
        for connection, group in handout.deal(ready):
            self._processes[connection].send(group)

    def _messages(self) -> Iterator[tuple[Connection, Any]]:
        """What has arrived, within a moment; None from a process that has ended."""
        arrived = wait(list(self._processes), LOOK_UP_S)
        for connection in [each for each in self._processes if each in arrived]:
            try:
                yield connection, connection.recv()
            except (EOFError, OSError):
                yield connection, None

    def _start(self, number: int) -> None:
        process = _Process(self._job, number, max(1, _cores() // self._count))
        self._processes[process.connection] = process

    def _welcome(self, connection: Connection, message: bool | DragonflyError) -> None:
        """Raises what ended a worker that had begun, as it would end any other."""
        process = self._processes[connection]
        if not isinstance(message, DragonflyError):
            process.ready = True
        elif process.ready:
            raise message
        else:
            process.error = message

    def _replace(self, connection: Connection) -> None:
        """Starts another one for one that has ended; raises the error of the last of those that could not begin."""
        gone = self._processes.pop(connection)
        gone.end()
        if gone.ready and not self._stopped():
            self._start(gone.number)
        elif not gone.ready and not self._processes:
            raise gone.error or DeviceError(
                "the worker processes ended while they loaded the model", "give fewer --workers"
            )

    def _kill(self) -> None:
        for process in self._processes.values():
            process.kill()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _serve(connection: Connection, job: Job, number: int, threads: int) -> None:
    """The worker's process: answers what comes through the pipe until None comes, or its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the writer decides
    end_with_parent()
    begin_process()
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # before torch is imported
    with suppress(OSError):  # the writer is gone
        try:
            from dragonfly_cli.batch.worker import Worker

            worker = Worker(replace(job, answering=replace(job.answering, device=own_device(job, number))))
            connection.send(True)
            inbox = _Inbox(connection)
            for group, answered in worker.answers(inbox.take, lambda: inbox.closed):
                connection.send((group.place, answered))
        except Exception as error:  # a traceback would be printed where the bar of the run is
            connection.send(as_told(error))


def end_with_parent() -> None:
    """Ends this process as soon as the one that started it was killed: the next run wants its memory and its files."""

    def watch() -> None:
        if parent := parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


class _Inbox:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.closed = False

    def take(self, wait: bool) -> Group | None:
        if self.closed or not (wait or self._connection.poll()):
            return None
        try:
            group: Group | None = self._connection.recv()
        except (EOFError, OSError):
            group = None
        self.closed = group is None
        return group


def own_device(job: Job, number: int) -> str:
    """Where GPUs are to be taken and none is named, the worker's own one."""
    from dragonfly_cli.engine.placement import usable_gpus

    gpus = usable_gpus()
    wish = job.answering.device
    return f"cuda:{number % gpus}" if wish in ("auto", "cuda") and gpus else wish
