"""A file of rows that grows by appending and is never read wrongly after a kill.

What was synced stays; a torn last row is cut off when the file is opened again, and what another program has written
in other words for the same is written anew. While a run goes on, rows stand in the order in which they were finished,
and one that was asked again stands twice, of which the last one counts. ``put_in_order`` then writes the file anew, in
a fixed order and each row once, and moves it in place in one step: a kill before the move leaves the old file, from
which the next run comes to the same end.
"""

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dragonfly_cli.batch.result import Key, Result
from dragonfly_cli.batch.row_formats import NotAsWrittenError, RowFormat, whole_rows
from dragonfly_cli.errors import OutputError
from dragonfly_cli.output.files import write_whole


@dataclass(frozen=True)
class _Place:
    """Where in the file a row stands, in bytes."""

    key: Key
    start: int
    end: int


class RowFile:
    """``open`` comes before anything is written and ``close`` at the end; ``append`` returns once rows are on disk."""

    def __init__(self, path: Path, rows: RowFormat) -> None:
        self.path = path
        self._rows = rows
        self._places: list[_Place] = []

    def read(self) -> dict[Key, Result]:
        """What the file holds of every key, without records; nothing if there is no file. Changes nothing.

        Raises OutputError if it is not a table of this program, or another one has changed what it says.
        """
        held: dict[Key, Result] = {}
        self._places, self._is_as_written = [], True
        if not self.path.exists():
            return held
        try:
            with self.path.open("rb") as file:
                header = self._rows.header_of(file)
                self._is_as_written = self._rows.header.startswith(header)
                at = len(header)
                for row in whole_rows(file, self._rows):
                    result = self._rows.decoded(row)
                    held[result.key] = result
                    self._places.append(_Place(result.key, at, at + len(row)))
                    self._is_as_written &= self._rows.renewed(row) == row
                    at += len(row)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error) as error:
            raise foreign(self.path, error) from error
        return held

    def open(self) -> dict[Key, Result]:
        """Starts the file, or reads and repairs what is there; what it holds, as ``read``.

        Raises OutputError if it cannot be written either.
        """
        try:
            held = self.read()
            if not self._is_as_written:
                self._write_anew(self._places)
                held = self.read()
            self._file = self.path.open("ab")
            end = self._end if self._file.tell() >= self._end else 0
            self._file.truncate(end)
            self._file.seek(end)
            if end == 0:
                self._write(self._rows.header)
        except OSError as error:
            raise unwritable(self.path, error) from error
        return held

    def rows(self) -> Iterator[tuple[Key, bytes]]:
        """Every row that was read, as a run writes it."""
        with self.path.open("rb") as file:
            for place in self._places:
                yield place.key, self._rows.renewed(_piece(file, place))

    def append(self, results: Iterable[Result]) -> None:
        """Raises OutputError if the disk refuses, or another program was at the file; what was written before stays."""
        self._refuse_if_touched()
        try:
            at = self._file.tell()
            pieces = [(result.key, self._rows.encoded(result)) for result in results]
            self._write(b"".join(piece for _, piece in pieces))
        except OSError as error:
            raise unwritable(self.path, error) from error
        for key, piece in pieces:
            self._places.append(_Place(key, at, at + len(piece)))
            at += len(piece)

    def put_in_order(self, numbers: Mapping[Key, int]) -> None:
        """Each row once and by its number; a row without one (its image has gone) stays behind the one before it.

        Closes the file. Raises OutputError as ``append`` does.
        """
        self._refuse_if_touched()
        self.close()
        ordered = _in_order(self._places, numbers)
        if ordered != self._places:
            self._write_anew(ordered)

    @property
    def _end(self) -> int:
        return self._places[-1].end if self._places else len(self._rows.header)

    def _refuse_if_touched(self) -> None:
        """A file that was removed or saved anew meanwhile lacks the rows that were written since."""
        try:
            is_own = self.path.stat().st_size == self._end
        except OSError as error:
            raise unwritable(self.path, error) from error
        if not is_own:
            raise OutputError(
                f"cannot write {self.path}: another program has written to it during the run",
                "close it there, and run the same command again",
            )

    def close(self) -> None:
        with suppress(OSError):  # of what a full disk refused before, and was told
            self._file.close()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _write_anew(self, places: list[_Place]) -> None:
        write_whole(self.path, lambda part: self._copy(places, part))

    def _copy(self, places: list[_Place], part: Path) -> None:
        with self.path.open("rb") as old, part.open("wb") as new:
            new.write(self._rows.header)
            new.writelines(self._rows.renewed(_piece(old, place)) for place in places)


def _piece(file: BinaryIO, place: _Place) -> bytes:
    file.seek(place.start)
    return file.read(place.end - place.start)


def _in_order(places: list[_Place], numbers: Mapping[Key, int]) -> list[_Place]:
    last = {place.key: place for place in places}
    number = -1
    numbered = []
    for place in places:
        number = numbers.get(place.key, number)
        if last[place.key] is place:
            numbered.append((number, place))
    return [place for _, place in sorted(numbered, key=lambda each: each[0])]


def unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {path}: {error.strerror or 'the disk refused'}",
        "see that there is room and that it may be written, and run the same command again",
    )


def foreign(path: Path, error: Exception) -> OutputError:
    """What to raise for a table that cannot be read; ``error`` says why."""
    if not isinstance(error, NotAsWrittenError):
        return OutputError(
            f"cannot read {path}: it is not a table of this version of dragonfly", "choose another --output"
        )
    return OutputError(
        f"cannot read {path}: it is not as a run writes it, but was saved again by another program: {error}",
        "put it back as it was, and open a copy of it elsewhere; or choose another --output",
    )
