"""``--evidence DIR``: a GeoJSON and an overlay for every image that was answered, each written whole.

The name of an image's files is made of its path, with a hash of the path, what is asked and how: two files of one
name in different folders stay apart, as do two runs that ask differently, and nothing in a path leads out of DIR.
"""

import glob
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from itertools import takewhile
from pathlib import Path
from typing import Any

from dragonfly_cli.batch.items import Item
from dragonfly_cli.errors import InputError, OutputError, UsageError
from dragonfly_cli.fields import LookPlan
from dragonfly_cli.options import LookOptions
from dragonfly_cli.output.evidence import drawn_geojson, drawn_overlay
from dragonfly_cli.output.files import remove_left, storable, write_beside
from dragonfly_cli.readers import Source

_LETTERS_OF_PATH = 40  # a file name may have 255 bytes, and a letter four of them
_NOT_IN_A_NAME = re.compile(r"[^\w.-]+")

Save = Callable[[Path], object]  # fills a file


def check_evidence_folder(folder: Path, sources: list[Path], items: Iterable[Item]) -> None:
    """Raises OutputError where it cannot be written to, UsageError where its pictures would be asked about in turn."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"cannot write to {folder}: it is not a folder", "give --evidence a folder")
    if not folder.absolute().parent.is_dir():
        raise OutputError(f"cannot make {folder}: there is no folder {folder.parent}", "make it first")
    if not os.access(folder if folder.exists() else folder.absolute().parent, os.W_OK):
        raise OutputError(f"cannot write to {folder}: permission denied", "give --evidence another folder")
    resolved = folder.resolve()
    holders = {Path(item.image).parent for item in items}
    among = [source for source in sources if _takes_in(source, resolved)]
    among += [holder for holder in holders if _is_in(holder, resolved)]
    if among:
        raise UsageError(
            f"--evidence {folder}: it lies in the source {among[0]}, and its pictures would be asked about, too",
            "give a folder outside the sources",
        )


def make_evidence_folder(folder: Path) -> None:
    """Raises OutputError."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise _refused(f"cannot make {folder}: {error.strerror}") from error


def write_item_evidence(
    stem: Path, item: Item, source: Source, plan: LookPlan, records: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Writes the files of one image, and gives its records back with their names; says in them what could not be drawn.

    ``stem`` is their path without suffixes. Raises OutputError.
    """
    geojson, overlay = (stem.with_name(name) for name in _names(stem.name))
    no_geojson = _why_missing(geojson, lambda: _geojson(source, item.looking, records))
    no_overlay = _why_missing(overlay, lambda: _overlay(source, plan, records))
    files = {"geojson": None if no_geojson else geojson.name, "overlay": None if no_overlay else overlay.name}
    missing = [*no_geojson, *no_overlay]
    return [record | {"evidence_files": files, "warnings": record["warnings"] + missing} for record in records]


def _why_missing(path: Path, draw: Callable[[], Save]) -> list[str]:
    """Writes a file; one reason if it could not be drawn, which must not cost the answers that were given."""
    try:
        save = draw()
    except Exception as error:
        why = error.message if isinstance(error, InputError) else f"a bug in dragonfly ({type(error).__name__})"
        return [f"there is no {path.suffix} of the evidence: {why}"]
    try:
        write_beside(path, save)
    except OSError as error:
        raise _refused(f"cannot write {path}: {error.strerror or 'the disk refused'}") from error
    return []


def _geojson(source: Source, looking: LookOptions, records: list[dict[str, Any]]) -> Save:
    text, _ = drawn_geojson(source, looking, records)
    return lambda part: part.write_text(storable(text), encoding="utf-8", newline="")


def _overlay(source: Source, plan: LookPlan, records: list[dict[str, Any]]) -> Save:
    picture = drawn_overlay(source, plan, records)
    return lambda part: picture.save(part, format="PNG")


def evidence_name(item: Item, settings: str) -> str:
    """A file name without its suffix, the same wherever and however often the item is asked about in this way."""
    asked = [settings, *("\t".join(key) for key in item.keys)]
    unique = hashlib.sha256("\n".join(asked).encode()).hexdigest()[:16]
    readable = _NOT_IN_A_NAME.sub("_", item.image)[-_LETTERS_OF_PATH:].strip("._-")
    return f"{readable}-{unique}"


def _names(stem: str) -> tuple[str, str]:
    return f"{stem}.geojson", f"{stem}.png"


def remove_unfinished(folder: Path, items: Iterable[Item], settings: str) -> None:
    """Removes what is left of files of these items whose writers were killed, and no file of another run."""
    remove_left(folder, (name for item in items for name in _names(evidence_name(item, settings))))


def without_evidence(folder: Path, items: Iterable[Item], settings: str) -> list[Item]:
    """Those of which no file is there."""
    there = {path.stem for path in folder.iterdir()} if folder.is_dir() else set()
    return [item for item in items if evidence_name(item, settings) not in there]


def _takes_in(source: Path, folder: Path) -> bool:
    """Whether a later look at the source would find what is written to ``folder``."""
    if source.is_dir():
        return folder.is_relative_to(source.resolve())
    if "**" in source.parts:
        return folder.is_relative_to(Path(*takewhile(lambda part: part != "**", source.parts)).resolve())
    return glob.has_magic(str(source)) and any(
        path.match(str(source.absolute())) for path in (folder / "overlay.png", folder, *folder.parents)
    )


def _is_in(holder: Path, folder: Path) -> bool:
    try:
        return holder.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # a link to itself, in which nothing is
        return False


def _refused(why: str) -> OutputError:
    return OutputError(why, "see that there is room and that it may be written, and run the same command again")
