"""One table of the tables of all shards, equal to that of a run that was not divided.

A shard's ``NAME.run.json`` says which part of which run it is. The parts are merged only if they are all of one run,
each finished and each there once. Shards take every n-th image, so their images come in turn.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby, zip_longest
from pathlib import Path
from typing import Any

from dragonfly_cli.batch.items import Shard, read_shard
from dragonfly_cli.batch.ledger import Ledger, Outputs, companions, differing_names, read_settings
from dragonfly_cli.batch.options import FileOptions, TableOptions
from dragonfly_cli.batch.result import Key
from dragonfly_cli.batch.row_file import RowFile
from dragonfly_cli.errors import InputError, NoInputError, OutputError, UsageError
from dragonfly_cli.output.files import write_whole
from dragonfly_cli.output.terminal import say

_OF_SHARDS_ALONE = ("images", "images_sha256")


@dataclass(frozen=True)
class Part:
    """The finished table of one shard."""

    path: Path
    shard: Shard
    settings: dict[str, Any]


def merge_parts(parts: list[Path], table: TableOptions) -> int:
    """Writes the whole table with its ``run.json`` and ``failed.csv``; returns the number of failed rows.

    Raises:
        NoInputError: a part is not there.
        InputError: a part is no table of a shard, not finished, or of another run than the first.
        UsageError: parts are missing, given twice, or in another format than the output.
        OutputError: the output is there already, or cannot be written.
    """
    outputs = Outputs.of(FileOptions(table.output, table.table_format))
    shards = sorted((_part(path) for path in parts), key=lambda part: part.shard.index)
    _check_together(shards)
    for part in shards:
        if Outputs.of(FileOptions(part.path)).table_format is not outputs.table_format:
            raise UsageError(f"{part.path} and {outputs.table} are of different formats", "merge CSV with CSV")
    whole = {name: value for name, value in shards[0].settings.items() if name not in _OF_SHARDS_ALONE}
    ledger = Ledger(outputs, whole | {"output": outputs.table.name, "shard": None})
    with ledger.lock():
        if ledger.exists:
            raise OutputError(f"cannot write {ledger.path}: it is there already", "choose another --output")
        rows = list(_in_turn(RowFile(part.path, outputs.rows) for part in shards))
        write_whole(ledger.path, lambda file: _write(file, outputs.rows.header, rows))
        ledger.write_settings(finished=False)
        ledger.open()
        failed = ledger.finish({key: number for number, (key, _) in enumerate(rows)})
    say(f"note: rows: {len(rows)}, failed rows: {failed}; answers are in {ledger.path}")
    return failed


def _part(path: Path) -> Part:
    if not path.is_file():
        raise NoInputError(f"no such file: {path}", "check the path")
    run_file, _ = companions(path, is_shard=True)
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


def _in_turn(tables: Iterable[RowFile]) -> Iterator[tuple[Key, bytes]]:
    """The rows of the first image of every table, then those of the second ..."""
    by_image = []
    for table in tables:
        table.read()
        by_image.append([list(rows) for _, rows in groupby(table.rows(), key=lambda row: (row[0][0], row[0][2]))])
    for images in zip_longest(*by_image, fillvalue=[]):
        yield from chain.from_iterable(images)


def _write(file: Path, header: bytes, rows: list[tuple[Key, bytes]]) -> None:
    with file.open("wb") as whole:
        whole.write(header)
        whole.writelines(row for _, row in rows)
