"""Pixels of the crops: stretch, cut, normalise.

Input is a Pillow image, or anything with ``size`` and ``resize((width, height))`` that gives one, such as a region of
a slide that is read from the pyramid level that holds the wanted resolution.

Every canvas is one resize of the original image, bicubic, aspect ratio not kept, nothing padded. Normalisation is
CLIP's (openai/CLIP), bit for bit.
"""

from typing import Protocol

import numpy as np
from PIL import Image

from dragonfly_med.views import ViewPlan

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


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
        return image.resize(size_wh).convert("RGB")
    image = image.convert("RGB")
    width, height = size_wh
    rows_kept = image.resize((width, image.height), Image.Resampling.BICUBIC)
    return rows_kept.resize((width, height), Image.Resampling.BICUBIC)


def draw_canvases(image: Image.Image | Resizable, plan: ViewPlan) -> list[Image.Image]:
    """The low, middle and high canvas, 8-bit RGB."""
    return [stretch(image, size_wh) for size_wh in plan.canvas_sizes]


def cut_crops(canvases: list[Image.Image], plan: ViewPlan) -> np.ndarray:
    """8-bit crops in the order of ``plan.places``: uint8 [crops, side, side, 3]."""
    side = plan.side_px
    tiles = []
    for canvas, (columns, rows) in zip(canvases, plan.grids, strict=True):
        pixels = np.asarray(canvas).reshape(rows, side, columns, side, 3)
        tiles.append(pixels.swapaxes(1, 2).reshape(rows * columns, side, side, 3))
    return np.concatenate(tiles)


def normalize(crops: np.ndarray) -> np.ndarray:
    """uint8 [crops, side, side, 3] to CLIP's float32 [crops, 3, side, side]."""
    count, side = crops.shape[:2]
    pixels = np.empty((count, 3, side, side), np.float32)
    for channel in range(3):
        np.take(_NORMALIZED[channel], crops[..., channel], out=pixels[:, channel], mode="clip")
    return pixels


def _normalized_levels() -> np.ndarray:
    """float32 [3, 256]: what each 8-bit level of each channel becomes; a table is exact and the fastest way."""
    scaled = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
    mean, std = np.array(_CLIP_MEAN, np.float32), np.array(_CLIP_STD, np.float32)
    return (scaled[None] - mean[:, None]) / std[:, None]


_NORMALIZED = _normalized_levels()
