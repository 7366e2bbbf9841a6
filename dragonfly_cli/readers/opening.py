"""From a path to a source: which reader opens a file is decided by its content first, by its suffix second.

A reader module, and with it its decoding library, is imported only when a file needs it. Non-goal: which boxes to look
at.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

from dragonfly_cli.errors import InputError, NoInputError, UsageError
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers.dicom.signature import DICOMDIR_SOP_CLASS, is_dicom, sop_class
from dragonfly_cli.readers.foreign import disguised, refusal
from dragonfly_cli.readers.head import exists, head_if_readable, read_head
from dragonfly_cli.readers.image_files import list_images
from dragonfly_cli.readers.signature import (
    DICOM_SUFFIXES,
    SLIDE_SUFFIXES,
    TIFF_MAGICS,
    ZIP_MAGIC,
    has_image_magic,
    is_archive,
    is_dicom_slide,
)
from dragonfly_cli.readers.source import Source

_AS_THE_FILE_SAYS = OpenOptions()
_DICOM = "dragonfly_cli.readers.dicom"
_NUMBERED = re.compile(r"(.+)#(\d+)", re.DOTALL)


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
    named = Path(path)
    if numbered := series_named(named):
        holder, number = numbered
        raise NoInputError(f"no such file: {named}", f"it is a series of {holder}: give that and --series {number}")
    place = (_slide_in(named) if _is_folder(named) else None) or named
    head = b"" if _is_folder(place) else read_head(place)
    if kind := disguised(place, head):
        raise refusal(place, kind)
    reader = next(row for row in READERS if row.recognises(place, head))
    _refuse_options_of_other_readers(reader, place, options)
    source: Source = getattr(import_module(reader.module), reader.opener)(place, options)
    if source.kind == "slide" and (place != named or head.startswith(ZIP_MAGIC)):
        source.warnings += import_module("dragonfly_cli.readers.slide_dicom").not_shown(named)
    if _is_folder(named):
        _warn_of_other_images(source, named)
    return source


def series_named(path: Path) -> tuple[Path, int] | None:
    """Folder or archive and number of ``PATH#N``, as a batch calls the N-th of the series that ``info`` lists."""
    match = None if exists(path) else _NUMBERED.fullmatch(str(path))
    return (Path(match[1]), int(match[2])) if match and exists(Path(match[1])) else None


def holds_series(path: Path) -> bool:
    """Whether the path may hold several DICOM series: a folder, an archive or a DICOMDIR. Raises as opening does."""
    return _holds_series(path, b"" if path.is_dir() else read_head(path))


def _refuse_options_of_other_readers(reader: Reader, path: Path, options: OpenOptions) -> None:
    if options.window and not reader.module.startswith(_DICOM):
        raise UsageError(f"--window is for DICOM, which {path} is not", "leave it out")
    if options.series and reader.opener != "VolumeSource":
        raise UsageError(f"--series is for a folder or an archive, and {path} is one file", "leave it out")


def _warn_of_other_images(source: Source, folder: Path) -> None:
    """Of those that are of another kind than what is shown, where a folder was given."""

    def is_other(image: Path) -> bool:
        head = head_if_readable(image)
        is_damaged = _is_dicom_file(image, head) and not is_dicom(head)
        is_own = is_damaged or is_dicom_slide(head) if source.kind == "slide" else _is_slice(image, head)
        return bool(head) and not is_own  # what cannot be read has been told

    others = sum(map(is_other, list_images(folder)))
    if others:
        images = "one image" if others == 1 else f"{others} images"
        source.warnings.append(
            f"{images} of another kind in the folder {'was' if others == 1 else 'were'} not looked at: "
            "give the file, or ask about everything there with `dragonfly batch`"
        )


def _is_folder(path: Path) -> bool:
    return exists(path) and path.is_dir()


def _slide_in(folder: Path) -> Path | None:
    """The first file of a DICOM slide that lies in ``folder``, one that can be read and is no label if there is one.

    OpenSlide finds the others by itself.
    """
    try:
        files = sorted(entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))
    except OSError as error:
        why = (error.strerror or "the disk refused").lower()
        raise InputError(f"cannot read {folder}: {why}", "check the permissions of the folder") from None
    slides = [file for file in files if is_dicom_slide(head_if_readable(file))]
    return next(filter(_may_be_level, slides), slides[0] if slides else None)


def _may_be_level(file: Path) -> bool:
    part = import_module("dragonfly_cli.readers.slide_dicom").part_of(partial(file.open, "rb"))
    return bool(part and not part.is_label)


def _is_slide(path: Path, head: bytes) -> bool:
    if is_dicom(head) or not head:
        return is_dicom_slide(head)
    if head.startswith(ZIP_MAGIC):
        return bool(import_module("dragonfly_cli.readers.slide_dicom").is_zipped_slide(path))
    if head.startswith(TIFF_MAGICS) or path.suffix.lower() in SLIDE_SUFFIXES:
        return bool(import_module("dragonfly_cli.readers.slide_opening").is_known(path))
    return False


def _holds_series(path: Path, head: bytes) -> bool:
    return path.is_dir() or is_archive(head) or (is_dicom(head) and sop_class(head) == DICOMDIR_SOP_CLASS)


def _is_slice(path: Path, head: bytes) -> bool:
    return _is_dicom_file(path, head) and not is_dicom_slide(head)


def _is_dicom_file(path: Path, head: bytes) -> bool:
    return is_dicom(head) or (path.suffix.lower() in DICOM_SUFFIXES and not has_image_magic(head))


# First match wins; the last row takes what is left, and says so when it is no image at all.
READERS = (
    Reader(_is_slide, "dragonfly_cli.readers.slide", "SlideSource"),
    Reader(_holds_series, f"{_DICOM}.volume", "VolumeSource"),
    Reader(_is_dicom_file, f"{_DICOM}.source", "DicomSource"),
    Reader(lambda path, head: True, "dragonfly_cli.readers.raster", "RasterSource"),
)
