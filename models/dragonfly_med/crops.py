"""Pixels of the crops: stretch, cut, normalise.

Input is a Pillow image, or anything with ``size`` and ``resize((width, height))`` that gives one, such as a region of
a slide that is read from the pyramid level that holds the wanted resolution.

Every canvas is one resize of the original image, bicubic, aspect ratio not kept, nothing padded. Normalisation is
CLIP's (openai/CLIP), bit for bit.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from PIL import Image

from dragonfly_med.views import ViewPlan

_CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)[:, None, None]
_CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)[:, None, None]

_THREADS = min(4, os.cpu_count() or 1)


class Resizable(Protocol):
    """What the processor needs of an image."""

    @property
    def size(self) -> tuple[int, int]: ...

    def resize(self, size: tuple[int, int]) -> Image.Image: ...


def stretch(image: Image.Image | Resizable, size_wh: tuple[int, int]) -> Image.Image:
    """The image at exactly ``size_wh``, RGB.

    A Pillow image is resized horizontally first and vertically second, in two calls: Pillow 13 changed the order of
    its passes for some sizes, and the published weights were trained with this one. Each pass is shared out over the
    processor's cores, the first by rows and the second by columns, which changes no value.
    """
    if not isinstance(image, Image.Image):
        return image.resize(size_wh).convert("RGB")
    if image.mode != "L":  # a grey picture is stretched as one channel: the same values for less than half the work
        image = image.convert("RGB")
    image.load()  # Pillow reads files lazily, and two threads must not do so at once
    original_h, (width, height) = image.height, size_wh
    rows = _in_bands(image, original_h, lambda top, bottom: ((0, top, image.width, bottom), (width, bottom - top)))
    wide = _joined(rows, (width, original_h), lambda start: (0, start))
    columns = _in_bands(wide, width, lambda left, right: ((left, 0, right, original_h), (right - left, height)))
    return _joined(columns, size_wh, lambda start: (start, 0)).convert("RGB")


def draw_canvases(image: Image.Image | Resizable, plan: ViewPlan) -> list[Image.Image]:
    """The low, middle and high canvas, 8-bit RGB."""
    return [stretch(image, size_wh) for size_wh in plan.canvas_sizes]


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
    with ThreadPoolExecutor(_THREADS) as pool:  # one crop at a time and thread: it stays in the core's cache
        list(pool.map(_normalize_one, crops, pixels))
    return pixels


def _normalize_one(crop: np.ndarray, normalized: np.ndarray) -> None:
    # for all 256 levels the same float32 as CLIP's product with 1/255
    np.divide(crop.transpose(2, 0, 1), np.float32(255), out=normalized, dtype=np.float32)
    normalized -= _CLIP_MEAN
    normalized /= _CLIP_STD


Bands = list[tuple[int, Image.Image]]  # where a band starts, and its pixels


def _in_bands(
    image: Image.Image, length: int, plan_band: Callable[[int, int], tuple[tuple[int, int, int, int], tuple[int, int]]]
) -> Bands:
    """Resizes one pass in bands of ``length``, in threads; ``plan_band`` says what to crop and how large to make it."""
    edges = sorted({length * part // _THREADS for part in range(_THREADS + 1)})

    def resize(start: int, stop: int) -> tuple[int, Image.Image]:
        box, size_wh = plan_band(start, stop)
        return start, image.crop(box).resize(size_wh, Image.Resampling.BICUBIC)

    with ThreadPoolExecutor(_THREADS) as pool:  # Pillow resizes without holding the interpreter's lock
        return list(pool.map(resize, edges, edges[1:]))


def _joined(bands: Bands, size_wh: tuple[int, int], place: Callable[[int], tuple[int, int]]) -> Image.Image:
    if len(bands) == 1:
        return bands[0][1]
    whole = Image.new(bands[0][1].mode, size_wh)
    for start, band in bands:
        whole.paste(band, place(start))
    return whole
