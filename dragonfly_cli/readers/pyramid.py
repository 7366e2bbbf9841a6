"""What a slide's file gives - levels, and any block of one - and which of its pixels a view needs.

``Pyramid`` is what the readers of single formats satisfy (``slide_openslide``, ``slide_tiff``, ``slide_dicom``).
The rest is geometry and touches no pixel.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.source import MppSource

BLOCK_SIDE_PX = 1024  # a block is 4 MB as RGBA
STRIP_ROWS = 256  # the memory of a low strip is used again for the next, and stays in the processor's cache
MAX_REGION_PIXELS = 24_000_000  # 72 MB as RGB; a larger region is averaged down as it is read
REDUCING_GAP = 3  # what a block is box-averaged to is still this many times finer than the output
# A level may differ from the shape of level 0 by what rounding makes of its sides, and in any case by no more than
# this; a picture of something else, such as the label, differs by more.
_ROUNDED_PX, _SAME_SHAPE = 2, 0.05
_SCALES = tuple(2**power for power in range(1, 20))  # of levels that were padded to whole tiles
LEVEL_TOLERANCE = 1.01  # downsamples are not exact: 4.0003 serves where 4 is asked for
WHITE = "#ffffff"


class TileError(Exception):
    """Pixels of a block are damaged or missing; the others can still be read."""


@dataclass(frozen=True)
class Scale:
    """Microns per level-0 pixel along x and y, and where that comes from; ``mpp`` is None when nothing says it."""

    mpp: tuple[float, float] | None
    source: MppSource


class Pyramid(Protocol):
    """One slide's levels, level 0 the finest. ``read`` may be called from several threads."""

    format: str
    level_sizes: tuple[tuple[int, int], ...]
    downsamples: tuple[float, ...]
    tile_sizes: tuple[tuple[int, int], ...]
    background: str  # where nothing was scanned
    scale: Scale
    icc_profile: bytes | None
    mode: str  # of the colours that the profile is of: RGB, or L where all are grey
    shortcomings: list[str]  # what of the file is not shown, or not as it is meant, one sentence each

    def read(self, level: int, block: Box) -> Image.Image:
        """The block, in pixels of the level, as RGB on the background; raises TileError."""

    def details(self) -> dict[str, Any]:
        """Technical facts that only this format has; no patient data."""

    def close(self) -> None: ...


def one_of(planes: int) -> list[str]:
    """The shortcoming of a file with several pictures of the same place."""
    return [f"only one of {planes} channels, focal planes or time points is shown"] * (planes > 1)


def exact_downsamples(level_sizes: tuple[tuple[int, int], ...], told: tuple[float, ...]) -> tuple[float, ...]:
    """``told`` is made of sizes that were rounded to whole pixels; where a whole number explains these, it is that.

    Of a narrow slide the difference is many pixels at the far end.
    """
    exact = []
    for size_wh, scale in zip(level_sizes, told, strict=True):
        whole = max(1, round(scale))
        exact.append(float(whole) if _is_reduced_by(whole, level_sizes[0], size_wh) else scale)
    return tuple(exact)


def _is_reduced_by(whole: int, base_wh: tuple[int, int], size_wh: tuple[int, int]) -> bool:
    return all(abs(base / whole - length) < 1 for base, length in zip(base_wh, size_wh, strict=True))


def have_one_shape(base_wh: tuple[int, int], size_wh: tuple[int, int]) -> bool:
    """Whether one may be the other at a smaller scale, but for rounding."""
    tolerance = min(_SAME_SHAPE, _ROUNDED_PX / min(size_wh))
    return abs(size_wh[0] / size_wh[1] / (base_wh[0] / base_wh[1]) - 1) <= tolerance


def size_as_level(
    base_wh: tuple[int, int], stored_wh: tuple[int, int], tile_wh: tuple[int, int]
) -> tuple[int, int] | None:
    """What of a picture shows level 0: all of it, or the part that was padded to whole tiles.

    None for one of another shape, and where it may have been padded at several scales.
    """
    whole = max(1, round(max(base_wh) / max(stored_wh)))
    fits = _is_reduced_by(whole, base_wh, stored_wh)
    if fits and whole in (1, *_SCALES):
        return stored_wh
    padded = [part for part in (_reduced(base_wh, scale) for scale in _SCALES) if _padded(part, tile_wh) == stored_wh]
    if not padded:
        return stored_wh if fits or have_one_shape(base_wh, stored_wh) else None
    return padded[0] if len(padded) == 1 and not fits else None


def _reduced(size_wh: tuple[int, int], scale: int) -> tuple[int, int]:
    return -(-size_wh[0] // scale), -(-size_wh[1] // scale)


def _padded(size_wh: tuple[int, int], tile_wh: tuple[int, int]) -> tuple[int, int]:
    return -(-size_wh[0] // tile_wh[0]) * tile_wh[0], -(-size_wh[1] // tile_wh[1]) * tile_wh[1]


def downsamples_of(level_sizes: tuple[tuple[int, int], ...]) -> tuple[float, ...]:
    """Of levels that do not tell them: those of the longer side, which was rounded least, made exact."""
    longer = 0 if level_sizes[0][0] >= level_sizes[0][1] else 1
    return exact_downsamples(level_sizes, tuple(level_sizes[0][longer] / size[longer] for size in level_sizes))


@dataclass(frozen=True)
class ReadPlan:
    """What to read for one view: pixels of one level, and where in them the view lies."""

    level: int
    downsample: float
    region: Box  # in pixels of the level
    box: tuple[float, float, float, float]  # left, top, right, bottom of the view inside the region
    reduce_xy: tuple[int, int]  # average so many pixels of the level into one before resizing


def plan_read(downsamples: tuple[float, ...], box: Box, size_wh: tuple[int, int]) -> ReadPlan:
    """The coarsest level that is no coarser than the output, and its whole pixels that cover ``box``."""
    wanted = min(box.width / size_wh[0], box.height / size_wh[1]) * LEVEL_TOLERANCE
    level = max((i for i, scale in enumerate(downsamples) if scale <= wanted), key=downsamples.__getitem__, default=0)
    scale = downsamples[level]
    left, top, right, bottom = (edge / scale for edge in box.corners)
    x, y = math.floor(left + 1e-6), math.floor(top + 1e-6)
    region = Box(x, y, max(1, math.ceil(right - 1e-6) - x), max(1, math.ceil(bottom - 1e-6) - y))
    inside = (
        max(0.0, left - x),
        max(0.0, top - y),
        min(right - x, region.width),
        min(bottom - y, region.height),
    )
    return ReadPlan(level, scale, region, inside, _plan_reduction(region, size_wh))


def plan_overview(level_sizes: tuple[tuple[int, int], ...], downsamples: tuple[float, ...]) -> ReadPlan:
    """All of the coarsest level, averaged until it fits; ``reduce_xy`` is (1, 1) where it does as it is."""
    level = downsamples.index(max(downsamples))
    width, height = level_sizes[level]
    factor = math.ceil(math.sqrt(width * height / MAX_REGION_PIXELS))
    return ReadPlan(level, downsamples[level], Box(0, 0, width, height), (0, 0, width, height), (factor, factor))


def plan_strips(region: Box, reduce_xy: tuple[int, int], tile_wh: tuple[int, int]) -> Iterator[Box]:
    """``region`` cut into strips of its full width, whose origins fall on whole reduced pixels.

    Of a high region that is not reduced they are low, and cut between tiles of ``tile_wh`` where these allow it; of
    tiles that are wide they are as low as the one block that each of them is then.
    """
    tile_rows = tile_wh[1]
    if are_wide(tile_wh):
        step = max(1, min(BLOCK_SIDE_PX, BLOCK_SIDE_PX**2 // region.width) // reduce_xy[1]) * reduce_xy[1]
        end = step
    elif region.height <= BLOCK_SIDE_PX or reduce_xy[1] > 1:
        step = max(1, BLOCK_SIDE_PX // reduce_xy[1]) * reduce_xy[1]
        end = step
    else:
        step = min(BLOCK_SIDE_PX, -(-STRIP_ROWS // tile_rows) * tile_rows)
        end = step - region.y % step
    start = 0
    while start < region.height:
        end = min(end, region.height)
        yield Box(region.x, region.y + start, region.width, end - start)
        start, end = end, end + step


def are_wide(tile_wh: tuple[int, int]) -> bool:
    """Whether tiles are strips of a page, which would be decoded again for each of several blocks side by side."""
    return tile_wh[0] > BLOCK_SIDE_PX


def plan_blocks(strip: Box, reduce_x: int, tile_wh: tuple[int, int]) -> Iterator[Box]:
    """A strip cut into blocks whose origins fall on whole reduced pixels."""
    step = strip.width if are_wide(tile_wh) else max(1, BLOCK_SIDE_PX // reduce_x) * reduce_x
    for x in range(0, strip.width, step):
        yield Box(strip.x + x, strip.y, min(step, strip.width - x), strip.height)


def plan_tiles(block: Box, tile_wh: tuple[int, int]) -> Iterator[tuple[tuple[int, int], Box]]:
    """(column, row) of every tile that ``block`` touches, and the part of it that lies in the block."""
    width, height = tile_wh
    left, top, right, bottom = block.corners
    for row in range(top // height, -(-bottom // height)):
        for column in range(left // width, -(-right // width)):
            x, y = max(left, column * width), max(top, row * height)
            yield (
                (column, row),
                Box(x, y, min(right, (column + 1) * width) - x, min(bottom, (row + 1) * height) - y),
            )


def _plan_reduction(region: Box, size_wh: tuple[int, int]) -> tuple[int, int]:
    """How far to average: until the region fits, but never below ``REDUCING_GAP`` times the output."""
    enough = math.ceil(math.sqrt(region.width * region.height / MAX_REGION_PIXELS))
    x, y = (pixels // (REDUCING_GAP * out) for pixels, out in zip(region.size_wh, size_wh, strict=True))
    return max(1, min(x, enough)), max(1, min(y, enough))
