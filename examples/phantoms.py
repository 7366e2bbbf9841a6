"""Bodies drawn from formulas: a frontal chest film and the slices of a chest CT. Nobody was ever near them."""

from collections.abc import Callable

import numpy as np
from PIL import Image

FILM_WH = (352, 384)
SLICE_PX = 128
SLICES = 12
AIR_HU, LUNG_HU, FAT_HU, MUSCLE_HU, BLOOD_HU, LIVER_HU, MARROW_HU, BONE_HU = -1000, -850, -100, 45, 40, 60, 220, 900


def draw_film() -> np.ndarray:
    """Attenuation like that of a frontal chest film, [rows, columns] from 0 (air) to 1 (bone)."""
    rng = np.random.default_rng(11)
    width, height = FILM_WH
    u, v = _places((height, width))

    def oval(at_u: float, at_v: float, wide: float, high: float, edge: float) -> np.ndarray:
        return _oval(u, v, (at_u, at_v), (wide, high), edge)

    body = np.maximum(oval(0, 0.35, 0.93, 1.25, 0.03), oval(0, -0.75, 0.24, 0.6, 0.05))
    film = 0.52 * body
    for side in (-1, 1):
        lung = oval(side * 0.44, -0.02, 0.33, 0.62, 0.05) * (1 - oval(side * 0.42, 0.72, 0.42, 0.24, 0.06))
        film -= 0.34 * lung
        for rib in range(9):
            centre = -0.62 + 0.155 * rib + 0.55 * (np.abs(u) - 0.42) ** 2
            inside = (np.sign(u) == side) & (np.abs(u) > 0.08) & (np.abs(u) < 0.8)
            film += 0.075 * np.exp(-(((v - centre - 0.12 * np.abs(u)) / 0.022) ** 2)) * inside * body
        film += 0.13 * np.exp(-(((v + 0.70 - 0.16 * np.abs(u)) / 0.026) ** 2)) * (np.sign(u) == side) * body
        film += 0.10 * oval(side * 0.17, 0.02, 0.10, 0.20, 0.25)
    film += 0.20 * oval(0, 0, 0.085, 1.4, 0.12) + 0.20 * oval(0.14, 0.28, 0.27, 0.30, 0.06)
    film += 0.025 * np.cos(v * 70) * oval(0, 0, 0.075, 1.3, 0.1)
    film += 0.03 * (_smooth_noise((height, width), 24, rng) - 0.5) * body
    return np.clip(film + rng.normal(0, 0.006, film.shape), 0, 1)


def draw_chest_slices() -> list[np.ndarray]:
    """A chest from its upper end to the liver, Hounsfield units [rows, columns] each; the person lies on the back."""
    rng = np.random.default_rng(13)
    return [_chest_slice(depth, rng) for depth in np.linspace(0, 1, SLICES)]


def _chest_slice(depth: float, rng: np.random.Generator) -> np.ndarray:
    """One slice, ``depth`` 0 for the top and 1 for the lowest; left of the picture is the person's right."""
    u, v = _places((SLICE_PX, SLICE_PX))
    hounsfield = np.full(u.shape, AIR_HU, np.float32)

    def fill(centre: tuple[float, float], radii: tuple[float, float], value: float) -> None:
        cover = _oval(u, v, centre, radii, 0.02)
        hounsfield[:] += cover * (value - hounsfield)

    opened = np.sin(np.pi * min(0.95, 0.25 + 0.6 * depth))  # the lungs widen from their tips
    wide, high = 0.70 + 0.16 * depth, 0.48 + 0.12 * depth
    fill((0, 0), (wide, high), FAT_HU)
    fill((0, 0), (wide - 0.06, high - 0.06), MUSCLE_HU)
    for side in (-1, 1):
        fill((side * 0.36, 0), (0.28 * opened, 0.40 * opened), LUNG_HU)
    for vessel in rng.uniform((-0.55, -0.25), (0.55, 0.25), (24, 2)):
        if abs(vessel[0]) > 0.2:
            fill((vessel[0], vessel[1]), (0.014, 0.014), BLOOD_HU)
    if 0.3 < depth < 0.95:
        fill((0.10, -0.14), (0.24 * np.sin(np.pi * depth), 0.19), BLOOD_HU)  # the heart, left of the middle
    if depth > 0.7:
        fill((-0.36, 0.0), (0.9 * (depth - 0.55), 0.8 * (depth - 0.5)), LIVER_HU)
    for side in (-1, 1):
        for angle in np.linspace(-1.1, 1.1, 5) + 0.2 * np.sin(9 * depth):
            rib = (side * (wide - 0.09) * np.cos(angle), (high - 0.09) * np.sin(angle))
            fill(rib, (0.035, 0.035), BONE_HU)
    fill((0.09, 0.22), (0.05, 0.05), BLOOD_HU)  # the aorta
    fill((0, 0.05 - 0.1 * depth), (0.035, 0.035), AIR_HU if depth < 0.4 else MUSCLE_HU)  # the windpipe
    _spine(fill, high)
    fill((0, -high + 0.09), (0.09, 0.03), BONE_HU)
    table = (np.abs(v - high - 0.08 - 0.08 * (1 - u**2)) < 0.012) & (np.abs(u) < 0.8)
    return np.where(table, -300, hounsfield) + rng.normal(0, 12, u.shape)


def _spine(fill: Callable[[tuple[float, float], tuple[float, float], float], None], high: float) -> None:
    """A vertebra with its canal and spinous process near the back."""
    fill((0, 0.30), (0.11, 0.09), BONE_HU)
    fill((0, 0.30), (0.09, 0.07), MARROW_HU)
    fill((0, 0.42), (0.09, 0.06), BONE_HU)
    fill((0, 0.41), (0.05, 0.035), MUSCLE_HU)
    fill((0, min(0.48, high - 0.08)), (0.02, 0.06), BONE_HU)


def _places(shape_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Places from -1 to 1: from left to right and from top to bottom, [height, width] each."""
    height, width = shape_hw
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return (x - width / 2) / (width / 2), (y - height / 2) / (height / 2)


def _oval(
    u: np.ndarray, v: np.ndarray, centre: tuple[float, float], radii: tuple[float, float], edge: float
) -> np.ndarray:
    """1 inside an oval, 0 outside, soft over ``edge`` of its radius."""
    distance = np.hypot((u - centre[0]) / radii[0], (v - centre[1]) / radii[1])
    return 1 / (1 + np.exp(np.minimum((distance - 1) / edge, 60)))


def _smooth_noise(shape_hw: tuple[int, int], cell_px: int, rng: np.random.Generator) -> np.ndarray:
    """Soft noise from 0 to 1, [height, width], its blobs about ``cell_px`` wide."""
    height, width = shape_hw
    coarse = rng.random((height // cell_px + 3, width // cell_px + 3), np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
