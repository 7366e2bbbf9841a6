"""Parquet, by pyarrow, which is an extra: manifests are read from it, finished tables written to it."""

import csv
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from dragonfly_cli.errors import UsageError
from dragonfly_cli.output.files import write_whole
from dragonfly_cli.output.table import COLUMNS, unguarded

_ROWS_AT_A_TIME = 10_000
_WHOLE_NUMBERS = frozenset(("error_code", "fields"))
_NUMBERS = frozenset(("p_yes", "p_no", "seconds"))


def check_parquet() -> None:
    """Raises UsageError where pyarrow is not installed."""
    if find_spec("pyarrow") is None:
        raise UsageError("Parquet needs pyarrow, which is not installed", 'pip install "dragonfly-cli[parquet]"')


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file; raises ValueError where it is none."""
    check_parquet()
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        for group in file.iter_batches(_ROWS_AT_A_TIME):
            yield from group.to_pylist()


def write_from_csv(table: Path, output: Path) -> None:
    """The CSV of a run as Parquet: numbers as numbers, empty ones as null, cells as they were before guarding."""
    write_whole(output, lambda part: _copy(table, part))


def _copy(table: Path, part: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([(name, _type(pyarrow, name)) for name in COLUMNS])
    with table.open(encoding="utf-8", newline="") as file, parquet.ParquetWriter(part, schema) as writer:
        rows = map(_typed, csv.DictReader(file))
        while some := list(islice(rows, _ROWS_AT_A_TIME)):
            writer.write_table(pyarrow.Table.from_pylist(some, schema))


def _type(pyarrow: Any, name: str) -> Any:
    if name in _WHOLE_NUMBERS:
        return pyarrow.int64()
    return pyarrow.float64() if name in _NUMBERS else pyarrow.string()


def _typed(row: dict[str, str]) -> dict[str, Any]:
    return {name: _value(name, unguarded(cell)) for name, cell in row.items()}


def _value(name: str, cell: str) -> Any:
    if name in _WHOLE_NUMBERS:
        return int(cell) if cell else None
    if name in _NUMBERS:
        return float(cell) if cell else None
    return cell
