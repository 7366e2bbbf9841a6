"""Whole slides: any box at any size, read from the pyramid level that holds the resolution.

Pixels are read in blocks of bounded size, so that even a slide of one huge level costs tens of megabytes. A tile that
is damaged costs itself: it is shown white and told in the warnings.
Non-goals: focal planes, which boxes to look at, and formats (``slide_opening``).
"""

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from dragonfly_cli.errors import InputError
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers.changes import refuse_change, stamp_of
from dragonfly_cli.readers.colour import ToSrgb
from dragonfly_cli.readers.pyramid import (
    WHITE,
    ReadPlan,
    TileError,
    are_wide,
    plan_blocks,
    plan_overview,
    plan_read,
    plan_strips,
    plan_tiles,
)
from dragonfly_cli.readers.slide_opening import files_of_slide, open_pyramid
from dragonfly_cli.readers.slide_scale import doubts_of
from dragonfly_cli.readers.source import SHOWN_WHITE, SQUARE_WITHIN, SourceKind, stated_scale

READ_THREADS = min(4, os.cpu_count() or 1)  # OpenSlide and Pillow let other threads run while they decode
OVERVIEW_SHARE = 0.25  # of the slide: who looks at so much of it at once will do so again
KEPT_PIXELS = 2_000_000  # a region this small is kept for the next size of the same view
# Each costs opening the slide twice; a file with more of them, or half of a level, has no flaw but is broken.
MOST_BAD_TILES = 100
_BAD_TILES = f"these tiles of the slide {SHOWN_WHITE}"
_NAMED_TILES = 5


class SlideView:
    """A box of a slide; pixels are read when a size is asked for."""

    def __init__(self, source: "SlideSource", box: Box) -> None:
        self._source = source
        self._kept: tuple[tuple[object, ...], Image.Image] | None = None
        self.box = box

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in level-0 pixels; where these are not square, in square ones as fine as their finer side."""
        x, y = self._source.mpp or (1.0, 1.0)
        if abs(x / y - 1) <= SQUARE_WITHIN:
            return self.box.size_wh
        return round(self.box.width * x / min(x, y)), round(self.box.height * y / min(x, y))

    def resize(self, size: tuple[int, int]) -> Image.Image:
        """The box at ``size`` (width, height) as RGB, bicubic, horizontally and then vertically.

        Two calls, because which direction Pillow takes first in one call depends on its version.
        Raises InputError when nothing of the slide can be read there.
        """
        width, height = size
        plan = self._source.plan(self.box, size)
        left, top, right, bottom = (edge / plan.reduce_xy[i % 2] for i, edge in enumerate(plan.box))

        def narrow(rows: Image.Image) -> Image.Image:
            return rows.resize((width, rows.height), Image.Resampling.BICUBIC, (left, 0, right, rows.height))

        if plan.reduce_xy == (1, 1) and plan.region.width * plan.region.height > KEPT_PIXELS:
            wide = self._source.read(plan, narrow)
        else:
            wide = narrow(self._read_and_keep(plan))
        canvas = wide.resize((width, height), Image.Resampling.BICUBIC, (0, top, width, bottom))
        return self._source.to_srgb(canvas)

    def _read_and_keep(self, plan: ReadPlan) -> Image.Image:
        """For a region that is small, or was averaged down from a huge one: the next size shall not pay again."""
        key = plan.level, plan.region, plan.reduce_xy
        if not self._kept or self._kept[0] != key:
            self._kept = key, self._source.read(plan)
        return self._kept[1]


class SlideSource:
    """A whole slide. ``size_wh`` is level 0 in full, glass and all. Thread-safe."""

    kind: SourceKind = "slide"
    frames = 1

    def __init__(self, path: Path, options: OpenOptions) -> None:
        self.path = path
        self._pyramid = open_pyramid(path)
        self.warnings = list(self._pyramid.shortcomings)
        self._stamp = stamp_of(path)
        self._bad_tiles: set[tuple[int, tuple[int, int]]] = set()
        self._lock = threading.Lock()
        self._overview_plan = plan_overview(self._pyramid.level_sizes, self._pyramid.downsamples)
        self._overview: Image.Image | None = None
        self._overview_lock = threading.Lock()
        self.format: str = self._pyramid.format
        self.size_wh: tuple[int, int] = self._pyramid.level_sizes[0]
        self.downsamples: tuple[float, ...] = self._pyramid.downsamples
        self.to_srgb = ToSrgb(self._pyramid.icc_profile, self._pyramid.mode)
        self.warnings += self.to_srgb.warnings
        own = self._pyramid.scale
        self.mpp, self.mpp_source, warnings = stated_scale(options.slide_mpp, own.mpp, own.source)
        self.warnings += warnings
        if self.mpp_source != "option":
            self.warnings += doubts_of(own)

    @cached_property
    def files(self) -> list[Path]:
        """The files that the slide consists of, as far as they are known."""
        return files_of_slide(self.path)

    def view(self, box: Box, frame: int = 0) -> SlideView:
        """The part ``box`` of the slide, white outside it. Pixels are read by ``resize``."""
        if frame != 0:
            raise InputError(f"{self.path} has no frame {frame}", "a slide has one frame, number 0")
        return SlideView(self, box)

    def plan(self, box: Box, size_wh: tuple[int, int]) -> ReadPlan:
        """What to read to show ``box`` at a size.

        Where the coarsest level is huge, a large part of the slide is shown from an overview that stands behind the
        levels as one more; it is made when it is first needed, and kept.
        """
        factor, (width, height) = self._overview_plan.reduce_xy[0], self.size_wh
        if factor == 1 or box.width * box.height < OVERVIEW_SHARE * width * height:
            return plan_read(self.downsamples, box, size_wh)
        return plan_read((*self.downsamples, factor * self._overview_plan.downsample), box, size_wh)

    def read(self, plan: ReadPlan, finish: Callable[[Image.Image], Image.Image] = lambda rows: rows) -> Image.Image:
        """The planned region, reduced, as RGB on the slide's background; ``finish`` is applied to each strip of rows.

        Strips are read and finished side by side in threads. Raises InputError.
        """

        def strip_of(strip: Box) -> Image.Image:
            return finish(self._read_strip(plan, strip))

        if plan.level == len(self.downsamples):
            return finish(self._read_overview(plan))
        tile_wh = self._pyramid.tile_sizes[plan.level]
        strips = list(plan_strips(plan.region, plan.reduce_xy, tile_wh))
        if len(strips) == 1:
            return strip_of(strips[0])
        with ThreadPoolExecutor(1 if are_wide(tile_wh) else READ_THREADS) as pool:  # neighbours have tiles in common
            return _stacked(pool.map(strip_of, strips), math.ceil(plan.region.height / plan.reduce_xy[1]))

    def details(self) -> dict[str, Any]:
        levels = zip(self._pyramid.level_sizes, self.downsamples, strict=True)
        return {
            "levels": [{"width": w, "height": h, "downsample": scale} for (w, h), scale in levels],
            "mpp": self.mpp,
            "colour_profile": "converted to sRGB" if self.to_srgb.changes else None,
            **self._pyramid.details(),
        }

    def close(self) -> None:
        self._pyramid.close()

    def _read_overview(self, plan: ReadPlan) -> Image.Image:
        refuse_change(self.path, self._stamp)
        with self._overview_lock:
            self._overview = self._overview or self.read(self._overview_plan)
        canvas = Image.new("RGB", plan.region.size_wh, WHITE)
        canvas.paste(self._overview, (-plan.region.x, -plan.region.y))
        return canvas if plan.reduce_xy == (1, 1) else canvas.reduce(plan.reduce_xy)

    def _read_strip(self, plan: ReadPlan, strip: Box) -> Image.Image:
        factor_x, factor_y = plan.reduce_xy
        canvas = Image.new("RGB", (math.ceil(strip.width / factor_x), math.ceil(strip.height / factor_y)))
        for block in plan_blocks(strip, factor_x, self._pyramid.tile_sizes[plan.level]):
            image = self._read_block(plan.level, block)
            reduced = image if plan.reduce_xy == (1, 1) else image.reduce(plan.reduce_xy)
            canvas.paste(reduced, ((block.x - strip.x) // factor_x, 0))
        return canvas

    def _read_block(self, level: int, block: Box) -> Image.Image:
        refuse_change(self.path, self._stamp)
        try:
            return self._pyramid.read(level, block)
        except TileError:
            return self._read_by_tile(level, block)

    def _read_by_tile(self, level: int, block: Box) -> Image.Image:
        """The tiles of a block one by one, those that are damaged white."""
        self._refuse_if_broken(level)  # also who asks again for what was refused: it would be white now
        canvas = Image.new("RGB", block.size_wh, WHITE)
        for tile, part in plan_tiles(block, self._pyramid.tile_sizes[level]):
            if (level, tile) in self._bad_tiles:
                continue
            try:
                canvas.paste(self._pyramid.read(level, part), (part.x - block.x, part.y - block.y))
            except TileError:
                self._note_bad_tile(level, tile)
        return canvas

    def _note_bad_tile(self, level: int, tile: tuple[int, int]) -> None:
        with self._lock:
            self._bad_tiles.add((level, tile))
            self.warnings[:] = [each for each in self.warnings if not each.startswith(_BAD_TILES)]
            self.warnings.append(f"{_BAD_TILES}: {_list_of(sorted(self._bad_tiles))}")
        self._refuse_if_broken(level)

    def _refuse_if_broken(self, level: int) -> None:
        """Raises InputError where so many tiles are bad that the slide has no flaw but is broken."""
        columns, rows = (
            -(-length // side)
            for length, side in zip(self._pyramid.level_sizes[level], self._pyramid.tile_sizes[level], strict=True)
        )
        with self._lock:
            bad, bad_here = len(self._bad_tiles), sum(at == level for at, _ in self._bad_tiles)
        if bad > MOST_BAD_TILES or 2 * bad_here > columns * rows:
            raise InputError(
                f"cannot read the slide {self.path} at level {level}: tiles are damaged or missing",
                "copy or export the slide again, with all files that belong to it",
            )


def _stacked(strips: Iterator[Image.Image], height: int) -> Image.Image:
    first = next(strips)
    canvas = Image.new("RGB", (first.width, height))
    canvas.paste(first, (0, 0))
    y = first.height
    for strip in strips:
        canvas.paste(strip, (0, y))
        y += strip.height
    return canvas


def _list_of(bad: list[tuple[int, tuple[int, int]]]) -> str:
    named = [f"level {level}, column {column}, row {row}" for level, (column, row) in bad[:_NAMED_TILES]]
    more = len(bad) - len(named)
    return "; ".join(named) + (f" and {more} more" if more else "")
