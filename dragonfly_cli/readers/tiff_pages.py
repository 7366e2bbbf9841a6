"""Which pages of a TIFF are levels of the picture that is shown, and which are others, that are to be told.

A page counts by its shape, and by what it shows at a few places: files hold labels, thumbnails and other slides, which
may have the size of a level.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from dragonfly_cli.errors import InputError
from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.pyramid import TileError, have_one_shape, size_as_level
from dragonfly_cli.readers.slide_tiles import DECODE_ERRORS, SegmentedPage
from dragonfly_cli.readers.tiff_colours import is_grey
from dragonfly_cli.readers.tiff_end import goes_in_circles

OPEN_ERRORS = (
    *DECODE_ERRORS,
    tifffile.TiffFileError,
    KeyError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    SyntaxError,  # of XML
    struct.error,
)
_COMPARED_PX, _COMPARED_SIDE = 128, 16  # a place of the coarser level, and what it is averaged to
_PLACES = ((0.25, 0.3), (0.5, 0.5), (0.7, 0.75), (0.3, 0.7), (0.75, 0.25))  # as shares of width and height
_FLAT = 10.0  # standard deviation of luma: with less there is nothing to be recognised but brightness
_LEAST_ALIKE, _SAME_BRIGHTNESS = 0.5, 40.0  # correlation of luma; difference of its means
_TOLD_SHARE = 1 / 16  # of the largest picture's area; a label or a thumbnail has less


def size_of(page: Any) -> tuple[int, int]:
    return page.imagewidth, page.imagelength


def opened(path: Path) -> tifffile.TiffFile:
    """A TIFF with the pages of this file alone: of an OME file that names others, tifffile gives the first one's.

    Raises InputError where its pages never end.
    """
    tiff = tifffile.TiffFile(path, _multifile=False)
    if goes_in_circles(tiff):
        tiff.close()
        raise broken(path, "the TIFF is damaged: its pages follow each other in a circle")
    return tiff


def broken(path: Path, why: str) -> InputError:
    return InputError(f"cannot open {path}: {why}", "copy or export the file again")


def series_of(tiff: tifffile.TiffFile) -> list[Any]:
    """Its pictures as tifffile finds them by their descriptions; where it stumbles over these, each page is one."""
    try:
        return list(tiff.series)
    except OPEN_ERRORS:
        tiff.pages.useframes = False
        pages = [page.aspage() for page in tiff.pages]
        return [tifffile.TiffPageSeries([page], page.shape, page.dtype, page.axes) for page in pages]


def levels_of(tiff: tifffile.TiffFile) -> list[Any]:
    """The pages that may show the same picture, large to small: of an OME file's largest image, else of all pages.

    A label or thumbnail is another image of an OME file, and is in strips beside levels in tiles.
    """
    largest = largest_series(tiff)
    if _is_ome_image(largest):
        pages = [level.keyframe for level in largest.levels]
    else:
        pages = [level.keyframe for series in series_of(tiff) for level in series.levels]
    base = max(pages, key=lambda page: page.imagewidth * page.imagelength)
    # of several of one size the first stays
    alike = {size[0]: page.aspage() for page in reversed(pages) if (size := level_size(base, page))}
    return [alike[width] for width in sorted(alike, reverse=True)]


def level_size(base: Any, page: Any) -> tuple[int, int] | None:
    """The size of a page as a level of ``base``, without what pads it to whole tiles; None if it can be none."""
    if (page.is_tiled, page.dtype, is_grey(page)) != (base.is_tiled, base.dtype, is_grey(base)):
        return None
    return size_as_level(size_of(base), size_of(page), (page.tilewidth, page.tilelength) if page.is_tiled else (1, 1))


def _is_ome_image(series: Any) -> bool:
    """False in an OME file that names others, whose pages are told apart as those of any TIFF."""
    return bool(series.kind == "ome")


def largest_series(tiff: tifffile.TiffFile) -> Any:
    return max(series_of(tiff), key=lambda series: series.keyframe.imagewidth * series.keyframe.imagelength)


def other_pictures(tiff: tifffile.TiffFile) -> list[tuple[int, int]]:
    """The sizes of pictures that are no level of the one that is shown, nor its thumbnail, and not small beside it."""
    base = levels_of(tiff)[0]
    found = []
    for series in series_of(tiff):
        page = series.keyframe.aspage()
        (width, height), area = size_of(page), base.imagewidth * base.imagelength
        is_copy = have_one_shape(size_of(base), size_of(page)) or level_size(base, page)
        is_smaller_copy = not _is_ome_image(series) and is_copy and width < base.imagewidth
        if page.offset != base.offset and width * height >= _TOLD_SHARE * area and not is_smaller_copy:
            found.append((width, height))
    return found


def without_strangers(levels: list[SegmentedPage]) -> tuple[list[SegmentedPage], list[str]]:
    """The levels that show what the one before shows, and a sentence about each other."""
    kept, told = levels[:1], []
    for level in levels[1:]:
        if _looks_alike(kept[-1], level):
            kept.append(level)
        else:
            level.close()
            told.append("a level of {} x {} px shows another picture, and is not used".format(*level.size_wh))
    return kept, told


def _looks_alike(finer: SegmentedPage, coarser: SegmentedPage) -> bool:
    """Whether some places look the same on two levels; also where these cannot be read, or were left out."""
    levels = finer, coarser
    places = [[_box_at(place, level.size_wh, coarser.size_wh) for level in levels] for place in _PLACES]
    there = [boxes for boxes in places if not any(map(SegmentedPage.empty_parts, levels, boxes))]
    try:
        pairs = [list(map(_luma, levels, boxes)) for boxes in there]
    except TileError:
        return True
    if not pairs:
        return True
    one, other = (np.concatenate(each, axis=None) for each in zip(*pairs, strict=True))
    if min(one.std(), other.std()) < _FLAT:
        return bool(abs(one.mean() - other.mean()) < _SAME_BRIGHTNESS and max(one.std(), other.std()) < 3 * _FLAT)
    return bool(np.corrcoef(one, other)[0, 1] > _LEAST_ALIKE)


def _box_at(place: tuple[float, float], size_wh: tuple[int, int], coarse_wh: tuple[int, int]) -> Box:
    """What surrounds a place of a level, as large on the slide as ``_COMPARED_PX`` of the coarser level."""
    edges = []
    for length, coarse, share in zip(size_wh, coarse_wh, place, strict=True):
        side = min(_COMPARED_PX, coarse)
        start = round((coarse - side) * share)
        edges.append((start * length // coarse, max(1, side * length // coarse)))
    (x, width), (y, height) = edges
    return Box(x, y, width, height)


def _luma(level: SegmentedPage, box: Box) -> np.ndarray:
    """[rows, columns], as many whatever the level."""
    picture = level.read(box).convert("L")
    return np.asarray(picture.resize((_COMPARED_SIDE, _COMPARED_SIDE), Image.Resampling.BOX), float)
