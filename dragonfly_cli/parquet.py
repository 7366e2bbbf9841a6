"""Parquet, by pyarrow, which is an extra: manifests and data sets are read from it, finished tables written to it."""

import csv
from collections.abc import Collection, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from dragonfly_cli.errors import InputError, UsageError
from dragonfly_cli.output.files import write_whole
from dragonfly_cli.output.table import COLUMNS, SIX_DECIMALS, WHOLE_NUMBERS, unguarded

UNDECODABLE = object()  # stands for a value that Python has no form for, such as text that is not UTF-8

_ROWS_AT_A_TIME = 10_000
# what pyarrow raises for such values: nanoseconds, a year after 9999, an unknown time zone, a type of a later version
_HAS_NO_FORM = (ArithmeticError, LookupError, NotImplementedError, ValueError)
_NUMBERS = (*SIX_DECIMALS, "seconds")


def check_parquet() -> None:
    """Raises UsageError where pyarrow is not installed."""
    if find_spec("pyarrow") is None:
        raise UsageError("Parquet needs pyarrow, which is not installed", 'pip install "dragonfly-cli[parquet]"')


def column_names(path: Path) -> list[str]:
    """Those of a Parquet file; raises ValueError where it is none."""
    check_parquet()
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        return list(file.schema_arrow.names)


def read_rows(path: Path, wanted: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, of which no columns but those ``wanted`` are read; ``UNDECODABLE`` may be in them.

    Raises ValueError where it is none, InputError where one column would be lost behind another.
    """
    check_parquet()
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if wanted is None or name in wanted]
        if len(set(names)) < len(names):
            raise InputError(f"cannot read {path}: two columns have the same name", "rename one of them")
        for group in file.iter_batches(_ROWS_AT_A_TIME, columns=None if wanted is None else names):
            columns = {name: _decoded(column) for name, column in zip(group.schema.names, group.columns, strict=True)}
            for index in range(group.num_rows):
                yield {name: values[index] for name, values in columns.items() if wanted is None or name in wanted}


def _decoded(column: Any) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except _HAS_NO_FORM:  # of one of them
        values = [_value_of(scalar) for scalar in column]
    return values


def _value_of(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except _HAS_NO_FORM:
        return UNDECODABLE


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
    if name in WHOLE_NUMBERS:
        return pyarrow.int64()
    return pyarrow.float64() if name in _NUMBERS else pyarrow.string()


def _typed(row: dict[str, str]) -> dict[str, Any]:
    return {name: _value(name, unguarded(cell)) for name, cell in row.items()}


def _value(name: str, cell: str) -> Any:
    if name in WHOLE_NUMBERS:
        return int(cell) if cell else None
    if name in _NUMBERS:
        return float(cell) if cell else None
    return cell
