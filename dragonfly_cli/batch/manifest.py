"""A table that says what is asked of what: CSV, JSON lines or Parquet with a column ``image``.

Beside it ``question``, and any option that says how an image is opened or where in it the model looks (``frame``,
``slide-mpp`` ...), under its name on the command line; an empty cell leaves it to the command. Paths are looked for
from the current folder and beside the table. The ``failed.csv`` of a run is such a table: the columns of results are
passed over, and ``row_options`` is taken apart again.
"""

import csv
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragonfly_cli.errors import InputError, UsageError
from dragonfly_cli.option_groups import option_names
from dragonfly_cli.options import LookOptions, OpenOptions
from dragonfly_cli.output.table import COLUMNS, column_name, delimiter_of, unguarded
from dragonfly_cli.output.terminal import say
from dragonfly_cli.parquet import UNDECODABLE, read_rows
from dragonfly_cli.readers import exists

ROW_GROUPS = (OpenOptions, LookOptions)
SUFFIXES = frozenset((".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"))

_BEYOND = "cells beyond the header"
_TEXTS = ("image", "question")
_OPTIONS_OF_EVAL = ("system", "type")  # what a row of its data decides; of a system prompt there is but the hash
_WITHOUT_FRACTION = re.compile(r"(-?\d+)\.0+")
_HALF_A_LETTER = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # the others stand for bytes that are not UTF-8
_SPACE_BEFORE_QUOTE = re.compile(r' +"')  # by which the quotes become part of the cell
_ESCAPED_BYTE = re.compile(r"\\udc([89a-f][0-9a-f])")


@dataclass(frozen=True)
class ManifestRow:
    """``options`` are those that the row has of its own, as text by field name; ``where`` is for messages."""

    image: Path
    question: str | None
    options: dict[str, str]
    where: str


def read_manifest(path: Path) -> list[ManifestRow]:
    """All rows, in their order, but for those without a single filled cell.

    Raises:
        InputError: it cannot be read, has no column ``image`` or a row without one, or a name means two files.
        UsageError: Parquet is not installed, or ``row_options`` are none.
    """
    try:
        rows = list(_READERS.get(path.suffix.lower(), _csv_rows)(path))
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read the manifest {path}: it is not UTF-8", "save it as UTF-8") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not what its suffix says"
        raise InputError(f"cannot read the manifest {path}: {why}", "check the file") from error
    options = option_names(ROW_GROUPS)
    numbered = enumerate(rows, start=1)
    taken = [_manifest_row(path, number, row, options) for number, row in numbered if any(row.values())]
    known = {"image", "question", *options, *COLUMNS}
    unknown = sorted({name for row in rows for name in row} - known)
    if unknown:  # told only now, as they are no names of columns but somebody's where the header is missing
        say(f"note: {path}: columns that are not used: {', '.join(unknown)}")
    return taken


def _manifest_row(path: Path, number: int, row: Mapping[str, str], options: Mapping[str, str]) -> ManifestRow:
    where = _where(path, number)
    if not row.get("image"):
        raise InputError(f"{where}: there is no image", "name the column with the paths `image`, and fill every row")
    _refuse_two_of_one_option(row, where, options)
    own = dict(_taken_apart(row.get("row_options", ""), where, options))
    own |= {options[name]: _without_fraction(text) for name, text in row.items() if name in options and text}
    if own.get("roi"):
        own["roi"] = str(_found(own["roi"], path, where))
    return ManifestRow(_found(row["image"], path, where), row.get("question") or None, own, where)


def _refuse_two_of_one_option(names: Iterable[str], where: str, options: Mapping[str, str]) -> None:
    """Raises InputError for two columns of which one would be lost behind the other."""
    first: dict[str, str] = {}
    for name in names:
        if name in options and (other := first.setdefault(options[name], name)) != name:
            raise InputError(f"{where}: {other} and {name} are two columns for one option", "leave one of them out")


def _where(path: Path, number: int) -> str:
    return f"{path}, row {number}"


def _taken_apart(row_options: str, where: str, options: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    hint = "write name=value, with the name of an option"
    try:
        parts = shlex.split(row_options)
    except ValueError:
        raise UsageError(f"{where}: row_options has a quote that does not end", hint) from None
    for part in parts:
        name, equals, text = part.partition("=")
        if name in _OPTIONS_OF_EVAL:
            raise UsageError(
                f"{where}: {part} says that eval asked this in a way of its own, which no manifest can repeat",
                "run the same `dragonfly eval` again: it asks what failed again",
            )
        if not equals or name not in options:
            raise UsageError(f"{where}: row_options has {part}", hint)
        yield options[name], text


def _found(text: str, manifest: Path, where: str) -> Path:
    """The path as seen from the current folder, as a run writes it, or else from the manifest's."""
    if "\0" in text or _HALF_A_LETTER.search(text):
        raise InputError(f"{where}: the path has a zero byte or half a letter in it", "write that path again")
    file = Path(_ESCAPED_BYTE.sub(lambda match: chr(0xDC00 + int(match[1], 16)), text))
    here, beside = exists(file), manifest.parent / file
    if file.is_absolute() or beside == file or not exists(beside):
        return file
    if here and not beside.samefile(file):
        raise InputError(
            f"{where}: {file} is one file seen from this folder and another seen from {manifest.parent}",
            "write absolute paths",
        )
    return file if here else beside


def _csv_rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        rows = csv.DictReader(file, delimiter=delimiter_of(header), restkey=_BEYOND, strict=True)
        with _quotes_told(path, rows):
            _named(((name, "") for name in rows.fieldnames or () if name), f"cannot read the manifest {path}")
            for number, row in enumerate(rows, start=1):
                where = _where(path, number)
                if any(row.pop(_BEYOND, ())):  # a comma in a question, say, of which half would be asked
                    raise InputError(f"{where}: it has more cells than the header", "put commas in quotes")
                if any(_SPACE_BEFORE_QUOTE.match(cell) for cell in row.values() if cell):
                    raise InputError(f"{where}: a quote follows a space", "put no space between a comma and a quote")
                cells = ((name, unguarded(cell)) for name, cell in row.items() if name and cell is not None)
                yield _named(cells, where)


@contextmanager
def _quotes_told(path: Path, rows: "csv.DictReader[str]") -> Iterator[None]:
    """Raises InputError with the line in which it is seen that quotes do not fit, or do not end."""
    try:
        yield
    except csv.Error:
        raise InputError(
            f"cannot read the manifest {path}: by line {rows.reader.line_num} its quotes do not fit",
            'put all of a cell in quotes, and write each quote within it twice: "Is it ""red""?"',
        ) from None


def _json_rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(filter(str.strip, file), start=1):
            where = _where(path, number)
            try:
                cells = json.loads(line, object_pairs_hook=tuple)
            except (ValueError, RecursionError):
                cells = None
            if not isinstance(cells, tuple):
                raise InputError(f"{where}: it is not a JSON object", "write one a line")
            yield _named(cells, where)


def _parquet_rows(path: Path) -> Iterator[dict[str, str]]:
    for number, row in enumerate(read_rows(path), start=1):
        yield _named(row.items(), _where(path, number))


def _named(cells: Iterable[tuple[str, Any]], where: str) -> dict[str, str]:
    """Raises InputError where one cell would be lost behind another, or what is asked is no text."""
    named: dict[str, str] = {}
    for written, value in cells:
        name = column_name(written)
        if name in named:
            raise InputError(f"{where}: two columns have the same name", "rename one of them")
        if value is UNDECODABLE and name in (*_TEXTS, "row_options", *option_names(ROW_GROUPS)):
            raise InputError(f"{where}: {written} has a value that cannot be decoded", "write it as text or a number")
        named[name] = _as_text(value)
        if name in _TEXTS and named[name] and not isinstance(value, str):
            raise InputError(f"{where}: {name} is no text", "write each image and each question as a row of its own")
    return named


def _as_text(value: Any) -> str:
    """As it would be written on the command line; a list is joined by commas, a box say; empty may come as NaN."""
    if value is None or value != value:
        return ""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _without_fraction(text: str) -> str:
    """A whole number may come as 2.0, from tables of numbers with gaps."""
    whole = _WITHOUT_FRACTION.fullmatch(text)
    return whole[1] if whole else text


_READERS = {".jsonl": _json_rows, ".ndjson": _json_rows, ".parquet": _parquet_rows}
