"""Which crops of an image Dragonfly sees: pure geometry, no pixels.

An image is stretched to three canvases - low, middle and high - and each canvas is cut into square crops of the side
that the vision encoder takes. The grids are fixed by the weights that were trained on them; what part of a slide or a
series to show is decided elsewhere.

Grids and sizes are (columns, rows) and (width, height). Source: the reference implementation's behaviour
(togethercomputer/Dragonfly, branches dragonfly-v1 and main), measured case by case.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Architecture = Literal["dragonfly-v1", "dragonfly-v2"]
Grid = tuple[int, int]

_MIDDLE_GRIDS: tuple[Grid, ...] = ((2, 2), (1, 4), (4, 1))
_V1_HIGH_GRIDS: tuple[Grid, ...] = ((6, 4), (4, 6), (3, 8), (8, 3), (2, 12), (12, 2))
_V2_HIGH_PER_MIDDLE = 3

_LANDSCAPE_WH = (6000, 4000)

MIDDLE_CROPS = 4
POOLED_GRID = 6  # v2 averages the patches of its middle and high crops to this many in a row, and in a column
LEVELS = ("low", "middle", "high")


@dataclass(frozen=True)
class CropPlace:
    """Where a crop lies: its canvas, and its column and row there."""

    level: str
    grid: Grid
    column: int
    row: int

    def box_in(self, size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the crop on an image of ``size_wh`` pixels, rounded outwards, never empty."""
        columns, rows = self.grid
        left, right = _span(self.column, columns, size_wh[0])
        top, bottom = _span(self.row, rows, size_wh[1])
        return left, top, right, bottom


@dataclass(frozen=True)
class ViewPlan:
    """The crops of one image, in the order the network reads them: low, middle, high, each row by row."""

    side_px: int
    middle_grid: Grid
    high_grid: Grid

    @property
    def grids(self) -> tuple[Grid, Grid, Grid]:
        return (1, 1), self.middle_grid, self.high_grid

    @property
    def canvas_sizes(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of the low, middle and high canvas in pixels."""
        return tuple((columns * self.side_px, rows * self.side_px) for columns, rows in self.grids)

    @property
    def crop_count(self) -> int:
        return sum(columns * rows for columns, rows in self.grids)

    @property
    def places(self) -> list[CropPlace]:
        return [
            CropPlace(level, grid, column, row)
            for level, grid in zip(LEVELS, self.grids, strict=True)
            for row in range(grid[1])
            for column in range(grid[0])
        ]

    def high_crop(self, number: int) -> CropPlace:
        """The high crop of that number; zoom-in selection counts them from 0."""
        return self.places[1 + MIDDLE_CROPS + number]


def high_canvas_wh(side_px: int, architecture: Architecture) -> tuple[int, int]:
    """(width, height) in pixels of the high view of a landscape picture that is large enough for the widest."""
    return plan_views(_LANDSCAPE_WH, side_px, architecture).canvas_sizes[-1]


def plan_views(size_wh: tuple[int, int], side_px: int, architecture: Architecture) -> ViewPlan:
    """The grids for an image of ``size_wh`` pixels. v1 chooses its high grid apart from its middle grid."""
    middle = best_grid(size_wh, side_px, _MIDDLE_GRIDS)
    if architecture == "dragonfly-v1":
        high = best_grid(size_wh, side_px, _V1_HIGH_GRIDS)
    else:
        high = middle[0] * _V2_HIGH_PER_MIDDLE, middle[1] * _V2_HIGH_PER_MIDDLE
    return ViewPlan(side_px, middle, high)


def best_grid(size_wh: tuple[int, int], side_px: int, candidates: Sequence[Grid]) -> Grid:
    """The candidate that shows most of the image's resolution; ties go to the one that wastes less, then to the first.

    Because no image counts for more than its own pixels, a small picture gets the first grid whatever its shape.
    """
    width, height = size_wh
    best, best_effective, least_waste = candidates[0], 0, float("inf")
    for columns, rows in candidates:
        canvas_w, canvas_h = columns * side_px, rows * side_px
        scale = min(canvas_w / width, canvas_h / height)
        # int() and not round(): 447 instead of 448 happens in the reference, and decides between grids
        effective = min(int(width * scale) * int(height * scale), width * height)
        waste = canvas_w * canvas_h - effective
        if effective > best_effective or (effective == best_effective and waste < least_waste):
            best, best_effective, least_waste = (columns, rows), effective, waste
    return best


def _span(index: int, count: int, length: int) -> tuple[int, int]:
    """The pixels [start, stop) that the ``index``-th of ``count`` equal parts of ``length`` pixels touches."""
    start = index * length // count
    stop = -(-(index + 1) * length // count)
    return start, max(stop, start + 1)
