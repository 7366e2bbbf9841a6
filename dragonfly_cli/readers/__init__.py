"""From a path to a source: which reader opens a file is decided by its content first, by its suffix second.

``open_source`` opens one file, ``list_images`` finds the files of a folder run. A reader module, and with it its
decoding library, is imported only when a file needs it. Non-goal: which boxes to look at.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from dragonfly_cli.errors import DragonflyError, InputError, NoInputError, UsageError
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers.dicom.signature import DICOMDIR_SOP_CLASS, HEAD_BYTES, WSI_SOP_CLASS, is_dicom, sop_class
from dragonfly_cli.readers.source import Source, View

__all__ = ["Source", "View", "exists", "holds_series", "list_images", "open_source"]

_AS_THE_FILE_SAYS = OpenOptions()
_DICOM = "dragonfly_cli.readers.dicom"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # a path has one of its strokes left
_THINKABLE_MPP = (1e-4, 1e4)  # from an electron microscope's to a centimetre
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ZIP_MAGIC = b"PK\x03\x04"
RASTER_MAGICS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",  # JPEG
    b"GIF8",
    b"\0\0\0\x0cjP  ",  # JPEG 2000 in a box
    b"\xff\x4f\xff\x51",  # JPEG 2000 bare
)
ARCHIVE_MAGICS = (ZIP_MAGIC, b"PK\5\6", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")  # zip, empty zip; packed tars
ZIP_SUFFIX = ".zip"
SLIDE_SUFFIXES = frozenset((".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi"))
DICOM_SUFFIXES = frozenset((".dcm", ".dicom", ".dic"))
_RASTER = ".png .jpg .jpeg .jpe .tif .tiff .gif .bmp .webp .jp2 .j2k .avif .pgm .ppm .pnm"
RASTER_SUFFIXES = frozenset(_RASTER.split())
FOREIGN_SUFFIXES = frozenset((".heic", ".heif", ".jxl", ".nii"))  # pictures that are refused, and so must be listed
_OTHER = ".csv .tsv .txt .md .rst .json .jsonl .geojson .xml .html .yaml .yml .toml .ini .log .pdf .gz .py"
OTHER_SUFFIXES = frozenset(_OTHER.split())


@dataclass(frozen=True)
class Reader:
    """One row of the table: ``opener`` is a class of ``module``, called with (path, options)."""

    recognises: Callable[[Path, bytes], bool]
    module: str
    opener: str


def open_source(path: str | os.PathLike[str], options: OpenOptions = _AS_THE_FILE_SAYS) -> Source:
    """Open one file, or a folder or an archive with DICOM series, of which one is opened.

    ``options.slide_mpp`` (microns per level-0 pixel, both axes) stands above what the file says.
    Raises NoInputError when nothing is there, InputError when it cannot be read, UsageError for the options.
    """
    path = named = Path(path)
    if options.slide_mpp is not None and not _THINKABLE_MPP[0] <= options.slide_mpp <= _THINKABLE_MPP[1]:
        raise UsageError(
            f"--slide-mpp {options.slide_mpp:g}: no image has so many microns per pixel",
            "a slide has about 0.25 or 0.5; give microns, not nanometres",
        )
    if exists(path) and path.is_dir():
        path = _slide_in(path) or path
    head = b"" if exists(path) and path.is_dir() else _read_head(path)
    reader = next(row for row in READERS if row.recognises(path, head))
    if options.window and not reader.module.startswith(_DICOM):
        raise UsageError(f"--window is for DICOM, which {path} is not", "leave it out")
    if options.series and reader.opener != "VolumeSource":
        raise UsageError(f"--series is for a folder or an archive, and {path} is one file", "leave it out")
    opener = getattr(import_module(reader.module), reader.opener)
    source: Source = opener(path, options)
    if source.kind == "slide" and (path != named or head.startswith(ZIP_MAGIC)):
        _warn_of_other_slides(source, named)
    return source


def _warn_of_other_slides(source: Source, place: Path) -> None:
    slides = import_module("dragonfly_cli.readers.slide_dicom").count_slides(place)
    if slides > 1:
        source.warnings.append(f"only one of {slides} DICOM slides in it is shown; give a file of another to see that")


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; there is none with a name that is too long to be one."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises in that case


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Every image below ``folder``, sorted by path; the folder may also be one file, which is then the list.

    A file counts by its content, or by a suffix that promises an image: a broken one, a link to nowhere, or a folder
    that may not be looked into is to be reported, not to vanish. A zip counts if it holds DICOM files, or other zips.
    Hidden files and DICOMDIR are left out. Links to folders elsewhere are followed, to each once. Raises NoInputError
    when the folder does not exist.
    """
    folder = Path(folder)
    if not exists(folder):
        raise _missing(folder, f"nothing found: {folder}: no such file or folder")
    if not folder.is_dir():
        return [folder]
    found: list[Path] = []
    closed: list[Path] = []
    entered = {folder.resolve()}
    for parent, folders, names in os.walk(folder, onerror=lambda e: closed.append(Path(e.filename)), followlinks=True):
        shown = [name for name in sorted(folders) if not name.startswith(".")]
        folders[:] = [name for name in shown if _is_new(Path(parent, name), folder, entered)]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted([*(path for path in found if not is_endless(path) and _is_listed(path)), *closed])


def is_endless(path: Path) -> bool:
    """Whether reading it might never end: a pipe or a device, which in a folder that may only be listed is not told."""
    return exists(path) and not os.path.isfile(path) and not os.path.isdir(path)  # noqa: PTH112, PTH113


def _is_new(folder: Path, root: Path, entered: set[Path]) -> bool:
    """Whether a walk from ``root`` should enter a folder; a link to one that it comes to anyway it should not."""
    real = folder.resolve()
    if real in entered or (folder.is_symlink() and real.is_relative_to(root.resolve())):
        return False
    entered.add(real)
    return True


def _read_head(path: Path) -> bytes:
    if is_endless(path):
        raise InputError(f"cannot read {path}: it is a pipe or a device", "give the name of a file")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError:
        raise _missing(path, f"no such file: {path}") from None
    except PermissionError:
        raise InputError(f"cannot read {path}: permission denied", "check the permissions of the file") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check the disk or the network folder") from None
    if not head:
        raise InputError(f"cannot read {path}: the file is empty", "copy or export it again")
    return head


def _missing(path: Path, message: str) -> DragonflyError:
    """The error for a path that leads nowhere; an address is no path, and is not supported."""
    if not _ADDRESS.match(str(path)):
        return NoInputError(message, "check the path")
    strokes = ":///" if str(path).lower().startswith("file:") else "://"
    address = str(path).replace(":/", strokes, 1)
    return InputError(
        f"cannot read {address}: dragonfly downloads no images", "give the path of a file on this machine"
    )


def _slide_in(folder: Path) -> Path | None:
    """The first file of a DICOM slide that lies in ``folder``; OpenSlide finds the others by itself."""
    try:
        files = sorted(entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))
    except OSError as error:
        why = (error.strerror or "the disk refused").lower()
        raise InputError(f"cannot read {folder}: {why}", "check the permissions of the folder") from None
    return next((file for file in files if _holds_slide(file)), None)


def _holds_slide(path: Path) -> bool:
    try:
        head = _read_head(path)
    except (InputError, NoInputError):
        return False
    return is_dicom(head) and sop_class(head) == WSI_SOP_CLASS


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def _is_slide(path: Path, head: bytes) -> bool:
    if is_dicom(head) or not head:
        return sop_class(head) == WSI_SOP_CLASS
    if head.startswith(ZIP_MAGIC):
        return import_module("dragonfly_cli.readers.slide_dicom").is_zipped_slide(path)
    if head.startswith(TIFF_MAGICS) or _suffix(path) in SLIDE_SUFFIXES:
        return import_module("dragonfly_cli.readers.slide").is_known(path)
    return False


def holds_series(path: Path) -> bool:
    """Whether the path may hold several DICOM series: a folder, an archive or a DICOMDIR. Raises as opening does."""
    return _holds_series(path, b"" if path.is_dir() else _read_head(path))


def _holds_series(path: Path, head: bytes) -> bool:
    is_archive = head.startswith(ARCHIVE_MAGICS) or head[257:262] == b"ustar"
    return path.is_dir() or is_archive or (is_dicom(head) and sop_class(head) == DICOMDIR_SOP_CLASS)


def _is_dicom_file(path: Path, head: bytes) -> bool:
    return is_dicom(head) or (_suffix(path) in DICOM_SUFFIXES and not has_image_magic(head))


def has_image_magic(head: bytes) -> bool:
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    is_bmp = head[:2] == b"BM" and head[6:10] == b"\0\0\0\0"
    is_avif = head[4:12] in (b"ftypavif", b"ftypavis")
    return head.startswith(TIFF_MAGICS + RASTER_MAGICS) or is_webp or is_bmp or is_avif


def _is_listed(path: Path) -> bool:
    suffix = _suffix(path)
    if suffix == ZIP_SUFFIX:
        return bool(import_module(f"{_DICOM}.collection").may_hold_dicom(path))
    if suffix in OTHER_SUFFIXES or path.name.upper() == "DICOMDIR":
        return False
    if suffix in SLIDE_SUFFIXES | RASTER_SUFFIXES | DICOM_SUFFIXES | FOREIGN_SUFFIXES:
        return True
    try:
        head = _read_head(path)
    except NoInputError:
        return False
    except InputError as error:
        return "permission" in error.message  # what it is cannot be told: let the run report it
    return has_image_magic(head) or (is_dicom(head) and sop_class(head) != DICOMDIR_SOP_CLASS)


# First match wins; the last row takes what is left, and says so when it is no image at all.
READERS = (
    Reader(_is_slide, "dragonfly_cli.readers.slide", "SlideSource"),
    Reader(_holds_series, f"{_DICOM}.volume", "VolumeSource"),
    Reader(_is_dicom_file, f"{_DICOM}.source", "DicomSource"),
    Reader(lambda path, head: True, "dragonfly_cli.readers.raster", "RasterSource"),
)
