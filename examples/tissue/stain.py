"""From densities of two dyes to the picture that a scanner takes."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from .canvas import Canvas, Plane


@dataclass(frozen=True)
class Stain:
    """How one laboratory's slides look: optical density per unit of either dye, [red, green, blue], and the light."""

    haematoxylin: np.ndarray
    eosin: np.ndarray
    light: np.ndarray
    blur_um: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Stain":
        haematoxylin = np.array([rng.uniform(0.85, 1.10), rng.uniform(0.85, 1.05), rng.uniform(0.30, 0.60)])
        eosin = np.array([rng.uniform(0.05, 0.22), rng.uniform(0.80, 1.00), rng.uniform(0.30, 0.62)])
        light = rng.uniform(0.86, 0.985) * (1 + rng.uniform(-0.025, 0.025, 3))
        strengths = rng.uniform(0.70, 1.45, 2)
        return cls(haematoxylin * strengths[0], eosin * strengths[1], light.clip(0, 1), rng.uniform(0.15, 0.8))


def photograph(canvas: Canvas, stain: Stain, haematoxylin: Plane, eosin: Plane) -> Image.Image:
    """Light through the section, out of focus as the stain's laboratory leaves it, with the noise of a camera."""
    chromatin = 0.65 + 0.7 * canvas.noise(1.1)
    uneven = 0.9 + 0.2 * canvas.noise(400)  # thickness of the section
    planes = []
    for blue, pink, light in zip(stain.haematoxylin, stain.eosin, stain.light, strict=True):
        density = uneven * (np.float32(blue) * chromatin * haematoxylin + np.float32(pink) * eosin)
        planes.append(255 * light * np.exp(-density))
    shades = np.stack(planes, axis=-1) + 5 * (canvas.rng.random((*canvas.shape_hw, 1), np.float32) - 0.5)
    image = Image.fromarray(shades.clip(0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(stain.blur_um / canvas.microns_per_pixel))
