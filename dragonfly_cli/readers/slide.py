"""Whole slides through OpenSlide: any box at any size, read from the pyramid level that holds the resolution.

Geometry (``plan_read``) touches no pixel; pixels are read in blocks of bounded size, so that even a slide of one
huge level costs tens of megabytes. Label and macro images are never opened: they may show a patient's name.
Non-goals: colour management, focal planes, and which boxes to look at.
"""

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openslide
from PIL import Image

from dragonfly_cli.errors import InputError
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers.source import MppSource, SourceKind

BLOCK_SIDE_PX = 1024  # a block is 4 MB as RGBA
READ_THREADS = min(4, os.cpu_count() or 1)  # OpenSlide and Pillow let other threads run while they decode
MAX_REGION_PIXELS = 24_000_000  # 72 MB as RGB; a larger region is averaged down as it is read
REDUCING_GAP = 3  # what a block is box-averaged to is still this many times finer than the output
KEPT_PIXELS = 2_000_000  # a region this small is kept for the next size of the same view
LEVEL_TOLERANCE = 1.01  # downsamples are not exact: 4.0003 serves where 4 is asked for
PLACEHOLDER_MPP = 50  # a generic TIFF's "scale" above this is a printer's 72-300 dpi
OPEN_ERRORS = (openslide.OpenSlideError, OSError, ValueError, RuntimeError)


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


def plan_strips(region: Box, reduce_xy: tuple[int, int]) -> Iterator[Box]:
    """``region`` cut into strips of its full width, whose origins fall on whole reduced pixels."""
    step = max(1, BLOCK_SIDE_PX // reduce_xy[1]) * reduce_xy[1]
    for y in range(0, region.height, step):
        yield Box(region.x, region.y + y, region.width, min(step, region.height - y))


def plan_blocks(strip: Box, reduce_x: int) -> Iterator[Box]:
    """A strip cut into blocks whose origins fall on whole reduced pixels."""
    step = max(1, BLOCK_SIDE_PX // reduce_x) * reduce_x
    for x in range(0, strip.width, step):
        yield Box(strip.x + x, strip.y, min(step, strip.width - x), strip.height)


def _plan_reduction(region: Box, size_wh: tuple[int, int]) -> tuple[int, int]:
    """How far to average: until the region fits, but never below ``REDUCING_GAP`` times the output."""
    enough = math.ceil(math.sqrt(region.width * region.height / MAX_REGION_PIXELS))
    x, y = (pixels // (REDUCING_GAP * out) for pixels, out in zip(region.size_wh, size_wh, strict=True))
    return max(1, min(x, enough)), max(1, min(y, enough))


def is_known(path: Path) -> bool:
    """Whether OpenSlide takes the file for one of its formats."""
    try:
        return openslide.OpenSlide.detect_format(path) is not None
    except OPEN_ERRORS:
        return False


class SlideView:
    """A box of a slide; pixels are read when a size is asked for."""

    def __init__(self, source: "SlideSource", box: Box) -> None:
        self._source = source
        self._kept: tuple[tuple[object, ...], Image.Image] | None = None
        self.box = box

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in level-0 pixels."""
        return self.box.size_wh

    def resize(self, size: tuple[int, int]) -> Image.Image:
        """The box at ``size`` (width, height) as RGB, bicubic, horizontally and then vertically.

        Two calls, because which direction Pillow takes first in one call depends on its version.
        Raises InputError when the slide cannot be read there.
        """
        width, height = size
        plan = plan_read(self._source.downsamples, self.box, size)
        left, top, right, bottom = (edge / plan.reduce_xy[i % 2] for i, edge in enumerate(plan.box))

        def narrow(rows: Image.Image) -> Image.Image:
            return rows.resize((width, rows.height), Image.Resampling.BICUBIC, (left, 0, right, rows.height))

        if plan.reduce_xy == (1, 1) and plan.region.width * plan.region.height > KEPT_PIXELS:
            wide = self._source.read(plan, narrow)
        else:
            wide = narrow(self._read_and_keep(plan))
        return wide.resize((width, height), Image.Resampling.BICUBIC, (0, top, width, bottom))

    def _read_and_keep(self, plan: ReadPlan) -> Image.Image:
        """For a region that is small, or was averaged down from a huge one: the next size shall not pay again."""
        key = plan.level, plan.region, plan.reduce_xy
        if not self._kept or self._kept[0] != key:
            self._kept = key, self._source.read(plan)
        return self._kept[1]


class SlideSource:
    """A whole slide. ``size_wh`` is level 0 in full, glass and all."""

    kind: SourceKind = "slide"
    frames = 1

    def __init__(self, path: Path, options: OpenOptions) -> None:
        self.path = path
        self.warnings: list[str] = []
        self._slide = self._open()
        properties = self._slide.properties
        self.format: str = properties[openslide.PROPERTY_NAME_VENDOR]
        self.size_wh: tuple[int, int] = self._slide.dimensions
        self.downsamples: tuple[float, ...] = self._slide.level_downsamples
        self.background = "#" + properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "ffffff")
        self.mpp = (options.slide_mpp, options.slide_mpp) if options.slide_mpp else self._mpp_of_file()
        self.mpp_source: MppSource = "option" if options.slide_mpp else "file" if self.mpp else "none"
        if self.mpp is None:
            self.warnings.append("the slide does not say its microns per pixel: sizes are in pixels only")

    def view(self, box: Box, frame: int = 0) -> SlideView:
        """The part ``box`` of the slide, white outside it. Pixels are read by ``resize``."""
        if frame != 0:
            raise InputError(f"{self.path} has no frame {frame}", "a slide has one frame, number 0")
        return SlideView(self, box)

    def read(self, plan: ReadPlan, finish: Callable[[Image.Image], Image.Image] = lambda rows: rows) -> Image.Image:
        """The planned region, reduced, as RGB on the slide's background; ``finish`` is applied to each strip of rows.

        Strips are read and finished side by side in threads. Raises InputError.
        """

        def strip_of(strip: Box) -> Image.Image:
            return finish(self._read_strip(plan, strip))

        with ThreadPoolExecutor(READ_THREADS) as pool:
            strips = list(pool.map(strip_of, plan_strips(plan.region, plan.reduce_xy)))
        canvas = Image.new("RGB", (strips[0].width, sum(strip.height for strip in strips)))
        y = 0
        for strip in strips:
            canvas.paste(strip, (0, y))
            y += strip.height
        return canvas

    def _read_strip(self, plan: ReadPlan, strip: Box) -> Image.Image:
        factor_x, factor_y = plan.reduce_xy
        canvas = Image.new("RGB", (math.ceil(strip.width / factor_x), math.ceil(strip.height / factor_y)))
        for block in plan_blocks(strip, factor_x):
            image = self._read_block(plan, block)
            reduced = image if plan.reduce_xy == (1, 1) else image.reduce(plan.reduce_xy)
            canvas.paste(reduced, ((block.x - strip.x) // factor_x, 0))
        return canvas

    def details(self) -> dict[str, Any]:
        slide, properties = self._slide, self._slide.properties
        levels = zip(slide.level_dimensions, slide.level_downsamples, strict=True)
        return {
            "levels": [{"width": w, "height": h, "downsample": scale} for (w, h), scale in levels],
            "mpp": self.mpp,
            "objective_power": _number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
            "bounds": self._bounds(),
            "quickhash": properties.get(openslide.PROPERTY_NAME_QUICKHASH1),
        }

    def close(self) -> None:
        self._slide.close()

    def _open(self) -> openslide.OpenSlide:
        try:
            return openslide.OpenSlide(self.path)
        except OPEN_ERRORS:
            raise InputError(
                f"cannot open the slide {self.path}: OpenSlide finds it damaged or of an unsupported kind",
                "copy or export it again, with all files that belong to it",
            ) from None

    def _read_block(self, plan: ReadPlan, block: Box) -> Image.Image:
        origin = round(block.x * plan.downsample), round(block.y * plan.downsample)
        try:
            rgba = self._slide.read_region(origin, plan.level, block.size_wh)
        except OPEN_ERRORS:
            # After one bad tile OpenSlide answers every later call with the same error. The old handle is not
            # closed here: another thread may be reading from it.
            self._slide = self._open()
            raise InputError(
                f"cannot read the slide {self.path} at level {plan.level}: a tile is damaged or missing",
                "copy or export the slide again, with all files that belong to it",
            ) from None
        return _flattened(rgba, self.background)

    def _mpp_of_file(self) -> tuple[float, float] | None:
        properties = self._slide.properties
        x = _number(properties.get(openslide.PROPERTY_NAME_MPP_X))
        y = _number(properties.get(openslide.PROPERTY_NAME_MPP_Y))
        if x is None or y is None or (self.format == "generic-tiff" and max(x, y) > PLACEHOLDER_MPP):
            return None
        return x, y

    def _bounds(self) -> dict[str, int] | None:
        """The scanned part of level 0, in the formats that tell it."""
        names = ("x", "y", "width", "height")
        edges = [self._slide.properties.get(f"openslide.bounds-{name}", "") for name in names]
        return dict(zip(names, map(int, edges), strict=True)) if all(edges) else None


def _flattened(rgba: Image.Image, background: str) -> Image.Image:
    alpha = rgba.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return rgba.convert("RGB")
    canvas = Image.new("RGB", rgba.size, background)
    canvas.paste(rgba.convert("RGB"), mask=alpha)
    return canvas


def _number(text: str | None) -> float | None:
    """A positive number of the slide's properties, or None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 < value < math.inf else None
