"""Populations of nuclei, drawn one by one or, where they are below a pixel, as the density that they leave in it."""

from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Plane

SMALLEST_STAMP_PX = 0.6  # nuclei with a smaller radius are not drawn one by one
STAMPS_AT_ONCE = 200


@dataclass(frozen=True)
class Nuclei:
    """One population of nuclei: where (share of the places taken, [height, width]) and of what shape; microns."""

    share: Plane
    spacing_um: float
    radius_um: float
    darkness: float
    spread: float = 0.12  # of radius and darkness, as a share of them
    length: float = 1.3  # long axis beside the short one
    turn: Plane | None = None  # radians of the long axis; None: any
    rim: float = 0.3  # how much darker the edge is than the middle


def add_nuclei(plane: Plane, canvas: Canvas, nuclei: Nuclei, share: Plane) -> None:
    """Adds one population to the haematoxylin: each nucleus by itself, or their mean where they are below a pixel."""
    share = share * nuclei.share
    radius_px = nuclei.radius_um / canvas.microns_per_pixel
    if radius_px < SMALLEST_STAMP_PX:
        per_pixel = (canvas.microns_per_pixel / nuclei.spacing_um) ** 2
        absorbed = np.pi * radius_px**2 * (1 - np.exp(-nuclei.darkness))  # light is averaged in a pixel, not density
        plane += np.float32(absorbed) * _counts(canvas, share * np.float32(per_pixel))
        return
    x, y = _places(canvas, nuclei.spacing_um, share)
    column, row = x.astype(int), y.astype(int)
    uneven = canvas.rng.normal(0, 1, (3, len(x))).clip(-2, 2)
    radii = radius_px * (1 + nuclei.spread * uneven[0])
    turns = canvas.rng.uniform(0, np.pi, len(x)) if nuclei.turn is None else nuclei.turn[row, column] + 0.2 * uneven[1]
    darkness = nuclei.darkness * (1 + nuclei.spread * uneven[2])
    order = np.argsort(radii)  # so that each group's window is no wider than it needs to be
    for start in range(0, len(order), STAMPS_AT_ONCE):
        some = order[start : start + STAMPS_AT_ONCE]
        _stamp(plane, (x[some], y[some]), radii[some], nuclei.length, turns[some], darkness[some], nuclei.rim)


def _counts(canvas: Canvas, expected: Plane) -> Plane:
    """About as many nuclei in each pixel as chance gives: Poisson's spread without its cost."""
    expected = expected.clip(0, None)
    return (expected + np.sqrt(expected) * canvas.rng.standard_normal(expected.shape, np.float32)).clip(0, None)


def _places(canvas: Canvas, spacing_um: float, share: Plane) -> tuple[np.ndarray, np.ndarray]:
    """Pixels where nuclei lie: on that share of the places of a jittered grid, so that few overlap."""
    spacing = spacing_um / canvas.microns_per_pixel
    height, width = canvas.shape_hw
    y, x = np.mgrid[0 : int(height / spacing) + 1, 0 : int(width / spacing) + 1].reshape(2, -1)
    y, x = ((axis + canvas.rng.uniform(0.1, 0.9, axis.size)) * spacing for axis in (y, x + 0.5 * (y % 2) - 0.25))
    y, x = (axis[(x >= 0) & (x < width) & (y < height)] for axis in (y, x))
    taken = canvas.rng.random(len(x)) < share[y.astype(int), x.astype(int)]
    return x[taken], y[taken]


def _stamp(
    plane: Plane,
    places_xy: tuple[np.ndarray, np.ndarray],
    radii: np.ndarray,
    length: float,
    turns: np.ndarray,
    darkness: np.ndarray,
    rim: float,
) -> None:
    """Adds ovals to ``plane``: pixels, radians; each with a soft edge, and paler in the middle by ``rim``."""
    reach = int(np.ceil(radii.max() * np.sqrt(length) + 1))
    around = np.arange(-reach, reach + 1, dtype=np.float32)
    columns, rows = (np.floor(axis).astype(int) for axis in places_xy)
    away_x = around[None, None, :] + 0.5 - (places_xy[0] - columns)[:, None, None].astype(np.float32)
    away_y = around[None, :, None] + 0.5 - (places_xy[1] - rows)[:, None, None].astype(np.float32)
    cos, sin, radius, dark = (
        axis.astype(np.float32)[:, None, None] for axis in (np.cos(turns), np.sin(turns), radii, darkness)
    )
    long, short = radius * np.float32(np.sqrt(length)), radius / np.float32(np.sqrt(length))
    distance = np.hypot((cos * away_x + sin * away_y) / long, (cos * away_y - sin * away_x) / short)
    cover = ((1 - distance) * short + 0.5).clip(0, 1)
    values = dark * cover * (1 - rim + rim * distance * distance)
    height, width = plane.shape
    row, column = (
        np.broadcast_to(axis, values.shape)
        for axis in (
            rows[:, None, None] + around.astype(int)[None, :, None],
            columns[:, None, None] + around.astype(int)[None, None, :],
        )
    )
    drawn = (cover > 0) & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    np.add.at(plane, (row[drawn], column[drawn]), values[drawn])
