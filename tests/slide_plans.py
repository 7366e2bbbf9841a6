"""Painted tissue, and what of a slide is planned to be looked at. Plain helpers, no fixtures."""

from pathlib import Path
from typing import Any

import numpy as np

from dragonfly_cli.fields import LookPlan, plan_looks
from dragonfly_cli.fields.background import ground_of
from dragonfly_cli.fields.tissue import Tissue, tissue_in
from dragonfly_cli.options import LookOptions
from dragonfly_cli.readers import open_source

CANVAS_WH = (672, 448)  # the high view of the built-in model
GLASS, PINK = (244, 244, 244), (205, 120, 170)


def tissue_of(pixels: np.ndarray, pixel_um2: float = 100.0) -> Tissue:
    """The tissue of a thumbnail [rows, columns, 3], each of whose pixels is 10 x 10 level-0 pixels."""
    rows, columns = pixels.shape[:2]
    return tissue_in(pixels, ground_of(pixels), pixel_um2, (columns * 10, rows * 10))


def painted(*boxes: tuple[int, int, int, int], size=(300, 400), colour=PINK) -> np.ndarray:
    """Glass with coloured boxes (left, top, right, bottom) on it; ``size`` is (rows, columns)."""
    pixels = np.full((*size, 3), GLASS, np.uint8)
    for left, top, right, bottom in boxes:
        pixels[top:bottom, left:right] = colour
    return pixels


def plan(path: Path, **looking: Any) -> LookPlan:
    return plan_looks(open_source(path), LookOptions(**looking), CANVAS_WH)
