"""The files of a folder that are images, or that their names promise to be.

Non-goals: which of them are one series or slide (``inputs``), and opening them.
"""

import os
from importlib import import_module
from pathlib import Path

from dragonfly_cli.errors import InputError, NoInputError
from dragonfly_cli.readers.dicom.signature import DICOMDIR_SOP_CLASS, is_dicom, sop_class
from dragonfly_cli.readers.foreign import FOREIGN_SUFFIXES
from dragonfly_cli.readers.head import exists, is_endless, missing, read_head
from dragonfly_cli.readers.signature import (
    DICOM_SUFFIXES,
    OTHER_SUFFIXES,
    RASTER_SUFFIXES,
    SLIDE_SUFFIXES,
    ZIP_SUFFIX,
    has_image_magic,
)

_NAMES_ITS_PARTS = {".vms", ".vmu"}
_PARTS = ("ImageFile", "MapFile", "MacroImage", "OptimisationFile")
_LONGEST_LIST = 2**20
_PROMISING_SUFFIXES = SLIDE_SUFFIXES | RASTER_SUFFIXES | DICOM_SUFFIXES


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Every image below ``folder``, sorted by path; the folder may also be one file, which is then the list.

    A file counts by its content, or by a suffix that promises an image: a broken one, a link to nowhere, or a folder
    that may not be looked into is to be reported, not to vanish. A zip counts if it holds DICOM files, or other zips.
    Hidden files, DICOMDIR and the parts of a Hamamatsu slide are left out. Links to folders elsewhere are followed, to
    each once. Raises NoInputError when the folder does not exist.
    """
    folder = Path(folder)
    if not exists(folder):
        raise missing(folder, f"nothing found: {folder}: no such file or folder")
    if not folder.is_dir():
        return [folder]
    found: list[Path] = []
    parts: set[Path] = set()
    closed: list[Path] = []
    entered = {folder.resolve()}
    for parent, folders, names in os.walk(folder, onerror=lambda e: closed.append(Path(e.filename)), followlinks=True):
        shown = [name for name in sorted(folders) if not name.startswith(".")]
        folders[:] = [name for name in shown if _is_new(Path(parent, name), folder, entered)]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
        parts |= {Path(parent, part) for name in names for part in _parts_named_in(Path(parent, name))}
    own = (path for path in found if path not in parts and not is_endless(path) and _is_listed(path))
    return sorted([*own, *closed])


def _parts_named_in(path: Path) -> list[str]:
    """The names of the pictures of a Hamamatsu slide: its tiles, a map, and the macro image, which is never shown."""
    if path.suffix.lower() not in _NAMES_ITS_PARTS or is_endless(path):
        return []
    try:
        with path.open("rb") as file:
            lines = file.read(_LONGEST_LIST).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    pairs = (line.partition("=") for line in lines)
    return [name.strip() for key, _, name in pairs if key.strip().startswith(_PARTS) and name.strip()]


def _is_new(folder: Path, root: Path, entered: set[Path]) -> bool:
    """Whether a walk from ``root`` should enter a folder; a link to one that it comes to anyway it should not."""
    real = folder.resolve()
    if real in entered or (folder.is_symlink() and real.is_relative_to(root.resolve())):
        return False
    entered.add(real)
    return True


def _is_listed(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix == ZIP_SUFFIX:
        return bool(import_module("dragonfly_cli.readers.dicom.collection").may_hold_dicom(path))
    if suffix in _PROMISING_SUFFIXES or path.name.lower().endswith(FOREIGN_SUFFIXES):
        return True
    if suffix in OTHER_SUFFIXES or path.name.upper() == "DICOMDIR":
        return False
    try:
        head = read_head(path)
    except NoInputError:
        return False
    except InputError as error:
        return "permission" in error.message  # what it is cannot be told: let the run report it
    return has_image_magic(head) or (is_dicom(head) and sop_class(head) != DICOMDIR_SOP_CLASS)
