"""The CSV of a run and the files beside it: rows are appended and synced as they finish.

``run.json`` says with which settings the rows were made; a run is continued only with the same. A torn last row, left
by a kill in the middle of a write, is cut off and answered again. ``failed.csv`` lists what was not answered.
"""

import csv
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dragonfly_cli.errors import OutputError
from dragonfly_cli.output.files import check_writable, write_text
from dragonfly_cli.output.table import as_csv, unguarded

_RUN_FILE = "run.json"
_FAILED_FILE = "failed.csv"

Key = tuple[str, str]  # image path and question, as they stand in the CSV


@dataclass(frozen=True)
class Finished:
    """What an earlier run has left: the keys of its rows, and those rows that say failed."""

    keys: frozenset[Key]
    failed_rows: list[dict[str, str]]


class Ledger:
    """An open run. Use it in a ``with``; ``add`` has the rows on disk when it returns."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self._settings = settings
        self._failed: list[dict[str, str]] = []

    def refuse_other_run(self) -> None:
        """Raises OutputError if the file cannot be written, or holds a run with other settings; changes nothing."""
        check_writable(self.path)
        if not self.path.exists():
            return
        differing = _differences(self.path.with_name(_RUN_FILE), self._settings)
        if differing:
            raise OutputError(
                f"cannot continue {self.path}: {differing}",
                "repeat the first run's options, or choose another --output",
            )

    def __enter__(self) -> Self:
        self.refuse_other_run()
        self.finished = _take_up(self.path, self._settings)
        self._failed += self.finished.failed_rows
        try:
            self._file = self.path.open("a", encoding="utf-8", newline="")
            if self._file.tell() == 0:
                self._write(as_csv([], header=True))
        except OSError as error:
            raise _unwritable(self.path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, rows: list[dict[str, str]]) -> None:
        """Appends rows; raises OutputError if the disk refuses, and what was written before stays."""
        self._failed += [row for row in rows if row["status"] == "failed"]
        try:
            self._write(as_csv(rows, header=False))
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def close_with_failures(self) -> int:
        """Writes ``failed.csv`` (or removes one that is out of date); returns the number of failed rows."""
        beside = self.path.with_name(_FAILED_FILE)
        if self._failed:
            write_text(beside, as_csv(self._failed, header=True))
        else:
            beside.unlink(missing_ok=True)
        return len(self._failed)

    def _write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()
        os.fsync(self._file.fileno())


def _take_up(path: Path, settings: dict[str, Any]) -> Finished:
    """Starts a new run, or repairs and reads the one to continue."""
    if not path.exists():
        write_text(path.with_name(_RUN_FILE), json.dumps(settings, ensure_ascii=False, indent=2) + "\n")
        return Finished(frozenset(), [])
    text = whole_rows(path.read_bytes().decode("utf-8", errors="ignore"))
    os.truncate(path, len(text.encode("utf-8")))
    rows = [{name: unguarded(cell or "") for name, cell in row.items()} for row in csv.DictReader(io.StringIO(text))]
    return Finished(
        frozenset((row["image"], row["question"]) for row in rows),
        [row for row in rows if row["status"] == "failed"],
    )


def whole_rows(text: str) -> str:
    """The part of a CSV text up to its last complete row: an end of line outside quotes."""
    end = place = quotes = 0
    for line in text.split("\n")[:-1]:  # what follows the last end of line is torn
        place += len(line) + 1
        quotes += line.count('"')
        if quotes % 2 == 0:
            end = place
    return text[:end]


def _differences(run_file: Path, settings: dict[str, Any]) -> str:
    """Which settings differ from those of ``run_file``, in words; empty if none do."""
    try:
        earlier = json.loads(run_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"there is no readable {run_file.name} beside it, so it is not known how it was made"
    names = [name for name in settings if name != "versions" and earlier.get(name) != settings[name]]
    return f"it was made with other settings ({', '.join(names)})" if names else ""


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {path}: {error.strerror or 'the disk refused'}", "make room and run the same command again"
    )
