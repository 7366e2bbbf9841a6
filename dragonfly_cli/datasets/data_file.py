"""The rows of a JSONL or Parquet file, and those that cannot be used, by number and reason."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dragonfly_cli.datasets.rows import COLUMNS, TWO_ALIKE, BadRowError, Row, as_row
from dragonfly_cli.errors import InputError, NoInputError
from dragonfly_cli.output.table import column_name
from dragonfly_cli.parquet import check_parquet, column_names, read_rows

_NAMED = 5  # bad rows that an error names


@dataclass
class Data:
    """What a file holds; a row is in ``rows`` or in ``bad``, which says by number why it is left out."""

    path: Path
    rows: list[Row]
    bad: dict[int, str] = field(default_factory=dict)
    unused: set[str] = field(default_factory=set)  # names of columns

    def leave_out(self, reasons: Mapping[int, str]) -> None:
        """Moves rows to the bad ones; the reasons are kept without the place of the data on this machine."""
        place = self._place({row.picture.path for row in self.rows if row.number in reasons})
        self.rows = [row for row in self.rows if row.number not in reasons]
        self.bad |= {number: place.sub("", why) for number, why in reasons.items()}

    def _place(self, pictures: set[Path]) -> re.Pattern[str]:
        """Files are named as seen from the data's folder, however command and row lead there; links in it stay."""
        home = os.path.realpath(self.path.parent)
        folders = {folder for picture in pictures for folder in picture.parents}
        ways = (folder for folder in folders if os.path.realpath(folder) == home)
        places = {home, *map(str, (self.path.parent, *ways))} - {"."}
        longest_first = sorted((re.escape(place + os.sep) for place in places), key=len, reverse=True)
        return re.compile(rf"(?<![\w/])(?:{'|'.join(longest_first)})")  # not as the end of another path

    def unused_line(self) -> str | None:
        return f"{self.path}: columns that are not used: {', '.join(sorted(self.unused))}" if self.unused else None

    def bad_lines(self) -> list[str]:
        return [f"row {number}: {why}" for number, why in sorted(self.bad.items())]

    def named_bad(self) -> str:
        """The first bad rows, as an error names them; empty where there are none."""
        return "; ".join(self.bad_lines()[:_NAMED])

    def refuse_too_many_bad(self, most: int) -> None:
        """Raises InputError when more than ``most`` rows are bad, or no row is left."""
        rows = "1 row" if len(self.bad) == 1 else f"{len(self.bad)} rows"
        named = self.named_bad()
        if self.rows and len(self.bad) > most:
            raise InputError(
                f"{self.path}: {rows} cannot be used, and --max-errors is {most}: {named}",
                "correct them, or give a larger --max-errors to leave them out",
            )
        if not self.rows:
            why = f", {rows} cannot be used: {named}" if named else ""
            raise InputError(
                f"{self.path}: there is no row that can be used{why}",
                'every line is a row of its own, {"image": "a.png", "question": "...", "answer": "..."}, '
                "with the image's path as seen from the file",
            )


def read_data(path: Path) -> Data:
    """Reads every row; raises NoInputError, InputError, and UsageError where a package for the format is missing."""
    data = Data(path, [])
    for number, content in _contents(path):
        if isinstance(content, dict):
            data.unused |= {name for name in content if column_name(name) not in COLUMNS}
        try:
            data.rows.append(as_row(number, content, path.parent))
        except BadRowError as error:
            data.bad[number] = str(error)
    return data


def _contents(path: Path) -> Iterator[tuple[int, Any]]:
    """Numbers from 1 and decoded rows, each as an object, or BadRowError where it is none."""
    _check_file(path)
    if path.suffix.lower() == ".parquet":
        yield from enumerate(_parquet_rows(path), start=1)
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(
            f"cannot read {path}: it is not UTF-8 text", "give JSONL in UTF-8, or a file that ends in .parquet"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _decoded(line)


def _check_file(path: Path) -> None:
    try:
        what = "it is no file" if path.exists() else "no such file"
        if not path.is_file():
            raise NoInputError(f"{what}: {path}", "give a JSONL or Parquet file of questions and answers")
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot read {path}: {error.strerror}", "check the permissions of the file")


def _decoded(line: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=_object)
    except BadRowError as error:
        return error
    except (ValueError, RecursionError):
        return BadRowError("it is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) < len(pairs):
        raise BadRowError(TWO_ALIKE)
    return named


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    check_parquet()
    from pyarrow import ArrowException

    try:
        names = column_names(path)
        unused = dict.fromkeys(name for name in names if column_name(name) not in COLUMNS)
        # they are not read, as they may be pictures, but named in each row, as a line of JSON names them
        return [unused | row for row in read_rows(path, set(names) - unused.keys())]
    except (ArrowException, OSError):
        raise InputError(f"cannot read {path}: it is not a Parquet file", "export it again") from None
