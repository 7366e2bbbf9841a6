"""The folder of a run: ``training.json`` from its beginning, ``work`` until its end, the checkpoint when it is done.

A checkpoint appears whole: its files are written in ``work`` and moved, config.json last, so that a folder whose
training has not ended is no model.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from dragonfly_cli.errors import OutputError
from dragonfly_cli.output.files import write_text
from dragonfly_cli.store.folder import disk_errors

_RECORD, _CONFIG, _WORK = "training.json", "config.json", "work"


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
        """Raises OutputError if the folder cannot be made, or holds anything but a run; changes nothing."""
        if not self.path.parent.is_dir():
            raise OutputError(f"cannot write {self.path}: there is no folder {self.path.parent}", "make it first")
        if self.path.exists() and not self._record.is_file() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise OutputError(
                f"cannot write {self.path}: it is in use for something else", "choose a new folder for --output"
            )

    def earlier(self, settings: dict[str, Any]) -> dict[str, Any] | None:
        """The record of the run that the folder holds; raises OutputError if its settings were others."""
        if not self._record.is_file():
            return None
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
            then = record["settings"]
            differing = [name for name in settings if then.get(name) != settings[name]]
        except (OSError, ValueError, KeyError, AttributeError):
            raise OutputError(
                f"cannot continue {self.path}: {_RECORD} in it cannot be read", "choose a new folder for --output"
            ) from None
        if differing:
            raise OutputError(
                f"cannot continue {self.path}: it was made with other settings ({', '.join(differing)})",
                "repeat the first run's options and data, or choose a new folder for --output",
            )
        return record

    def begin(self, record: dict[str, Any]) -> None:
        with disk_errors(self.path):
            for folder in (self.checkpoints, self.features):
                folder.mkdir(parents=True, exist_ok=True)
        self.write(record)

    def write(self, record: dict[str, Any]) -> None:
        write_text(self._record, json.dumps(record, ensure_ascii=False, indent=2) + "\n")

    def publish(self) -> None:
        """Moves the finished checkpoint to its place; the work is left for ``clear``."""
        with disk_errors(self.path):
            for file in sorted(self.result.iterdir(), key=lambda file: file.name == _CONFIG):
                place = self.path / file.name
                if place.is_dir():  # an earlier call was interrupted just here
                    shutil.rmtree(place)
                file.replace(place)

    def clear(self) -> None:
        """Removes what only a run that goes on needs."""
        shutil.rmtree(self.path / _WORK, ignore_errors=True)

    def discard(self) -> None:
        """Removes a run that has not learnt anything yet."""
        if not any(self.checkpoints.glob("*")):
            self.clear()
            self._record.unlink(missing_ok=True)
            if not any(self.path.iterdir()):
                self.path.rmdir()
