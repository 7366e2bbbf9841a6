"""What of a run is done: its table, its records, and the files beside them, which one process at a time may write.

``run.json`` says with which settings the rows were made; a run is continued only with the same. ``failed.csv`` lists
what was not answered. Under which names they stand beside the table is decided in ``companions``.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from mimetypes import guess_type
from pathlib import Path
from typing import Any, Self

from dragonfly_cli.batch.companions import (
    CALIBRATION,
    PLAIN_NAMES,
    Companions,
    choose_companions,
    choosing,
    companions_of,
    differing_names,
    first_choice,
    read_settings,
)
from dragonfly_cli.batch.options import TableFormat, TableOptions
from dragonfly_cli.batch.result import Key, Result
from dragonfly_cli.batch.row_file import RowFile, unwritable
from dragonfly_cli.batch.row_formats import CsvRows, JsonRows, RowFormat
from dragonfly_cli.batch.run_lock import RunLock
from dragonfly_cli.errors import OutputError, UsageError
from dragonfly_cli.output.files import check_writable, write_text
from dragonfly_cli.output.json_text import json_text
from dragonfly_cli.output.table import as_csv
from dragonfly_cli.parquet import check_parquet, write_from_csv

_BY_SUFFIX = {
    **dict.fromkeys((".csv", ".txt"), TableFormat.csv),
    **dict.fromkeys((".jsonl", ".ndjson"), TableFormat.jsonl),
    ".parquet": TableFormat.parquet,
}


def _format_by_name(table: Path) -> TableFormat:
    """CSV where the name does not say; raises UsageError where it says something else, such as .xlsx or .gz."""
    if table.suffix.lower() in _BY_SUFFIX:
        return _BY_SUFFIX[table.suffix.lower()]
    if guess_type(table.name) != (None, None):
        raise UsageError(
            f"cannot write {table}: tables are CSV, JSON lines or Parquet",
            "let its name end in .csv, .jsonl or .parquet",
        )
    return TableFormat.csv


@dataclass(frozen=True)
class Outputs:
    """``table`` is what grows, CSV or JSON lines; ``parquet`` is made of it at the end, if it was asked for."""

    table: Path
    table_format: TableFormat
    parquet: Path | None
    records: Path | None

    @classmethod
    def of(cls, files: TableOptions) -> Self:
        """Raises UsageError: two would be one file, a name promises something else, or Parquet is not installed."""
        if str(files.output) == "-":
            raise UsageError("--output -: a batch is written to a file, which can be continued", "give a file name")
        kind = files.table_format or _format_by_name(files.output)
        outputs = cls(files.output, kind, None, files.records)
        if kind is TableFormat.parquet:
            check_parquet()
            outputs = cls(files.output.with_suffix(".csv"), TableFormat.csv, files.output, files.records)
        if len({os.path.realpath(path) for path in outputs.all}) < len(outputs.all):
            raise UsageError(
                f"{outputs.table} would be written twice (Parquet is made from a .csv beside it)", "give another name"
            )
        for path in outputs.all:
            if path.name in PLAIN_NAMES:
                raise UsageError(f"{path}: a file of that name is written beside the table", "give another name")
        return outputs

    @property
    def all(self) -> list[Path]:
        return [path for path in (self.table, self.parquet, self.records) if path]

    @property
    def rows(self) -> RowFormat:
        """How rows stand in ``table``."""
        return JsonRows() if self.table_format is TableFormat.jsonl else CsvRows()

    def check(self) -> None:
        """Raises OutputError if one of them cannot be written; called before any work is done."""
        for path in self.all:
            check_writable(path)
        if self.parquet and self.parquet.exists() and not self.table.exists():
            raise OutputError(
                f"cannot write {self.parquet}: it is there, without the {self.table.name} that it would be made of",
                "choose another --output",
            )

    @property
    def names(self) -> dict[str, str | None]:
        """Table and records as ``run.json`` names them: beside it by name, elsewhere by the whole path."""
        if self.records is None:
            return {"output": self.table.name, "records": None}
        is_beside = self.records.absolute().parent == self.table.absolute().parent
        records = self.records.name if is_beside else str(self.records.absolute())
        return {"output": self.table.name, "records": records}


class Ledger:
    """The files of one run.

    with ledger.lock():  # nothing is written yet, but for the lock
        ledger.refuse_other_run()
        done = ledger.open()
        ledger.add(results)
        failed = ledger.finish(numbers)
    """

    def __init__(self, outputs: Outputs, settings: Mapping[str, Any], *, is_shard: bool = False) -> None:
        self._outputs = outputs
        self.path = outputs.table
        named = {**outputs.names, **settings}
        self._settings: dict[str, Any] = json.loads(json.dumps(named, default=str))  # as it will be read again
        self._is_shard = is_shard
        self._files = [RowFile(self.path, outputs.rows)]
        if outputs.records:
            self._files.insert(0, RowFile(outputs.records, JsonRows()))  # so that no row is without its record
        self._held: dict[Key, Result] | None = None
        self._has_grown = False

    @property
    def exists(self) -> bool:
        """Whether there is a run to continue."""
        return self.path.exists()

    @property
    def is_begun(self) -> bool:
        """Whether a run with the same settings began and has not come to its end."""
        earlier = self._earlier()
        return earlier is not None and not (earlier.get("finished") or differing_names(earlier, self._settings))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Table and records are this process's alone; raises OutputError if one of them is another's."""
        with ExitStack() as locks:
            for path in (self.path, self._outputs.records):
                if path:
                    locks.enter_context(RunLock(path))
            yield

    def refuse_other_run(self) -> None:
        """Raises OutputError if table or records hold a run with other settings; changes nothing."""
        earlier = self._earlier()
        if self.exists:
            self._refuse_other_table(earlier)
        records = self._outputs.records
        is_own = earlier is not None and not differing_names(earlier, self._settings)
        is_named = earlier is not None and earlier.get("records") == self._settings["records"]
        if records and not (is_own and is_named) and records.exists() and records.stat().st_size:
            why = "it holds the records of another run, or of one whose settings are not known"
            raise OutputError(f"cannot continue {records}: {why}", "choose another --records")

    def _refuse_other_table(self, earlier: dict[str, Any] | None) -> None:
        hint = "repeat the first run's options, or choose another --output"
        if earlier is None:
            run_file = first_choice(self.path, is_shard=self._is_shard).run.name
            why = f"there is no readable {run_file} beside it, so it is not known how it was made"
        elif names := differing_names(earlier, self._settings):
            why = f"it was made with other settings ({', '.join(names)})"
            if names == [CALIBRATION]:
                hint = "answers were calibrated anew since, which no option takes back: choose another --output"
        else:
            return
        raise OutputError(f"cannot continue {self.path}: {why}", hint)

    def _earlier(self) -> dict[str, Any] | None:
        """The settings of the run that the table holds, if they are known."""
        found = companions_of(self.path, is_shard=self._is_shard)
        return None if found is None else read_settings(found.run)

    def held(self) -> dict[Key, Result]:
        """For every key that all files have and agree about, its result, without its record; changes nothing."""
        return self._known_to_all([file.read() for file in self._files])

    def open(self) -> dict[Key, Result]:
        """Starts a run or takes one up; what it holds, as ``held``, growing with it."""
        if self._held is None:
            if not self.exists:
                self.begin()
            self._held = self._known_to_all([file.open() for file in self._files])
        return self._held

    def begin(self) -> None:
        """Says in ``run.json`` what is going to be written, before anything is."""
        try:
            with choosing(self.path):
                self.write_settings(finished=False)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def add(self, results: list[Result]) -> None:
        """Appends rows and has them on disk; raises OutputError if that refuses, and what was written before stays."""
        held = self.open()
        if not self._has_grown:
            self.write_settings(finished=False)
        self._has_grown = True
        for file in self._files:
            file.append(results)
        held.update((result.key, result.without_record()) for result in results)

    def finish(self, numbers: Mapping[Key, int]) -> int:
        """Puts the rows in order, writes ``failed.csv`` (or removes an old one), and Parquet; returns failed rows.

        Those of images that are no longer asked about do not count. ``run.json`` says whether all of ``numbers`` are
        there.
        """
        held = self.open()
        for file in self._files:
            file.put_in_order(numbers)
        failed = sorted(
            (result for result in held.values() if result.failed and result.key in numbers),
            key=lambda result: numbers[result.key],
        )
        if failed:
            write_text(self._beside.failed, as_csv([result.as_row() for result in failed], header=True))
        else:
            self._beside.failed.unlink(missing_ok=True)
        if self._outputs.parquet:
            write_from_csv(self.path, self._outputs.parquet)
        self.write_settings(finished=held.keys() >= numbers.keys())
        return len(failed)

    def write_settings(self, *, finished: bool) -> None:
        settings = self._settings | {"finished": finished}
        write_text(self._beside.run, json_text(settings))

    @cached_property
    def _beside(self) -> Companions:
        """The files beside the table; a run that begins chooses them when they are first written."""
        return choose_companions(self.path, is_shard=self._is_shard)

    def _known_to_all(self, each_holds: list[dict[Key, Result]]) -> dict[Key, Result]:
        first, *others = each_holds
        return {key: result for key, result in first.items() if all(other.get(key) == result for other in others)}

    def close(self) -> None:
        if self._held is not None:  # else nothing was opened
            for file in self._files:
                file.close()
