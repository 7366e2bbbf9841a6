"""One table of the tables of all shards, and one file of their records, equal to those of a run that was not divided.

A shard's ``NAME.run.json`` says which part of which run it is. The parts are merged only if they are all of one run,
each finished and each there once. Shards take every n-th image, so their images come in turn.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from dragonfly_cli.batch.companions import companions_of, differing_names, first_choice, read_settings
from dragonfly_cli.batch.items import Shard, digest, read_shard
from dragonfly_cli.batch.ledger import Ledger, Outputs
from dragonfly_cli.batch.options import TableOptions
from dragonfly_cli.batch.result import Key, Result, control_summary
from dragonfly_cli.batch.row_file import RowFile
from dragonfly_cli.batch.row_formats import JsonRows, RowFormat
from dragonfly_cli.errors import InputError, NoInputError, OutputError, UsageError
from dragonfly_cli.output.files import write_whole
from dragonfly_cli.output.terminal import say

_OF_SHARDS_ALONE = ("images", "images_sha256", "output", "records")


@dataclass(frozen=True)
class Part:
    """The finished table of one shard."""

    path: Path
    shard: Shard
    settings: dict[str, Any]


def merge_parts(parts: list[Path], table: TableOptions) -> int:
    """Writes the whole table with its ``run.json`` and ``failed.csv``; returns the number of failed rows.

    Raises:
        NoInputError: a part, or its records, are not there.
        InputError: a part is no table of a shard, not finished, of another run than the first, or has lost rows.
        UsageError: parts are missing, given twice, or in another format than the output.
        OutputError: an output is there already, or cannot be written.
    """
    outputs = Outputs.of(table)
    outputs.check()
    inputs = [Outputs.of(TableOptions(path, table.table_format)) for path in _without_failures(parts)]
    tables = [each.table for each in inputs]  # of a Parquet file the CSV that it was made of
    shards = sorted(map(_part, tables), key=lambda part: part.shard.index)
    _check_together(shards)
    for each in inputs:
        if each.table_format is not outputs.table_format:
            raise UsageError(f"{each.table} and {outputs.table} are of different formats", "merge CSV with CSV")
    _check_complete(shards, outputs.rows)
    whole = {name: value for name, value in shards[0].settings.items() if name not in _OF_SHARDS_ALONE}
    ledger = Ledger(outputs, whole | {"shard": None})
    with ledger.lock():
        for path in outputs.all:
            if path.exists() and not ledger.is_begun:
                raise OutputError(f"cannot write {path}: it is there already", "choose another name")
        records = [_records_of(part, outputs.rows) for part in shards] if outputs.records else []
        ledger.begin()  # so that a merge that was killed is known by the next one
        if outputs.records:
            _write_in_turn(records, JsonRows(), outputs.records)
        keys = _write_in_turn([part.path for part in shards], outputs.rows, outputs.table)
        told = control_summary(ledger.open().values())
        failed = ledger.finish({key: number for number, key in enumerate(keys)})
    say(f"note: rows: {len(keys)}, failed rows: {failed}; answers are in {ledger.path}")
    if told:
        say(f"note: {told}")
    return failed


def _without_failures(parts: list[Path]) -> list[Path]:
    """``part*.csv`` matches ``part1.failed.csv`` as well, which lies beside a part."""
    failures = {found.failed for part in parts if (found := companions_of(part, is_shard=True))}
    return [part for part in parts if part not in failures]


def _records_of(part: Part, rows: RowFormat) -> Path:
    """Raises UsageError where there are none, NoInputError where they have gone, InputError for those of other rows."""
    name = part.settings.get("records")
    if name is None:
        raise UsageError(f"{part.path}: it was written without --records", "leave --records out")
    records = part.path.parent / name
    if not records.is_file():
        raise NoInputError(f"no such file: {records}, the records of {part.path}", "put it beside its table")
    if _read(records, JsonRows())[1] != _read(part.path, rows)[1]:
        raise InputError(f"{records}: it has other rows than {part.path}", "run its shard again until it is finished")
    return records


def _part(path: Path) -> Part:
    if not path.is_file():
        raise NoInputError(f"no such file: {path}", "check the path")
    run_file = (companions_of(path, is_shard=True) or first_choice(path, is_shard=True)).run
    try:
        settings = read_settings(run_file)
        shard = read_shard(str(settings["shard"]))
    except (OSError, ValueError, KeyError, UsageError):
        raise InputError(
            f"{path}: there is no {run_file.name} beside it that says which shard it is",
            "merge what runs with --shard have written, with the files beside it",
        ) from None
    if not settings.get("finished"):
        raise InputError(f"{path}: shard {shard} is not finished", "run its command again until it is")
    return Part(path, shard, settings)


def _check_together(parts: list[Part]) -> None:
    first = parts[0]
    for part in parts[1:]:
        differing = differing_names(first.settings, part.settings, but=("shard",))
        if part.shard.count != first.shard.count or differing:
            raise InputError(
                f"{part.path}: it is of another run than {first.path} ({', '.join(differing) or 'shard'})",
                "merge the shards of one run; if images have come or gone in between, run all shards anew",
            )
    have = [part.shard.index for part in parts]
    if have != list(range(first.shard.count)):
        told = ", ".join(str(part.shard) for part in parts)
        raise UsageError(f"the parts are shards {told}", f"give each of the {first.shard.count} once")


def _check_complete(parts: list[Part], rows: RowFormat) -> None:
    """A shard was finished when its ``run.json`` said so; its table may have been cut off since, in copying say."""
    files = [_read(part.path, rows)[0] for part in parts]
    if digest(key for key, _ in _in_turn(files)) != parts[0].settings.get("images_sha256"):
        counts = ", ".join(f"{part.path} {len(list(file.rows()))}" for part, file in zip(parts, files, strict=True))
        raise InputError(
            f"the parts do not hold the rows of their run, but: {counts}",
            "copy the tables again, or run the commands of their shards again, which ask for what is missing",
        )


def _read(path: Path, rows: RowFormat) -> tuple[RowFile, dict[Key, Result]]:
    file = RowFile(path, rows)
    try:
        return file, file.read()
    except OutputError as error:
        raise InputError(error.message, "copy it again from where its shard wrote it") from None


def _write_in_turn(parts: list[Path], rows: RowFormat, output: Path) -> list[Key]:
    """The rows of the first image of every part, then those of the second ...; returns their keys."""
    files = [_read(part, rows)[0] for part in parts]
    keys: list[Key] = []

    def write(path: Path) -> None:
        with path.open("wb") as whole:
            whole.write(rows.header)
            for key, row in _in_turn(files):
                keys.append(key)
                whole.write(row)

    write_whole(output, write)
    return keys


def _in_turn(files: list[RowFile]) -> Iterator[tuple[Key, bytes]]:
    by_image = [groupby(file.rows(), key=lambda row: (row[0][0], row[0][2])) for file in files]
    for images in zip_longest(*by_image, fillvalue=(None, ())):
        for _, of_one_image in images:
            yield from of_one_image
