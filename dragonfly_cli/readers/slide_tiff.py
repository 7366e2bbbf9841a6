"""Plain large TIFF and OME-TIFF as a slide of one or more levels, through tifffile.

For files that OpenSlide does not take, or takes for a single level because their pyramid is kept in sub-images.
Non-goals: channels of fluorescence, focal planes and time points; the first of them is shown.
"""

import logging
from pathlib import Path
from typing import Any

import tifffile
from PIL import Image

from dragonfly_cli.errors import InputError
from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.pyramid import WHITE, Scale, one_of
from dragonfly_cli.readers.slide_scale import PLAUSIBLE_MPP, scale_of
from dragonfly_cli.readers.slide_tiles import DECODE_ERRORS, SegmentedPage
from dragonfly_cli.readers.tiff_bits import DARK, DARK_16_BIT, FULL_16_BIT, MAX_SAMPLE_VALUE, ome_pixels, white_of
from dragonfly_cli.readers.tiff_colours import DTYPES, is_picture

SMALLEST_PIXELS = 25_000_000  # a smaller TIFF is opened as the picture it is
LARGEST_SEGMENT_PIXELS = 200_000_000  # 600 MB as RGB: a strip is decoded in one piece
# A level may differ from the shape of level 0 by what rounding makes of its sides, and in any case by no more than
# this; a picture of something else, such as the label, differs by more.
_ROUNDED_PX, _SAME_SHAPE = 2, 0.05
OPEN_ERRORS = (*DECODE_ERRORS, tifffile.TiffFileError, KeyError, IndexError, AttributeError, TypeError, ArithmeticError)
_GENERIC = "generic-tiff"  # OpenSlide's name for a TIFF of no scanner
# Bits of a sample. Others it cannot open, or finds no tile of them sound; of 16 it shows the upper 8.
_OPENSLIDES_BITS = (4, 8)
_UNKNOWN_TO_OPENSLIDE = (34712, 50001, 50002)  # TIFF Compression: JPEG 2000, WebP, JPEG XL
_UPRIGHT = 1  # TIFF Orientation
_OME_UNITS = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "mm": 1e3}  # to microns

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it quotes what stands in a broken file


def is_known(path: Path, vendor: str | None) -> bool:
    """Whether this reader should show the file: it is large, or OpenSlide would not find its levels, or its values.

    OpenSlide shows the first image of an OME file, which may be a label, and reads no OME header. Samples of 32 bits
    and floating point it shows plain white; here these are refused. It turns every tile of a turned picture by itself.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            levels = _levels(tiff)
            width, height = levels[0].imagewidth, levels[0].imagelength
            if vendor is not None:
                return vendor == _GENERIC and (tiff.is_ome or not _is_openslides(levels[0]))
            is_pyramid = len(levels) > 1 and levels[0].is_tiled  # pages of a document may be alike, too
            return is_pyramid or width * height > SMALLEST_PIXELS
    except OPEN_ERRORS:
        return False


def _is_openslides(page: Any) -> bool:
    """Whether OpenSlide shows a page of its formats as it is meant."""
    has_its_values = page.dtype in DTYPES and page.bitspersample in _OPENSLIDES_BITS
    return has_its_values and page.compression not in _UNKNOWN_TO_OPENSLIDE and _orientation(page) == _UPRIGHT


def tiff_shortcomings(path: Path) -> list[str]:
    """``Pyramid.shortcomings`` of a TIFF; of another file there are none here, nor where they cannot be told."""
    try:
        with tifffile.TiffFile(path) as tiff:
            planes, orientation = len(_largest(tiff).pages), _orientation(_levels(tiff)[0])
    except OPEN_ERRORS:
        return []
    turned = f"the slide is shown as it is stored, and not turned (TIFF orientation {orientation})"
    return one_of(planes) + [turned] * (orientation != _UPRIGHT)


def _orientation(page: Any) -> int:
    tag = page.tags.get("Orientation")
    return int(tag.value) if tag else _UPRIGHT


def is_cut_short(path: Path) -> bool:
    """Whether tiles or strips of a TIFF begin beyond the end of the file."""
    end = path.stat().st_size
    try:
        with tifffile.TiffFile(path) as tiff:
            return any(max(page.aspage().dataoffsets, default=0) >= end for page in tiff.pages)
    except OPEN_ERRORS:
        return False


def kind_of(path: Path) -> str | None:
    """The kind of the first picture's samples, such as "3 x float32, LERC"; None where that cannot be told."""
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            return f"{page.samplesperpixel} x {page.dtype}, {tifffile.COMPRESSION(page.compression).name}"
    except OPEN_ERRORS:
        return None


class TiffPyramid:
    """See ``Pyramid``. Raises InputError for pixels that are no picture, or cannot be read in pieces."""

    background = WHITE

    def __init__(self, path: Path) -> None:
        try:
            with tifffile.TiffFile(path) as tiff:
                pages = _levels(tiff)
                for page in pages:
                    _check(path, page)
                self.format = "ome-tiff" if tiff.is_ome else "tiff"
                self.scale = _ome_scale(tiff.ome_metadata, pages[0]) or scale_of(_resolution(pages[0]))
                self.icc_profile: bytes | None = pages[0].iccprofile
                self._levels = [SegmentedPage(path, page) for page in pages]
                self.shortcomings = tiff_shortcomings(path) + self._use_bits(tiff.ome_metadata, pages[0])
        except OPEN_ERRORS as error:
            raise InputError(f"cannot open {path}: the TIFF is damaged", "copy or export the file again") from error
        self.level_sizes = tuple(level.size_wh for level in self._levels)
        width = self.level_sizes[0][0]
        self.downsamples = tuple(width / level_width for level_width, _ in self.level_sizes)
        self.tile_sizes = tuple(level.segment_wh for level in self._levels)

    def _use_bits(self, ome_header: str | None, page: Any) -> list[str]:
        """Shows 16-bit samples over the bits that hold a picture, on all levels alike; tells of a dark picture."""
        if page.bitspersample != 16:
            return []
        brightest = self._levels[-1].brightest_sample()
        white = _white(ome_header, page, brightest)
        for level in self._levels:
            level.colours.white = white
        return [DARK] * (white == FULL_16_BIT and brightest < DARK_16_BIT)

    def read(self, level: int, block: Box) -> Image.Image:
        return self._levels[level].read(block)

    def details(self) -> dict[str, Any]:
        return {"objective_power": None, "bounds": None, "quickhash": None}

    def close(self) -> None:
        for level in self._levels:
            level.close()


def _levels(tiff: tifffile.TiffFile) -> list[Any]:
    """The pages that show the same picture, large to small: of a series with levels, else of a series of pages.

    A label or thumbnail is another image of an OME file, and is in strips beside levels in tiles.
    """
    largest = _largest(tiff)
    if len(largest.levels) > 1 or tiff.is_ome:
        pages = [level.keyframe for level in largest.levels]
    else:
        pages = [series.keyframe for series in tiff.series]
    base = max(pages, key=lambda page: page.imagewidth)
    # of several of one size the first stays
    alike = {page.imagewidth: page.aspage() for page in reversed(pages) if _is_level_of(base, page)}
    return [alike[width] for width in sorted(alike, reverse=True)]


def _is_level_of(base: Any, page: Any) -> bool:
    shape, width, height = base.imagewidth / base.imagelength, page.imagewidth, page.imagelength
    tolerance = min(_SAME_SHAPE, _ROUNDED_PX / min(width, height))
    return abs(width / height / shape - 1) <= tolerance and page.is_tiled == base.is_tiled


def _largest(tiff: tifffile.TiffFile) -> Any:
    return max(tiff.series, key=lambda series: series.keyframe.imagewidth * series.keyframe.imagelength)


def _check(path: Path, page: Any) -> None:
    if not is_picture(page):
        kind = f"{page.samplesperpixel} samples of {page.dtype} ({tifffile.PHOTOMETRIC(page.photometric).name})"
        raise InputError(
            f"cannot open {path}: {kind} are no grey or colour picture",
            "export it as an RGB TIFF of 8 bits",
        )
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
            numerator, denominator = tag.value
            found[f"tiff.{name}"] = str(numerator / denominator if denominator else 0)
    unit = page.tags.get("ResolutionUnit")
    found["tiff.ResolutionUnit"] = {2: "inch", 3: "centimeter"}.get(unit.value if unit else 2, "")
    return found


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
