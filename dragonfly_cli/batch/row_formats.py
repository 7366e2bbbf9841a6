"""How a row stands in a file, as CSV or as JSON lines, and whether it is still what was written.

A table is opened in other programs too. One that only changed marks, quotes and ends of lines is taken as it is meant;
one that changed what a cell says, as spreadsheets do with numbers, must not be continued: its rows are not the run's.
"""

import codecs
import csv
import json
import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Protocol

from dragonfly_cli.batch.result import Result, key_of
from dragonfly_cli.output.files import storable
from dragonfly_cli.output.table import COLUMNS, SIX_DECIMALS, WHOLE_NUMBERS, answer_row, as_csv, unguarded

_DELIMITERS = {b";": "semicolons", b"\t": "tabs"}
_PLACE = r"\d+:-?\d+,-?\d+,\d+,\d+"  # a field larger than its slide begins outside
_FORMS = {
    **dict.fromkeys(SIX_DECIMALS, re.compile(r"\d\.\d{6}|nan")),
    **dict.fromkeys(WHOLE_NUMBERS, re.compile(r"\d+")),
    "status": re.compile("ok|failed"),
    "seconds": re.compile(r"\d+\.\d{3}"),
    "evidence": re.compile(rf"{_PLACE}( {_PLACE})*"),
}


class NotAsWrittenError(ValueError):
    """Says what another program has done to a table."""


class RowFormat(Protocol):
    header: bytes

    def header_of(self, file: BinaryIO) -> bytes:
        """Reads what stands above the rows, which may be torn; raises ValueError for what is no header of this."""

    def encoded(self, result: Result) -> bytes:
        """A row with its end of line."""

    def decoded(self, row: bytes) -> Result:
        """The result without its record; raises ValueError, KeyError or TypeError for what is not a row."""

    def cells(self, row: bytes) -> dict[str, str]:
        """A row that was decoded, as it stands in a table."""

    def is_whole(self, row: bytes) -> bool:
        """Whether a row ends at the end of these lines."""

    def renewed(self, row: bytes) -> bytes:
        """A row that was decoded as ``encoded`` would write it."""


class CsvRows:
    header = as_csv([], header=True).encode()

    def header_of(self, file: BinaryIO) -> bytes:
        line = file.readline()
        if self.header.startswith(line):
            return line
        for delimiter, name in _DELIMITERS.items():
            if line.count(delimiter) >= len(COLUMNS) - 1:
                raise NotAsWrittenError(f"there are {name} between its cells")
        (names,) = csv.reader([line.decode("utf-8-sig")], strict=True)
        if tuple(names) == COLUMNS:
            return line
        if more := [name for name in names if name not in COLUMNS]:
            raise NotAsWrittenError(f"it has other columns: {', '.join(name or 'one without a name' for name in more)}")
        raise NotAsWrittenError("columns are missing or stand in another order")

    def encoded(self, result: Result) -> bytes:
        return as_csv([result.as_row()], header=False).encode()

    def decoded(self, row: bytes) -> Result:
        named = _cells(row)
        for name, form in _FORMS.items():
            if named[name] and not form.fullmatch(named[name]):
                raise NotAsWrittenError(f"{name} is {named[name]:.20} in one of its rows")
        key = key_of(named["image"], named["question"], named["row_options"])
        if named["status"] == "failed":
            return Result(key, None, int(named["error_code"]), named["error"])
        distance = named["control_distance"]
        return Result(key, held_distance=float(distance) if distance else None)

    def cells(self, row: bytes) -> dict[str, str]:
        return _cells(row)

    def is_whole(self, row: bytes) -> bool:
        return row.count(b'"') % 2 == 0  # else its last end of line stands inside quotes

    def renewed(self, row: bytes) -> bytes:
        return as_csv([_cells(row)], header=False).encode()


class JsonRows:
    header = b""

    def header_of(self, file: BinaryIO) -> bytes:
        return self.header

    def encoded(self, result: Result) -> bytes:
        return (storable(json.dumps(result.as_record(), ensure_ascii=False)) + "\n").encode()

    def decoded(self, row: bytes) -> Result:
        record = json.loads(row)
        key = key_of(record["image"], record["question"], record["row_options"])
        if record["status"] == "failed":
            return Result(key, None, record["error_code"], storable(record["error"]))
        return Result(key, held_distance=(record.get("control") or {}).get("distance"))

    def cells(self, row: bytes) -> dict[str, str]:
        record = json.loads(row)
        if record["status"] == "failed":
            asked = key_of(record["image"], record["question"], record["row_options"])
            return Result(asked, None, record["error_code"], record["error"]).as_row()
        return answer_row(record)

    def is_whole(self, row: bytes) -> bool:
        return True

    def renewed(self, row: bytes) -> bytes:
        return row.removeprefix(codecs.BOM_UTF8)


def whole_rows(lines: Iterable[bytes], rows: RowFormat) -> Iterator[bytes]:
    """The rows that these lines make up; what is torn at the end is left out."""
    row = b""
    for line in lines:
        row += line
        if line.endswith(b"\n") and rows.is_whole(row):
            yield row
            row = b""


def _cells(row: bytes) -> dict[str, str]:
    (cells,) = csv.reader([row.decode()], strict=True)
    return dict(zip(COLUMNS, map(unguarded, cells), strict=True))
