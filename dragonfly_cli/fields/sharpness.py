"""Whether a slide is in focus at the scale of its fields."""

import numpy as np

from dragonfly_cli.fields.downsample import Downsample
from dragonfly_cli.fields.grid import Grid, spread_cells
from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.source import Source

_SAMPLES = 4
_SIDE_PX = 256
_FULL = 0.9  # of the tissue that the fullest field has
# Variance of the Laplacian of 8-bit luma; in-focus H&E at 0.5 microns per pixel has hundreds.
_BLURRED_BELOW = 20.0


def warn_of_blur(source: Source, grid: Grid, downsample: Downsample) -> None:
    """Says so when the middles of some fields full of tissue have hardly any detail."""
    fullest = max(grid.cells().values())
    full = {cell: share for cell, share in grid.cells().items() if share > _FULL * fullest}
    sample_wh = downsample.level_0_wh((_SIDE_PX, _SIDE_PX))
    details = [_detail(source, _middle_of(grid.box(cell), sample_wh)) for cell in spread_cells(full, _SAMPLES)]
    if details and np.median(details) < _BLURRED_BELOW:
        source.warnings.append("the slide looks out of focus, or has no detail, at the scale of the fields")


def _middle_of(box: Box, size_wh: tuple[int, int]) -> Box:
    width, height = size_wh
    return Box(box.x + (box.width - width) // 2, box.y + (box.height - height) // 2, width, height)


def _detail(source: Source, box: Box) -> float:
    luma = np.asarray(source.view(box).resize((_SIDE_PX, _SIDE_PX)).convert("L"), np.float32)
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    return float((around - 4 * luma[1:-1, 1:-1]).var())
