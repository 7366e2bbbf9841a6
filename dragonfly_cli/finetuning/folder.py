"""The folder of a run: ``training.json`` from its beginning, ``work`` until its end, the checkpoint when it is done.

A checkpoint appears whole: its files are written in ``work`` and moved, config.json last, so that a folder whose
training has not ended is no model.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dragonfly_cli.errors import DragonflyError, LostError, OutputError
from dragonfly_cli.finetuning.processes import is_first_process
from dragonfly_cli.output.files import NO_ROOM, is_part, write_text
from dragonfly_cli.output.json_text import json_text

_RECORD, _CONFIG, _WORK = "training.json", "config.json", "work"
_FULL = (*NO_ROOM, None)  # NumPy, safetensors and torch give no number


class RunFolder:
    """Where a run is kept, and whether it may go on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._record = path / _RECORD

    @property
    def checkpoints(self) -> Path:
        return self.path / _WORK / "checkpoints"

    @property
    def features(self) -> Path:
        return self.path / _WORK / "features"

    @property
    def result(self) -> Path:
        """Where the finished checkpoint is written, before ``publish`` moves it."""
        return self.path / _WORK / "result"

    def refuse_foreign(self) -> None:
        """Raises OutputError if the folder cannot be made or written, or holds anything but a run; changes nothing."""
        try:
            self._refuse_foreign()
        except OSError as error:
            raise self._refusal(error.strerror or "the disk refused") from error

    def _refuse_foreign(self) -> None:
        if not self.path.parent.is_dir():
            raise OutputError(f"cannot write {self.path}: there is no folder {self.path.parent}", "make it first")
        is_there = self.path.exists() or self.path.is_symlink()  # a link to nowhere is there, too
        if is_there and not self._record.is_file() and (not self.path.is_dir() or self._holds_files()):
            raise OutputError(
                f"cannot write {self.path}: it is in use for something else", "choose a new folder for --output"
            )
        if not os.access(self.path if is_there else self.path.parent, os.W_OK | os.X_OK):
            raise self._refusal("Permission denied")

    def refuse_within(self, pictures: set[Path]) -> None:
        """Raises OutputError for a place in a picture that is a folder: when the run goes on, its data were others."""
        around = {str(parent) for parent in Path(os.path.realpath(self.path)).parents}
        if any(os.path.realpath(picture) in around for picture in pictures):
            raise OutputError(
                f"cannot write {self.path}: it lies in a folder that is learnt from", "choose another one for --output"
            )

    def _refusal(self, why: str) -> OutputError:
        return OutputError(f"cannot write {self.path}: {why}", "choose a folder for --output that you may write to")

    def earlier(self, settings: dict[str, Any]) -> dict[str, Any] | None:
        """The record of the run that the folder holds; raises OutputError if its settings were others."""
        if not self._record.is_file():
            return None
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
            then, _ = record["settings"], record["status"]
            differing = [name for name in settings if then.get(name) != settings[name]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise OutputError(
                f"cannot continue {self.path}: {_RECORD} in it cannot be read", "choose a new folder for --output"
            ) from None
        if differing:
            raise OutputError(
                f"cannot continue {self.path}: it was made with other settings ({', '.join(differing)})",
                "repeat the first run's options and data, or choose a new folder for --output",
            )
        return record

    @contextmanager
    def at_work(self, record: dict[str, Any]) -> Iterator[None]:
        """While a run goes on. Raises OutputError if another one goes on in the folder, or where the disk refuses.

        Of several processes the first one makes the folder: it may still be looking at what was there before.
        """
        with _disk_errors(self.path):
            if not is_first_process():
                yield
                return
            self.path.mkdir(exist_ok=True)
            self.write(record)  # before anything else: after a kill the folder must still be known as that of a run
            for folder in (self.checkpoints, self.features):
                folder.mkdir(parents=True, exist_ok=True)
            with self._lock():
                yield

    def _holds_files(self) -> bool:
        """Whether it holds anything but a record that is being written, or was when a process was killed."""
        return any(not is_part(file) for file in self.path.iterdir())

    @contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            with FileLock(self.path / _WORK / "lock", timeout=0):
                yield
        except Timeout:
            raise OutputError(
                f"cannot write {self.path}: another run is writing it",
                "wait until it has finished, or choose a new folder for --output",
            ) from None

    def write(self, record: dict[str, Any]) -> None:
        write_text(self._record, json_text(record))

    def publish(self) -> None:
        """Moves the finished checkpoint to its place; the work is left for ``clear``.

        Whoever may read the record may then read all of it: safetensors writes for the owner alone.
        """
        (self.result / _RECORD).unlink(missing_ok=True)  # of the run that the checkpoint to begin with came from
        for file in self.result.rglob("*.safetensors"):
            shutil.copymode(self._record, file)
        for file in sorted(self.result.iterdir(), key=lambda file: file.name == _CONFIG):
            place = self.path / file.name
            if place.is_dir():  # an earlier call was interrupted just here
                shutil.rmtree(place)
            file.replace(place)

    def clear(self) -> None:
        """Removes what is needed only to continue the run."""
        shutil.rmtree(self.path / _WORK, ignore_errors=True)

    @contextmanager
    def kept_if_learnt(self) -> Iterator[None]:
        """Removes the run where one of our errors ends it before anything was learnt, and it cannot go on as it is."""
        try:
            yield
        except LostError:
            raise
        except DragonflyError:
            self._discard()
            raise

    def _discard(self) -> None:
        if not any(self.checkpoints.glob("*")):
            self.clear()
            self._record.unlink(missing_ok=True)
            with suppress(OSError):  # not empty, or removed by another process of this run
                self.path.rmdir()


@contextmanager
def _disk_errors(place: Path) -> Iterator[None]:
    """What a full disk makes of writing: safetensors and torch have errors of their own for it."""
    try:
        yield
    except Exception as error:
        if not _is_of_disk(error, place):
            raise
        why = getattr(error, "strerror", None) or "the disk refused"
        is_full = getattr(error, "errno", None) in _FULL
        remedy = "make room" if is_full else "check the folder and its disk"
        raise OutputError(
            f"cannot write {place}: {why}", f"{remedy} and run the same command again, which goes on"
        ) from error


def _is_of_disk(error: Exception, place: Path) -> bool:
    if isinstance(error, OSError):  # of a file elsewhere, it is not about writing
        return error.filename is None or Path(str(error.filename)).resolve().is_relative_to(place.resolve())
    is_of_safetensors = type(error).__name__ == "SafetensorError" and "I/O error" in str(error)
    is_of_torch = isinstance(error, RuntimeError) and "inline_container" in str(error)
    return is_of_safetensors or is_of_torch
