"""Drawn pictures without any medical content, for which the answer is that there is none."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

BLANK_SIDE_PX = 128


def draw_blank(seed: int) -> Image.Image:
    """Glass, a flat colour, noise, a gradient or a few coloured shapes: nothing that a patient could have."""
    rng = np.random.default_rng(seed)
    side = BLANK_SIDE_PX
    grey = bool(rng.random() < 0.5)
    kind = int(rng.integers(5))
    if kind == 0:
        pixels = np.full((side, side, 3), _colour(rng, grey), dtype=np.float64)
    elif kind == 4:  # a slide without tissue
        pixels = rng.uniform(222, 254) + rng.uniform(-4, 4, 3) + rng.normal(0, rng.uniform(0, 3), (side, side, 3))
    elif kind == 1:
        pixels = rng.normal(rng.uniform(60, 200), rng.uniform(10, 90), (side, side, 1 if grey else 3))
        pixels = np.broadcast_to(pixels, (side, side, 3))
    else:
        ramp = np.linspace(0, 1, side)[:, None, None]
        pixels = np.broadcast_to(ramp * _colour(rng, grey) + (1 - ramp) * _colour(rng, grey), (side, side, 3))
        pixels = np.rot90(pixels, int(rng.integers(4)))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if kind == 3:
        _draw_shapes(image, rng, grey)
    return image.filter(ImageFilter.GaussianBlur(float(rng.choice([0, 0, 1, 3]))))


def _colour(rng: np.random.Generator, grey: bool) -> np.ndarray:
    extreme = rng.choice([0.0, 128.0, 255.0]) if rng.random() < 0.3 else None
    if extreme is not None:
        return np.full(3, extreme)
    return np.full(3, rng.uniform(0, 255)) if grey else rng.uniform(0, 255, 3)


def _draw_shapes(image: Image.Image, rng: np.random.Generator, grey: bool) -> None:
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 7))):
        x0, y0 = rng.uniform(0, 0.8 * BLANK_SIDE_PX, 2)
        x1, y1 = x0 + rng.uniform(4, 60), y0 + rng.uniform(4, 60)
        red, green, blue = (int(v) for v in _colour(rng, grey))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x0, y0, x1, y1), fill=(red, green, blue))
