"""The tiles or strips of one TIFF page, read and decoded one by one, so that memory follows the block, not the page.

Two readers need this: plain TIFF files, and OpenSlide's, whose JPEG tiles are decoded directly where that gives the
same pixels in a fraction of the time. tifffile finds the tiles, and imagecodecs (the extra ``fast``) decodes JPEG.
"""

import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.pyramid import TileError, plan_tiles

KEPT_BYTES = 16 * 2**20  # of decoded tiles of a level, so that those on the edge of two blocks are decoded once
DECODE_ERRORS = (RuntimeError, ValueError, OSError, IndexError, TypeError)  # tifffile, imagecodecs
# Formats whose tiles lie on a plain grid from the origin and are what OpenSlide shows; others clip or overlap them.
_PLAIN_GRIDS = ("aperio", "generic-tiff")
_JPEG = 7  # TIFF Compression
_WHITE_IS_ZERO = 0  # TIFF PhotometricInterpretation
_SAME_PIXELS = 1e-9  # at other downsamples OpenSlide interpolates between the pixels of a level


class SegmentedPage:
    """A TIFF page of 8 or 16 bits, grey or RGB. Thread-safe; white outside the page and where a tile was left out.

    ``page`` is tifffile's; its file must be open here, and may be closed afterwards.
    """

    def __init__(self, path: Path, page: Any) -> None:
        self._decode_segment = page.decode
        self._offsets, self._lengths = page.dataoffsets, page.databytecounts
        is_jpeg = page.compression == _JPEG
        self._tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if is_jpeg else {}
        self._white_is_zero = page.photometric == _WHITE_IS_ZERO
        self._file = os.open(path, os.O_RDONLY)
        self.size_wh: tuple[int, int] = page.imagewidth, page.imagelength
        strip_wh = page.imagewidth, min(page.rowsperstrip, page.imagelength)
        self.segment_wh: tuple[int, int] = (page.tilewidth, page.tilelength) if page.is_tiled else strip_wh
        self._columns = -(-self.size_wh[0] // self.segment_wh[0])
        segment_bytes = self.segment_wh[0] * self.segment_wh[1] * 3
        self._segment = lru_cache(max(1, KEPT_BYTES // segment_bytes))(self._decode)

    def read(self, block: Box) -> Image.Image:
        """``block`` as RGB; raises TileError if a tile of it is damaged or cut short."""
        canvas = np.full((block.height, block.width, 3), 255, np.uint8)
        inside = intersection(block, Box(0, 0, *self.size_wh))
        for (column, row), part in plan_tiles(inside, self.segment_wh) if inside else ():
            segment = self._segment(row * self._columns + column)
            if segment is not None:
                there = _slices(part, column * self.segment_wh[0], row * self.segment_wh[1])
                canvas[_slices(part, block.x, block.y)] = segment[there]
        return Image.fromarray(canvas)  # once for all tiles: Pillow keeps pixels in another layout

    def close(self) -> None:
        os.close(self._file)

    def _decode(self, index: int) -> np.ndarray | None:
        """A tile or strip [rows, columns, 3 or 1] uint8, None where it was left out."""
        offset, length = self._offsets[index], self._lengths[index]
        if length == 0:
            return None
        try:
            data = os.pread(self._file, length, offset)
            if len(data) < length:
                raise TileError("the file ends before the tile does")
            pixels, _, _ = self._decode_segment(data, index, **self._tables)
            return self._as_8_bits(pixels[0])
        except DECODE_ERRORS:
            raise TileError("damaged") from None

    def _as_8_bits(self, samples: np.ndarray) -> np.ndarray:
        """Decoded samples [rows, columns, samples] as RGB or grey; what goes beyond these is dropped."""
        if samples.dtype == np.uint16:
            samples = (samples // 257).astype(np.uint8)
        if samples.shape[-1] >= 3:
            return samples[..., :3]
        return 255 - samples[..., :1] if self._white_is_zero else samples[..., :1]


def jpeg_levels(
    path: Path, slide_format: str, sizes: tuple[tuple[int, int], ...], downsamples: tuple[float, ...]
) -> dict[int, SegmentedPage]:
    """The levels whose tiles may be decoded directly with OpenSlide's pixels; none without imagecodecs."""
    if slide_format not in _PLAIN_GRIDS or not find_spec("imagecodecs"):
        return {}
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            every = (page.aspage() for page in tiff.pages)
            pages = {(page.imagewidth, page.imagelength): page for page in every if _is_direct(page)}
            return {
                level: SegmentedPage(path, pages[size])
                for level, (size, scale) in enumerate(zip(sizes, downsamples, strict=True))
                if size in pages and abs(scale - round(scale)) < _SAME_PIXELS
            }
    except (*DECODE_ERRORS, KeyError):
        return {}


def _is_direct(page: Any) -> bool:
    return page.is_tiled and page.compression == _JPEG and page.dtype == np.uint8 and all(page.databytecounts)


def _slices(part: Box, left: int, top: int) -> tuple[slice, slice]:
    """Rows and columns of ``part`` in an array whose first pixel is (left, top)."""
    return slice(part.y - top, part.y - top + part.height), slice(part.x - left, part.x - left + part.width)


def intersection(one: Box, other: Box) -> Box | None:
    """What two boxes have in common, or None."""
    left, top = max(one.x, other.x), max(one.y, other.y)
    right = min(one.x + one.width, other.x + other.width)
    bottom = min(one.y + one.height, other.y + other.height)
    return Box(left, top, right - left, bottom - top) if right > left and bottom > top else None
