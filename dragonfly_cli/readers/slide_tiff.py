"""Plain large TIFF and OME-TIFF as a slide of one or more levels, through tifffile.

For files of no scanner that OpenSlide knows.
Non-goals: channels of fluorescence, focal planes and time points; the first of them is shown.
"""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from dragonfly_cli.errors import InputError
from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.pyramid import WHITE, Scale, downsamples_of, one_of
from dragonfly_cli.readers.slide_scale import PLAUSIBLE_MPP, scale_of
from dragonfly_cli.readers.slide_tiles import SegmentedPage, planes_of, without_data
from dragonfly_cli.readers.tiff_bits import DARK, DARK_16_BIT, FULL_16_BIT, MAX_SAMPLE_VALUE, ome_pixels, white_of
from dragonfly_cli.readers.tiff_colours import ALL_CLEAR, PLANAR, are_misnamed, is_grey, is_picture
from dragonfly_cli.readers.tiff_end import ends_early, has_misfit
from dragonfly_cli.readers.tiff_pages import (
    OPEN_ERRORS,
    broken,
    largest_series,
    level_size,
    levels_of,
    opened,
    other_pictures,
    series_of,
    size_of,
    without_strangers,
)

SMALLEST_PIXELS = 25_000_000  # a smaller TIFF is opened as the picture it is
LARGEST_SEGMENT_PIXELS = 200_000_000  # 600 MB as RGB: a strip is decoded in one piece
MISNAMED = "the file calls its samples grey, several a pixel: the first three are shown as red, green and blue"
_MISFIT = "its table of pixel data does not fit its size"
_GENERIC = "generic-tiff"  # OpenSlide's name for a TIFF of no scanner
_SELDOM_SPARSE = (_GENERIC, "aperio")  # other scanners leave out what they have not scanned
_OPENSLIDES_COLOURS = (6, 8)  # TIFF PhotometricInterpretation: YCbCr, CIELab
_OLD_JPEG = 6  # TIFF Compression
_UPRIGHT = 1  # TIFF Orientation
_OME_UNITS = {"nm": 1e-3, "\u00b5m": 1.0, "\u03bcm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}  # to microns

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it quotes what stands in a broken file


def is_known(path: Path, vendor: str | None) -> bool:
    """Whether this reader should show the file: it is of no scanner that OpenSlide knows, and large or a pyramid.

    So is a smaller one whose first page is not its picture, or whose OME header has a scale.

    OpenSlide shows the first page of such a file, which may be a label, and takes for its levels all that are marked as
    reduced, whatever they show; it reads no OME header. Of 16 bits it shows the upper 8, and samples of 32 bits and
    floating point plain white; here these are refused. It turns every tile of a turned picture by itself.
    """
    try:
        with opened(path) as tiff:
            levels = levels_of(tiff)
            width, height = levels[0].imagewidth, levels[0].imagelength
            if vendor is not None:
                return vendor == _GENERIC and not _needs_openslide(levels[0])
            is_pyramid = len(levels) > 1 and levels[0].is_tiled  # pages of a document may be alike, too
            if is_pyramid or width * height > SMALLEST_PIXELS:
                return True
            return _begins_with_thumbnail(tiff, levels[0]) or _has_ome_scale(tiff, levels[0])
    except OPEN_ERRORS:
        return False


def _begins_with_thumbnail(tiff: tifffile.TiffFile, base: Any) -> bool:
    """Whether the first page, which other programs show, is marked as a reduced copy, and the picture can be shown."""
    first = tiff.pages.first
    return base.offset != first.offset and bool(first.is_reduced) and is_picture(base)


def _has_ome_scale(tiff: tifffile.TiffFile, base: Any) -> bool:
    """Of the only picture of a file, upright and of one plane; others are frames."""
    is_one = tiff.is_ome and len(pictures := series_of(tiff)) == 1 and len(pictures[0].pages) == 1
    is_shown_alike = is_one and is_picture(base) and _orientation(base) == _UPRIGHT
    return is_shown_alike and _ome_scale(tiff.ome_metadata, base) is not None


def _needs_openslide(page: Any) -> bool:
    """Whether a page has colours, or a compression, that OpenSlide alone can show."""
    is_unknown_here = page.photometric in _OPENSLIDES_COLOURS and not is_picture(page)
    return page.dtype == np.uint8 and (is_unknown_here or page.compression == _OLD_JPEG)


def tiff_shortcomings(path: Path, vendor: str = _GENERIC) -> list[str]:
    """``Pyramid.shortcomings`` of a TIFF; of another file there are none here, nor where they cannot be told."""
    try:
        with opened(path) as tiff:
            base = levels_of(tiff)[0]
            planes, orientation = _planes(tiff), _orientation(base)
            empty = _empty(base) if vendor in _SELDOM_SPARSE else []
            others = other_pictures(tiff) if vendor == _GENERIC else []
    except OPEN_ERRORS:
        return []
    turned = f"the slide is shown as it is stored, and not turned (TIFF orientation {orientation})"
    return one_of(planes) + _not_shown(others) + empty + [turned] * (orientation != _UPRIGHT)


def frames_of(path: Path) -> tuple[list[int], list[str]]:
    """The pages of a small TIFF that are as large as the largest, and a sentence about pictures of other sizes.

    No pages where they cannot be told.
    """
    try:
        with opened(path) as tiff:
            sizes = [size_of(page.aspage()) for page in tiff.pages]
            largest = max(sizes, key=math.prod)
            others = [size for size in other_pictures(tiff) if size != largest]
            told = one_of(_planes(tiff)) if len(sizes) == 1 else []  # a large file of ImageJ has one page for all
    except OPEN_ERRORS:
        return [], []
    return [number for number, size in enumerate(sizes) if size == largest], told + _not_shown(others)


def _not_shown(others: list[tuple[int, int]]) -> list[str]:
    sizes = ", ".join(f"{width} x {height} px" for width, height in others)
    more = f"only the largest of {len(others) + 1} pictures in the file is shown; not that of {sizes}"
    return [more] if others else []


def _empty(page: Any) -> list[str]:
    empty, every = len(without_data(page)), len(page.databytecounts) // planes_of(page)
    pieces = "tiles" if page.is_tiled else "strips"
    return [f"{empty} of {every} {pieces} hold no data and are shown white"] * (empty > 0)


def _planes(tiff: tifffile.TiffFile) -> int:
    """How many pictures of one place there are, with those in other files that an OME header tells of."""
    largest = largest_series(tiff)
    pixels = ome_pixels(tiff.ome_metadata, size_of(largest.keyframe))
    samples = math.prod(pixels.get(f"Size{axis}", 1) for axis in "CZT")
    return max(largest.size // largest.keyframe.size, samples // largest.keyframe.samplesperpixel)


def _orientation(page: Any) -> int:
    tag = page.tags.get("Orientation")
    return int(tag.value) if tag else _UPRIGHT


def is_cut_short(path: Path) -> bool:
    """Whether a TIFF points to anything beyond its end; where that cannot be told, it is refused for other reasons.

    Raises InputError as ``opened`` does, and where a page has more or fewer tiles than its size asks for.
    """
    try:
        with opened(path) as tiff:
            is_short = ends_early(tiff)
            if not is_short and has_misfit(tiff):
                raise broken(path, _MISFIT)
    except OPEN_ERRORS:
        return False
    return is_short


def kind_of(path: Path) -> str | None:
    """The kind of the first picture's samples, such as "3 x float32, LERC"; None where that cannot be told."""
    try:
        with opened(path) as tiff:
            page = tiff.pages.first
            return f"{page.samplesperpixel} x {page.dtype}, {tifffile.COMPRESSION(page.compression).name}"
    except OPEN_ERRORS:
        return None


class TiffPyramid:
    """See ``Pyramid``. Raises InputError for pixels that are no picture, or cannot be read in pieces."""

    background = WHITE

    def __init__(self, path: Path) -> None:
        try:
            with opened(path) as tiff:
                pages = levels_of(tiff)
                for page in pages:
                    _check(path, page)
                self.format = "ome-tiff" if tiff.is_ome else "tiff"
                self.scale = _ome_scale(tiff.ome_metadata, pages[0]) or scale_of(_resolution(pages[0]))
                self.icc_profile: bytes | None = pages[0].iccprofile
                self.mode = "L" if is_grey(pages[0]) else "RGB"
                self._levels, told = without_strangers([_level(path, pages[0], page) for page in pages])
                self.shortcomings = tiff_shortcomings(path) + told + self._use_bits(tiff.ome_metadata, pages[0])
                self.shortcomings += [MISNAMED] * are_misnamed(pages[0]) + [ALL_CLEAR] * self._levels[-1].is_clear()
        except OPEN_ERRORS as error:
            raise broken(path, "the TIFF is damaged") from error
        self.level_sizes = tuple(level.size_wh for level in self._levels)
        self.downsamples = downsamples_of(self.level_sizes)
        self.tile_sizes = tuple(level.segment_wh for level in self._levels)

    def _use_bits(self, ome_header: str | None, page: Any) -> list[str]:
        """Shows 16-bit samples over the bits that hold a picture, on all levels alike; tells of a dark picture."""
        if page.bitspersample != 16:
            return []
        brightest = self._levels[-1].brightest_sample()
        white = _white(ome_header, page, brightest)
        for level in self._levels:
            level.show_white(white)
        return [DARK] * (white == FULL_16_BIT and brightest < DARK_16_BIT)

    def read(self, level: int, block: Box) -> Image.Image:
        return self._levels[level].read(block)

    def details(self) -> dict[str, Any]:
        return {"objective_power": None, "bounds": None, "quickhash": None}

    def close(self) -> None:
        for level in self._levels:
            level.close()


def _level(path: Path, base: Any, page: Any) -> SegmentedPage:
    """Without what pads it to whole tiles."""
    level = SegmentedPage(path, page)
    level.size_wh = level_size(base, page) or level.size_wh
    return level


def _check(path: Path, page: Any) -> None:
    if not is_picture(page):
        kind = f"{page.samplesperpixel} samples of {page.dtype} ({tifffile.PHOTOMETRIC(page.photometric).name})"
        raise InputError(
            f"cannot open {path}: {kind} are no grey or colour picture",
            "export it as an RGB TIFF of 8 bits",
        )
    if page.samplesperpixel > 1 and page.planarconfig not in PLANAR:
        raise broken(path, f"its samples lie in an unknown order (PlanarConfiguration {page.planarconfig:d})")
    if not any(page.databytecounts):  # each would be white, as if it had been left out
        raise broken(path, "its table of pixel data is empty")
    if len(page.dataoffsets) != math.prod(page.chunked):
        raise broken(path, _MISFIT)
    rows = page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)
    columns = page.tilewidth if page.is_tiled else page.imagewidth
    if rows * columns > LARGEST_SEGMENT_PIXELS:
        raise InputError(
            f"cannot open {path}: it is stored in pieces of {rows * columns // 10**6} million pixels",
            "save it as a tiled TIFF",
        )


def _resolution(page: Any) -> dict[str, str]:
    """TIFF resolution under OpenSlide's property names."""
    found: dict[str, str] = {}
    for name in ("XResolution", "YResolution"):
        if tag := page.tags.get(name):
            found[f"tiff.{name}"] = _as_number(tag.value)
    unit = page.tags.get("ResolutionUnit")
    found["tiff.ResolutionUnit"] = {2: "inch", 3: "centimeter"}.get(unit.value if unit else 2, "")
    return found


def _as_number(value: Any) -> str:
    """A fraction, or a number that stands in its place; nothing of any other value."""
    try:
        numerator, denominator = value if len(value) == 2 else (*value, 1)
        return str(numerator / denominator)
    except (TypeError, ValueError, ZeroDivisionError):
        return ""


def _ome_scale(header: str | None, page: Any) -> Scale | None:
    """PhysicalSizeX and Y that an OME header has of the image of ``page``; in microns where no unit is said."""
    pixels = ome_pixels(header, (page.imagewidth, page.imagelength))
    units = [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "XY"]
    try:
        x, y = (float(pixels[f"PhysicalSize{axis}"]) * _OME_UNITS[unit] for axis, unit in zip("XY", units, strict=True))
    except (LookupError, TypeError, ValueError):  # it is damaged, or says nothing
        return None
    if not all(PLAUSIBLE_MPP[0] <= size <= PLAUSIBLE_MPP[1] for size in (x, y)):
        return None
    return Scale((x, y), "file")


def _white(header: str | None, page: Any, brightest: int) -> int:
    """The sample that is shown white."""
    tag = page.tags.get(MAX_SAMPLE_VALUE)
    value = max(tag.value) if tag and isinstance(tag.value, tuple) else tag and tag.value
    return white_of(header, (page.imagewidth, page.imagelength), value, brightest)
