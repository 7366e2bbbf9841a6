"""The build of an organ, and where its glands are."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from .canvas import Canvas, Plane

GLAND_GRID_UM = 2  # glands are smooth: their borders are computed on pixels of about this size at least


@dataclass(frozen=True)
class Organ:
    """The build that benign tissue, tumour and necrosis of one field share; microns."""

    gland_spacing_um: float
    gland_share: float  # of the places of the lattice, how many hold a gland
    epithelium_um: float
    nucleus_um: float  # radius of a benign epithelial nucleus
    fibre_turn: float  # radians
    waviness_um: float
    lymphocytes: float  # 0 to 1
    nests: float  # how far the tumour's glands are from solid sheets, 0 to 1

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Organ":
        return cls(
            gland_spacing_um=rng.uniform(85, 150),
            gland_share=rng.uniform(0.55, 0.95),
            epithelium_um=rng.uniform(14, 24),
            nucleus_um=rng.uniform(2.8, 3.8),
            fibre_turn=rng.uniform(0, np.pi),
            waviness_um=rng.uniform(15, 70),
            lymphocytes=rng.uniform(0, 1) ** 2,
            nests=rng.uniform(0, 1),
        )


@dataclass(frozen=True)
class Lattice:
    """The glands of a field: one oval for each place of a coarse grid; lengths as shares of the glands' spacing.

    ``ovals`` is [6, rows, columns]: centre x and y, radius, cosine and sine of its turn, length over width.
    """

    ovals: np.ndarray
    chance: np.ndarray  # 0 to 1; a place holds a gland if this is below the share of places that do
    shift_xy: np.ndarray  # of the field's corner

    @classmethod
    def random(cls, canvas: Canvas, organ: Organ) -> "Lattice":
        places = tuple(int(side * canvas.microns_per_pixel / organ.gland_spacing_um) + 4 for side in canvas.shape_hw)
        at_x, at_y, size, squeeze, turn, chance = canvas.rng.random((6, *places), np.float32)
        x, y = np.arange(places[1])[None, :] + 0.6 * (at_x - 0.5), np.arange(places[0])[:, None] + 0.6 * (at_y - 0.5)
        radius = 0.30 + 0.16 * size
        ovals = [x, y, radius, np.cos(np.pi * turn), np.sin(np.pi * turn), 1 + 0.5 * squeeze]
        return cls(np.stack(ovals).astype(np.float32), chance, canvas.rng.random(2, np.float32))

    def holding(self, share: float) -> "Lattice":
        """With glands at that share of the places only."""
        ovals = self.ovals.copy()
        ovals[2] = np.where(self.chance < share, ovals[2], -10)
        return replace(self, ovals=ovals)


def gland_edge(canvas: Canvas, organ: Organ, lattice: Lattice, *, swelling: float, warp_um: float) -> Plane:
    """How far each pixel lies inside the border of the nearest gland, microns; negative in the stroma.

    A pixel is compared with the four places of the lattice around it; ``warp_um`` bends the ovals. It is smooth,
    so it is computed on a coarser grid where pixels are small.
    """
    fewer = max(1, int(GLAND_GRID_UM / canvas.microns_per_pixel))
    width, height = (-(-side // fewer) for side in canvas.size_wh)
    grid = Canvas((width, height), canvas.microns_per_pixel * fewer, canvas.rng)
    places = (axis / organ.gland_spacing_um for axis in grid.places_um())
    x, y = (axis + shift for axis, shift in zip(places, lattice.shift_xy, strict=True))
    warp = warp_um / organ.gland_spacing_um
    bent_x, bent_y = (axis + warp * (grid.noise(40) - 0.5) for axis in (x, y))
    columns, rows = x[0].astype(int), y[:, 0].astype(int)
    edge = np.full(grid.shape_hw, -10, np.float32)
    for row, column in ((rows + down, columns + right) for down in (0, 1) for right in (0, 1)):
        at_x, at_y, radius, cos, sin, squeeze = lattice.ovals[:, row[:, None], column]
        away_x, away_y = bent_x - at_x, bent_y - at_y
        along, across = cos * away_x + sin * away_y, squeeze * (cos * away_y - sin * away_x)
        np.maximum(edge, swelling * radius - np.sqrt(along * along + across * across), out=edge)
    coarse = Image.fromarray(edge * organ.gland_spacing_um)
    fine = coarse.resize((width * fewer, height * fewer), Image.Resampling.BICUBIC)
    return np.asarray(fine)[: canvas.size_wh[1], : canvas.size_wh[0]]
