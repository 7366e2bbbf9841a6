"""What of a run is done: its table, its records, and the files beside them, which one process at a time may write.

``run.json`` says with which settings the rows were made; a run is continued only with the same. ``failed.csv`` lists
what was not answered. They stand beside the table; a second table in the same folder, and every shard, has its own
under its name, ``NAME.run.json`` and ``NAME.failed.csv``.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from dragonfly_cli.batch.options import TableFormat, TableOptions
from dragonfly_cli.batch.parquet import check_parquet, write_from_csv
from dragonfly_cli.batch.result import Key, Result
from dragonfly_cli.batch.row_file import CsvRows, JsonRows, RowFile, RowFormat
from dragonfly_cli.batch.run_lock import RunLock
from dragonfly_cli.errors import OutputError, UsageError
from dragonfly_cli.output.files import check_writable, write_text
from dragonfly_cli.output.table import as_csv

# Settings that may differ when a run is continued.
_NOT_COMPARED = frozenset(("output", "records", "versions", "finished"))

_BY_SUFFIX = {".jsonl": TableFormat.jsonl, ".ndjson": TableFormat.jsonl, ".parquet": TableFormat.parquet}


@dataclass(frozen=True)
class Outputs:
    """``table`` is what grows, CSV or JSON lines; ``parquet`` is made of it at the end, if it was asked for."""

    table: Path
    table_format: TableFormat
    parquet: Path | None
    records: Path | None

    @classmethod
    def of(cls, files: TableOptions) -> Self:
        """Raises UsageError where two of them would be one file, Parquet is not installed, or it is stdout."""
        if str(files.output) == "-":
            raise UsageError("--output -: a batch is written to a file, which can be continued", "give a file name")
        kind = files.table_format or _BY_SUFFIX.get(files.output.suffix.lower(), TableFormat.csv)
        outputs = cls(files.output, kind, None, files.records)
        if kind is TableFormat.parquet:
            check_parquet()
            outputs = cls(files.output.with_suffix(".csv"), TableFormat.csv, files.output, files.records)
        written = [path for path in (outputs.table, outputs.parquet, outputs.records) if path]
        if len(set(written)) < len(written):
            raise UsageError(
                f"{outputs.table} would be written twice (Parquet is made of a .csv beside it)", "give another name"
            )
        return outputs

    @property
    def rows(self) -> RowFormat:
        """How rows stand in ``table``."""
        return JsonRows() if self.table_format is TableFormat.jsonl else CsvRows()

    def check(self) -> None:
        """Raises OutputError if one of them cannot be written; called before any work is done."""
        for path in (self.table, self.parquet, self.records):
            if path:
                check_writable(path)

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
        self._run_file, self._failed_file = companions(self.path, is_shard=is_shard)
        self._files = [RowFile(self.path, outputs.rows)]
        if outputs.records:
            self._files.insert(0, RowFile(outputs.records, JsonRows()))  # so that no row is without its record
        self._held: dict[Key, Result] | None = None
        self._has_grown = False

    @property
    def exists(self) -> bool:
        """Whether there is a run to continue."""
        return self.path.exists()

    def lock(self) -> RunLock:
        return RunLock(self.path)

    def refuse_other_run(self) -> None:
        """Raises OutputError if the table holds a run with other settings; changes nothing."""
        if not self.path.exists():
            return
        differing = _differences(self._run_file, self._settings)
        if differing:
            raise OutputError(
                f"cannot continue {self.path}: {differing}",
                "repeat the first run's options, or choose another --output",
            )

    def held(self) -> dict[Key, Result]:
        """For every key that all files have and agree about, its result, without its record; changes nothing."""
        return self._known_to_all([file.read() for file in self._files])

    def open(self) -> dict[Key, Result]:
        """Starts a run or takes one up; what it holds, as ``held``, growing with it."""
        if self._held is None:
            if not self.exists:
                self.write_settings(finished=False)
            self._held = self._known_to_all([file.open() for file in self._files])
        return self._held

    def add(self, results: list[Result]) -> None:
        """Appends rows and has them on disk; raises OutputError if that refuses, and what was written before stays."""
        held = self.open()
        if not self._has_grown:
            self.write_settings(finished=False)
        self._has_grown = True
        for file in self._files:
            file.append(results)
        held.update((result.key, replace(result, record=None)) for result in results)

    def finish(self, numbers: Mapping[Key, int]) -> int:
        """Puts the rows in order, writes ``failed.csv`` (or removes an old one), and Parquet; returns failed rows.

        ``run.json`` says whether all of ``numbers`` are there.
        """
        held = self.open()
        for file in self._files:
            file.put_in_order(numbers)
        failed = sorted(
            (result for result in held.values() if result.failed),
            key=lambda result: numbers.get(result.key, len(numbers)),
        )
        if failed:
            write_text(self._failed_file, as_csv([result.as_row() for result in failed], header=True))
        else:
            self._failed_file.unlink(missing_ok=True)
        if self._outputs.parquet:
            write_from_csv(self.path, self._outputs.parquet)
        self.write_settings(finished=held.keys() >= numbers.keys())
        return len(failed)

    def write_settings(self, *, finished: bool) -> None:
        settings = self._settings | {"finished": finished}
        write_text(self._run_file, json.dumps(settings, ensure_ascii=False, indent=2) + "\n")

    def _known_to_all(self, each_holds: list[dict[Key, Result]]) -> dict[Key, Result]:
        first, *others = each_holds
        return {key: result for key, result in first.items() if all(other.get(key) == result for other in others)}

    def close(self) -> None:
        if self._held is not None:  # else nothing was opened
            for file in self._files:
                file.close()


def companions(table: Path, *, is_shard: bool) -> tuple[Path, Path]:
    """``run.json`` and ``failed.csv`` for this table; under its own name where the plain ones are not its."""
    run, failed = table.with_name("run.json"), table.with_name("failed.csv")
    own_run, own_failed = table.with_name(f"{table.stem}.run.json"), table.with_name(f"{table.stem}.failed.csv")
    return (own_run, own_failed) if is_shard or own_run.exists() or _is_of_another(run, table) else (run, failed)


def read_settings(run_file: Path) -> dict[str, Any]:
    """Raises OSError or ValueError where there is none that can be read."""
    settings = json.loads(run_file.read_text(encoding="utf-8"))
    if not isinstance(settings, dict):
        raise ValueError("not an object")
    return settings


def differing_names(one: Mapping[str, Any], other: Mapping[str, Any], but: Iterable[str] = ()) -> list[str]:
    """The settings that are not the same in both, among those that decide what the rows are."""
    names = [name for name in {**one, **other} if name not in {*_NOT_COMPARED, *but}]
    return [name for name in names if one.get(name) != other.get(name)]


def _is_of_another(run_file: Path, table: Path) -> bool:
    try:
        return read_settings(run_file).get("output", table.name) != table.name
    except (OSError, ValueError):
        return False


def _differences(run_file: Path, settings: Mapping[str, Any]) -> str:
    """Which settings differ from those of ``run_file``, in words; empty if none do."""
    try:
        earlier = read_settings(run_file)
    except (OSError, ValueError):
        return f"there is no readable {run_file.name} beside it, so it is not known how it was made"
    names = differing_names(earlier, settings)
    return f"it was made with other settings ({', '.join(names)})" if names else ""
