"""A slide's file to its levels: which library gives them is chosen here, by what the file holds."""

import zipfile
from contextlib import suppress
from pathlib import Path

from dragonfly_cli.errors import InputError
from dragonfly_cli.readers import slide_openslide, slide_tiff
from dragonfly_cli.readers.dicom.signature import is_dicom
from dragonfly_cli.readers.head import is_endless, read_head
from dragonfly_cli.readers.pyramid import Pyramid
from dragonfly_cli.readers.signature import TIFF_MAGICS


def is_known(path: Path) -> bool:
    """Whether a file is shown as a slide; it may be any of OpenSlide's formats, or a large or pyramidal TIFF.

    Raises InputError where that cannot be found out.
    """
    _refuse_pipes(path.with_suffix(""))  # where the other files of a MIRAX slide are
    return slide_openslide.vendor_of(path) is not None or (_is_tiff(path) and slide_tiff.is_known(path, vendor=None))


def open_pyramid(path: Path) -> Pyramid:
    """The levels of a slide through the library that fits it; raises InputError."""
    if _is_tiff(path):
        if slide_tiff.is_cut_short(path):
            raise InputError(f"cannot open {path}: the file is cut short", "copy or export the slide again")
        if slide_tiff.is_known(path, slide_openslide.vendor_of(path)):
            return slide_tiff.TiffPyramid(path)
        return slide_openslide.OpenSlidePyramid(path)
    if _is_dicom(path):
        _refuse_pipes(path.parent)
        if pyramid := _through_openslide(path):  # which is faster
            return pyramid
    elif not zipfile.is_zipfile(path):
        return slide_openslide.OpenSlidePyramid(path)
    from dragonfly_cli.readers.slide_dicom import WsidicomPyramid

    return WsidicomPyramid(path)


def _through_openslide(path: Path) -> Pyramid | None:
    """A DICOM slide's levels; None where OpenSlide refuses it, or would show something else."""
    from dragonfly_cli.readers.slide_dicom import jpegs_if_openslide_fits

    jpegs = jpegs_if_openslide_fits(path)
    if jpegs is None:
        return None
    with suppress(InputError):
        pyramid = slide_openslide.OpenSlidePyramid(path, jpegs)
        if not pyramid.mixes_pictures:
            return pyramid
        pyramid.close()
    return None


def files_of_slide(path: Path) -> list[Path]:
    """Those that show the slide where it is DICOM, which has a file for each level; else the named one."""
    if not _is_dicom(path):
        return [path]
    from dragonfly_cli.readers.slide_dicom import parts_beside

    return [file for file, part in parts_beside(path).items() if not part.is_label] or [path]


def _refuse_pipes(folder: Path) -> None:
    """Raises InputError for a folder in which OpenSlide would wait for ever, as it reads whatever lies there."""
    if folder.is_dir() and any(is_endless(each) for each in folder.iterdir()):
        why = "a pipe or a device lies there, too"
        raise InputError(f"cannot open the slide in {folder}: {why}", "move the pipe or device elsewhere")


def _is_tiff(path: Path) -> bool:
    return read_head(path).startswith(TIFF_MAGICS)


def _is_dicom(path: Path) -> bool:
    return is_dicom(read_head(path))
