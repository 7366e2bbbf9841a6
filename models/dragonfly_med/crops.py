"""Pixels of the crops: stretch, cut, normalise.

Input is a Pillow image, or anything with ``size`` and ``resize((width, height))`` that gives one, such as a region of
a slide that is read from the pyramid level that holds the wanted resolution.

Every canvas is one resize of the original image, bicubic, aspect ratio not kept, nothing padded. Normalisation is
CLIP's (openai/CLIP), bit for bit.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from PIL import Image

from dragonfly_med.views import ViewPlan

_CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)[:, None, None]
_CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)[:, None, None]

_THREADS = 2  # the high canvas takes as long as the other two together


class Resizable(Protocol):
    """What the processor needs of an image."""

    @property
    def size(self) -> tuple[int, int]: ...

    def resize(self, size: tuple[int, int]) -> Image.Image: ...


def stretch(image: Image.Image | Resizable, size_wh: tuple[int, int]) -> Image.Image:
    """The image at exactly ``size_wh``, RGB.

    A Pillow image is resized horizontally first and vertically second, in two calls: Pillow 13 changed the order of
    its passes for some sizes, and the published weights were trained with this one.
    """
    if not isinstance(image, Image.Image):
        return _as_rgb(image.resize(size_wh))
    if image.mode != "L":  # a grey picture is stretched as one channel: the same values for less than half the work
        image = _as_rgb(image)
    width, height = size_wh
    rows_kept = image.resize((width, image.height), Image.Resampling.BICUBIC)
    return _as_rgb(rows_kept.resize((width, height), Image.Resampling.BICUBIC))


def _as_rgb(image: Image.Image) -> Image.Image:
    """``convert("RGB")`` without its copy of an image that is RGB already."""
    return image if image.mode == "RGB" else image.convert("RGB")


def draw_canvases(image: Image.Image | Resizable, plan: ViewPlan) -> list[Image.Image]:
    """The low, middle and high canvas, 8-bit RGB."""
    if not isinstance(image, Image.Image):
        return [stretch(image, size_wh) for size_wh in plan.canvas_sizes]
    image.load()  # once, before the threads; Pillow resizes without holding the interpreter's lock
    with ThreadPoolExecutor(_THREADS) as pool:
        largest_first = pool.map(lambda size_wh: stretch(image, size_wh), reversed(plan.canvas_sizes))
        return list(largest_first)[::-1]


def cut_crops(canvases: list[Image.Image], plan: ViewPlan) -> list[np.ndarray]:
    """8-bit crops in the order of ``plan.places``: uint8 [side, side, 3] each, views that copy nothing."""
    side = plan.side_px
    crops: list[np.ndarray] = []
    for canvas, (columns, rows) in zip(canvases, plan.grids, strict=True):
        tiles = np.asarray(canvas).reshape(rows, side, columns, side, 3)
        crops += [tiles[row, :, column] for row in range(rows) for column in range(columns)]
    return crops


def normalize(crops: Sequence[np.ndarray]) -> np.ndarray:
    """uint8 crops, [side, side, 3] each, to CLIP's float32 [crops, 3, side, side]."""
    side = crops[0].shape[0]
    pixels = np.empty((len(crops), 3, side, side), np.float32)
    for crop, normalized in zip(crops, pixels, strict=True):  # one at a time: a crop stays in the processor's cache
        # for all 256 levels the same float32 as CLIP's product with 1/255
        np.divide(crop.transpose(2, 0, 1), np.float32(255), out=normalized, dtype=np.float32)
        normalized -= _CLIP_MEAN
        normalized /= _CLIP_STD
    return pixels
