"""The tiles or strips of one TIFF page, read and decoded one by one, so that memory follows the block, not the page.

Two readers need this: plain TIFF files, and OpenSlide's, whose tiles in JPEG and deflate are decoded directly where
that gives the same pixels: in a fraction of the time, or with a look at their checksums. tifffile finds the tiles, and
imagecodecs decodes them.
"""

import os
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.jpeg_damage import is_damaged, stated_size
from dragonfly_cli.readers.pyramid import TileError, plan_tiles
from dragonfly_cli.readers.signature import TIFF_HEADER_BYTES
from dragonfly_cli.readers.tiff_colours import SEPARATE, TiffColours, is_plain_rgb

KEPT_BYTES = 16 * 2**20  # of decoded tiles of a level, so that those on the edge of two blocks are decoded once
_SAMPLED_PIXELS = 8_000_000
DECODE_ERRORS = (RuntimeError, ValueError, OSError, IndexError, TypeError)  # tifffile, imagecodecs
# Formats whose tiles lie on a plain grid from the origin and are what OpenSlide shows; others clip or overlap them.
_PLAIN_GRIDS = ("aperio",)
_JPEG, _WEBP, _DEFLATED = 7, 50001, (8, 32946)  # TIFF Compression
_PICTURES = (33003, 33004, 33005, 34712, 34933, _WEBP, 50002, 22610, 34934)  # JPEG 2000, PNG, WebP, JPEG XL, JPEG XR
_SAME_PIXELS = 1e-9  # at other downsamples OpenSlide interpolates between the pixels of a level


class SegmentedPage:
    """A TIFF page that is a picture. Thread-safe; white outside the page and where a tile was left out.

    ``page`` is tifffile's; its file must be open here, and may be closed afterwards.
    """

    def __init__(self, path: Path, page: Any) -> None:
        self._decode_segment, self._decode_picture = page.decode, _picture_decoder(page)
        self._offsets, self._lengths = page.dataoffsets, page.databytecounts
        is_jpeg = page.compression == _JPEG
        self._tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if is_jpeg else {}
        self._colours = TiffColours(page)
        self._file = os.open(path, os.O_RDONLY)
        self._page_wh = page.imagewidth, page.imagelength
        self.size_wh: tuple[int, int] = self._page_wh
        strip_wh = page.imagewidth, min(page.rowsperstrip, page.imagelength)
        self.segment_wh: tuple[int, int] = (page.tilewidth, page.tilelength) if page.is_tiled else strip_wh
        self._columns, rows = (-(-length // side) for length, side in zip(self.size_wh, self.segment_wh, strict=True))
        # where colours lie in planes of their own, all segments of one stand before those of the next
        self._planes = planes_of(page)
        self._samples_of_plane = page.samplesperpixel // self._planes
        self._plane_segments = self._columns * rows
        self._empty = without_data(page)
        segment_bytes = self.segment_wh[0] * self.segment_wh[1] * 3
        self._segment = lru_cache(max(1, KEPT_BYTES // segment_bytes))(self._decode)

    def read(self, block: Box) -> Image.Image:
        """``block`` as RGB; raises TileError if a tile of it is damaged or cut short."""
        canvas = np.full((block.height, block.width, 3), 255, np.uint8)
        inside = block.within(Box(0, 0, *self.size_wh))
        for (column, row), part in plan_tiles(inside, self.segment_wh) if inside else ():
            segment = self._segment(row * self._columns + column)
            if segment is not None:
                there = _slices(part, column * self.segment_wh[0], row * self.segment_wh[1])
                canvas[_slices(part, block.x, block.y)] = segment[there]
        return Image.fromarray(canvas)  # once for all tiles: Pillow keeps pixels in another layout

    def empty_parts(self, block: Box) -> list[Box]:
        """The parts of ``block`` whose tiles were left out."""
        inside = block.within(Box(0, 0, *self.size_wh)) if self._empty else None
        tiles = plan_tiles(inside, self.segment_wh) if inside else ()
        return [part for (column, row), part in tiles if row * self._columns + column in self._empty]

    def show_white(self, sample: int) -> None:
        """Show this sample, and larger ones, white."""
        self._colours.white = sample
        self._segment.cache_clear()

    def brightest_sample(self) -> int:
        """The largest stored value in tiles or strips that are spread over the page; 0 where none is sound."""
        count = min(self._plane_segments, max(1, _SAMPLED_PIXELS // (self.segment_wh[0] * self.segment_wh[1])))
        found = [0]
        for index in (number * self._plane_segments // count for number in range(count)):
            with suppress(TileError, *DECODE_ERRORS):
                planes = [self._samples(index + plane * self._plane_segments) for plane in range(self._planes)]
                found += [int(self._colours.of_colour(plane).max()) for plane in planes if plane is not None]
        return max(found)

    def is_clear(self) -> bool:
        """Whether every pixel is fully transparent. Looks on from the middle until one is not."""
        count = self._plane_segments if self._colours.has_opacity else 0
        for index in (number % count for number in range(count // 2, count // 2 + count)):
            with suppress(TileError, *DECODE_ERRORS):
                samples = self._all_samples(index)
                if samples is not None and self._colours.opacity(samples).any():
                    return False
        return count > 0

    def close(self) -> None:
        os.close(self._file)

    def _decode(self, index: int) -> np.ndarray | None:
        """A tile or strip [rows, columns, 3 or 1] uint8, None where it was left out; raises TileError."""
        try:
            samples = self._all_samples(index)
            return None if samples is None else self._colours(samples)
        except DECODE_ERRORS:
            raise TileError("damaged") from None

    def _all_samples(self, index: int) -> np.ndarray | None:
        """A tile or strip of all planes, [rows, columns, samples]; None where one of them was left out."""
        planes = [self._samples(index + plane * self._plane_segments) for plane in range(self._planes)]
        there = [plane for plane in planes if plane is not None]
        return np.concatenate(there, axis=-1) if len(there) == self._planes else None

    def _samples(self, index: int) -> np.ndarray | None:
        """A tile or strip of one plane as it is stored, [rows, columns, samples]."""
        offset, length = self._offsets[index], self._lengths[index]
        if length == 0:
            return None
        if offset < TIFF_HEADER_BYTES:
            raise TileError("its place is not known")
        data = os.pread(self._file, length, offset)
        if len(data) < length:
            raise TileError("the file ends before the tile does")
        if self._decode_picture:
            samples = self._decode_picture(data)
            self._check_size(index, samples.shape[1::-1])
            return samples.reshape(*samples.shape[:2], self._samples_of_plane)
        if self._tables:
            self._check_jpeg(index, data)
        pixels, _, _ = self._decode_segment(data, index, **self._tables)
        segment: np.ndarray = pixels[0]
        return segment

    def _check_jpeg(self, index: int, data: bytes) -> None:
        """Raises TileError where libjpeg would not tell."""
        if is_damaged(data, self._tables["jpegtables"] or b""):
            raise TileError("damaged")
        if size := stated_size(data):
            self._check_size(index, (size[0], size[1] or self.segment_wh[1]))

    def _check_size(self, index: int, size_wh: tuple[int, ...]) -> None:
        """Raises TileError for a tile or strip of another size, at an edge also than what is left of the page.

        tifffile would put its pixels in rows of another length.
        """
        row, column = divmod(index % self._plane_segments, self._columns)
        for length, side, number, page in zip(size_wh, self.segment_wh, (column, row), self._page_wh, strict=True):
            if length not in (side, min(side, page - number * side)):
                raise TileError("of another size")


def _picture_decoder(page: Any) -> Callable[[bytes], np.ndarray] | None:
    """Of tiles or strips that say themselves how large they are; None for others, and for JPEG."""
    import tifffile

    if page.compression not in _PICTURES:
        return None
    decode: Callable[..., np.ndarray] = tifffile.TIFF.DECOMPRESSORS[page.compression]
    # an opacity that is 255 all over may be left out
    return partial(decode, hasalpha=True) if page.compression == _WEBP and page.samplesperpixel == 4 else decode


def planes_of(page: Any) -> int:
    return page.samplesperpixel if page.planarconfig == SEPARATE else 1


def without_data(page: Any) -> frozenset[int]:
    """The numbers of tiles or strips that were left out, in one plane at least."""
    in_plane = len(page.databytecounts) // planes_of(page)
    return frozenset(number % in_plane for number, size in enumerate(page.databytecounts) if size == 0)


def direct_levels(
    path: Path, slide_format: str, sizes: tuple[tuple[int, int], ...], downsamples: tuple[float, ...]
) -> dict[int, SegmentedPage]:
    """The levels whose tiles may be decoded directly with OpenSlide's pixels; none without imagecodecs."""
    if slide_format not in _PLAIN_GRIDS or not find_spec("imagecodecs"):
        return {}
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            pages: dict[tuple[int, int], list[Any]] = defaultdict(list)
            for page in (each.aspage() for each in tiff.pages):
                pages[page.imagewidth, page.imagelength].append(page)
            # which of several pages of one size is a level, and which a focal plane, OpenSlide knows
            only = {size: alike[0] for size, alike in pages.items() if len(alike) == 1 and _is_direct(alike[0])}
            return {
                level: SegmentedPage(path, only[size])
                for level, (size, scale) in enumerate(zip(sizes, downsamples, strict=True))
                if size in only and abs(scale - round(scale)) < _SAME_PIXELS
            }
    except (*DECODE_ERRORS, KeyError):
        return {}


def _is_direct(page: Any) -> bool:
    return page.is_tiled and page.compression in (_JPEG, *_DEFLATED) and is_plain_rgb(page)


def _slices(part: Box, left: int, top: int) -> tuple[slice, slice]:
    """Rows and columns of ``part`` in an array whose first pixel is (left, top)."""
    return slice(part.y - top, part.y - top + part.height), slice(part.x - left, part.x - left + part.width)
