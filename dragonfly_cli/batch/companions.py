"""The two files beside a table: ``run.json``, how its rows were made, and ``failed.csv``, what was not answered.

The first table of a folder has them under these names. Another one, and every shard, has its own, ``NAME.run.json``
and ``NAME.failed.csv``; NAME has the table's suffix in it where a table of the same name has taken those, or where
somebody else's files stand under them.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from dragonfly_cli.errors import OutputError

PLAIN_NAMES = frozenset(("run.json", "failed.csv"))

# Settings:
SERIES = "series"  # which file each numbered series begins with
OUTLINES = "roi_hashes"  # of the files of --roi
CALIBRATION = "calibration_sha256"  # by which fits probabilities are corrected

# Settings that may differ when a run is continued.
_NOT_COMPARED = frozenset(("output", "records", "versions", "finished"))


@dataclass(frozen=True)
class Companions:
    """Both paths; neither need be there."""

    run: Path
    failed: Path


def companions_of(table: Path, *, is_shard: bool) -> Companions | None:
    """Those whose ``run.json`` names this table."""
    return next((each for each in _choices(table, is_shard) if _names(each.run, table)), None)


def choose_companions(table: Path, *, is_shard: bool) -> Companions:
    """Those of the table, or free ones for a run that begins; raises OutputError where all names are taken."""
    if own := companions_of(table, is_shard=is_shard):
        return own
    for each in _choices(table, is_shard):
        if not (each.run.exists() or each.failed.exists()):
            return each
    why = "it exists already and belongs to something else"
    raise OutputError(f"cannot write {each.run}: {why}", "choose another --output")


def choosing(table: Path) -> FileLock:
    """Held from the choice until ``run.json`` is written: of two runs that begin together each has its own."""
    return FileLock(table.with_name(".run.json.lock"))


def first_choice(table: Path, *, is_shard: bool) -> Companions:
    """Where they are looked for first."""
    return _choices(table, is_shard)[0]


def read_settings(run_file: Path) -> dict[str, Any]:
    """Raises OSError or ValueError where there is none that can be read."""
    try:
        settings = json.loads(run_file.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(settings, dict):
        raise ValueError("not an object")
    return settings


def differing_names(one: Mapping[str, Any], other: Mapping[str, Any], but: Iterable[str] = ()) -> list[str]:
    """The settings that are not the same in both, among those that decide what the rows are."""
    names = [name for name in {**one, **other} if name not in {*_NOT_COMPARED, *but}]
    return [name for name in names if not _agree(name, one.get(name), other.get(name))]


def _agree(name: str, one: Any, other: Any) -> bool:
    """Of numbered series and of outlines those that both know, as more may have come into a folder or a manifest."""
    if name == OUTLINES:
        one, other = one or {}, other or {}  # earlier versions did not tell them
    if name not in (SERIES, OUTLINES) or not (isinstance(one, dict) and isinstance(other, dict)):
        return bool(one == other)
    return all(one[known] == other[known] for known in one.keys() & other.keys())


def _choices(table: Path, is_shard: bool) -> list[Companions]:
    starts = [f"{table.stem}.", f"{table.name}."] if is_shard else ["", f"{table.stem}.", f"{table.name}."]
    return [Companions(table.with_name(f"{start}run.json"), table.with_name(f"{start}failed.csv")) for start in starts]


def _names(run_file: Path, table: Path) -> bool:
    try:
        return read_settings(run_file).get("output") == table.name
    except (OSError, ValueError):
        return False
