"""From a path to a source: which reader opens a file is decided by its content first, by its suffix second.

``open_source`` opens one file, ``list_images`` finds the files of a folder run. A reader module, and with it its
decoding library, is imported only when a file needs it. Non-goals: DICOM series, and which boxes to look at.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from dragonfly_cli.errors import InputError, NoInputError, UsageError
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers.source import Source, View

__all__ = ["Source", "View", "list_images", "open_source"]

_AS_THE_FILE_SAYS = OpenOptions()
HEAD_BYTES = 4096  # more than the file meta information of a DICOM file takes
WSI_SOP_CLASS = b"1.2.840.10008.5.1.4.1.1.77.1.6"
DICOMDIR_SOP_CLASS = b"1.2.840.10008.1.3.10"
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
RASTER_MAGICS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",  # JPEG
    b"GIF8",
    b"\0\0\0\x0cjP  ",  # JPEG 2000 in a box
    b"\xff\x4f\xff\x51",  # JPEG 2000 bare
)
SLIDE_SUFFIXES = frozenset((".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi"))
DICOM_SUFFIXES = frozenset((".dcm", ".dicom", ".dic"))
_RASTER = ".png .jpg .jpeg .jpe .tif .tiff .gif .bmp .webp .jp2 .j2k .avif .pgm .ppm .pnm"
RASTER_SUFFIXES = frozenset(_RASTER.split())
_OTHER = ".csv .tsv .txt .md .rst .json .jsonl .geojson .xml .html .yaml .yml .toml .ini .log .pdf .zip .gz .py"
OTHER_SUFFIXES = frozenset(_OTHER.split())
# Group 2 or 8, an element, then a 32-bit length below 64 KiB or the two letters of a value representation.
IMPLICIT_START = re.compile(rb"[\x02\x08]\0.\0..\0\0", re.DOTALL)
EXPLICIT_START = re.compile(rb"[\x02\x08]\0.\0(?:UI|UL|CS|SH|LO|DA|TM|OB|SQ)", re.DOTALL)


@dataclass(frozen=True)
class Reader:
    """One row of the table: ``opener`` is a class of ``module``, called with (path, options)."""

    recognises: Callable[[Path, bytes], bool]
    module: str
    opener: str


def open_source(path: str | os.PathLike[str], options: OpenOptions = _AS_THE_FILE_SAYS) -> Source:
    """Open one file. ``options.slide_mpp`` (microns per level-0 pixel, both axes) stands above what the file says.

    Raises NoInputError when nothing is there, InputError when it cannot be read, UsageError for the option.
    """
    path = Path(path)
    if options.slide_mpp is not None and not 0 < options.slide_mpp < float("inf"):
        raise UsageError(
            f"--slide-mpp must be above 0, not {options.slide_mpp}", "give microns per pixel, such as 0.25"
        )
    head = _read_head(path)
    reader = next(row for row in READERS if row.recognises(path, head))
    opener = getattr(import_module(reader.module), reader.opener)
    return opener(path, options)


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Every image below ``folder``, sorted by path; the folder may also be one file, which is then the list.

    A file counts by its content, or by a suffix that promises an image: a broken one is to be reported,
    not to vanish. Hidden files and DICOMDIR are left out. Raises NoInputError when the folder does not exist.
    """
    folder = Path(folder)
    if not folder.exists():
        raise NoInputError(f"nothing found: {folder}: no such file or folder", "check the path")
    if folder.is_file():
        return [folder]
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file() and _is_listed(path))


def is_dicom(head: bytes) -> bool:
    """Whether the first bytes of a file are those of DICOM, with its preamble or without."""
    if head[128:132] == b"DICM":
        return True
    return bool(EXPLICIT_START.match(head) or (len(head) > 128 and IMPLICIT_START.match(head)))


def sop_class(head: bytes) -> bytes:
    """The Media Storage SOP Class UID of the file meta information, explicit VR by the standard."""
    tag_at = head.find(b"\x02\0\x02\0UI")
    if tag_at < 0:
        return b""
    length = int.from_bytes(head[tag_at + 6 : tag_at + 8], "little")
    return head[tag_at + 8 : tag_at + 8 + length].rstrip(b"\0 ")


def _read_head(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(
            f"cannot open a folder as one image: {path}",
            "name a file in it, or use `dragonfly batch` for a folder",
        )
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError:
        raise NoInputError(f"no such file: {path}", "check the path") from None
    except PermissionError:
        raise InputError(f"cannot read {path}: permission denied", "check the rights of the file") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check the disk or the network folder") from None
    if not head:
        raise InputError(f"cannot read {path}: the file is empty", "copy or export it again")
    return head


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def _is_slide(path: Path, head: bytes) -> bool:
    if is_dicom(head):
        return sop_class(head) == WSI_SOP_CLASS
    if head.startswith(TIFF_MAGICS) or _suffix(path) in SLIDE_SUFFIXES:
        return import_module("dragonfly_cli.readers.slide").is_known(path)
    return False


def _is_dicom_file(path: Path, head: bytes) -> bool:
    return is_dicom(head) or (_suffix(path) in DICOM_SUFFIXES and not _has_image_magic(head))


def _has_image_magic(head: bytes) -> bool:
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    is_bmp = head[:2] == b"BM" and head[6:10] == b"\0\0\0\0"
    is_avif = head[4:12] in (b"ftypavif", b"ftypavis")
    return head.startswith(TIFF_MAGICS + RASTER_MAGICS) or is_webp or is_bmp or is_avif


def _is_listed(path: Path) -> bool:
    suffix = _suffix(path)
    if suffix in OTHER_SUFFIXES or path.name.upper() == "DICOMDIR":
        return False
    if suffix in SLIDE_SUFFIXES | RASTER_SUFFIXES | DICOM_SUFFIXES:
        return True
    try:
        head = _read_head(path)
    except InputError as error:
        return "permission" in error.message  # what it is cannot be told: let the run report it
    return _has_image_magic(head) or (is_dicom(head) and sop_class(head) != DICOMDIR_SOP_CLASS)


# First match wins; the last row takes what is left, and says so when it is no image at all.
READERS = (
    Reader(_is_slide, "dragonfly_cli.readers.slide", "SlideSource"),
    Reader(_is_dicom_file, "dragonfly_cli.readers.dicom", "DicomSource"),
    Reader(lambda path, head: True, "dragonfly_cli.readers.raster", "RasterSource"),
)
