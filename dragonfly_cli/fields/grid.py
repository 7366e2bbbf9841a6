"""Candidate fields: a grid over the tissue at the scale that is to be looked at, and coarser cells made of its cells.

A cell of power 0 is a field; one of each further power is two of the power before, by turns one above the other and
side by side, so that it is never far from square. Pure geometry.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from dragonfly_cli.geometry import Box

SMALLEST_SHARE = 0.2  # a field with less tissue is glass, unless it is all that shows a small piece or a thin part
_NO_SHARE = 1e-6  # what is left of glass when floats are added; the smallest tissue in the largest field is more

Cell = tuple[int, int]  # column and row


class Area(Protocol):
    """What a grid lies over: tissue, or the part of it within an outline."""

    @property
    def bounds(self) -> Box: ...

    @property
    def pieces(self) -> list[Box]:
        """Boxes around separate pieces of it, each of which is to be looked at."""

    def share(self, box: Box) -> float:
        """How much of ``box`` belongs to it, 0 to 1."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Cells of ``field_wh`` level-0 pixels over ``bounds``, centred on it."""

    area: Area
    bounds: Box
    field_wh: tuple[int, int]
    _known: dict[int, dict[Cell, float]] = field(default_factory=dict, init=False, repr=False)  # by power

    @property
    def shape(self) -> tuple[int, int]:
        """(columns, rows) of power 0."""
        width, height = self.field_wh
        return -(-self.bounds.width // width), -(-self.bounds.height // height)

    def box(self, cell: Cell, power: int = 0) -> Box:
        """A cell in level-0 pixels; it may reach beyond the slide, where there is white."""
        width, height = self.field_wh[0] << power // 2, self.field_wh[1] << (power + 1) // 2
        columns, rows = self.shape
        left = self.bounds.x + (self.bounds.width - columns * self.field_wh[0]) // 2
        top = self.bounds.y + (self.bounds.height - rows * self.field_wh[1]) // 2
        return Box(left + cell[0] * width, top + cell[1] * height, width, height)

    def cells(self, power: int = 0) -> dict[Cell, float]:
        """The cells that belong to the area, row by row, and how much of each does."""
        if power not in self._known:
            self._known[power] = self._coarser(power) if power else self._finest()
        return self._known[power]

    def children(self, cell: Cell, power: int) -> list[Cell]:
        """The cells of ``power - 1`` that a cell is made of, those of the area."""
        finer = self.cells(power - 1)
        return [child for child in _halves(cell, power) if child in finer]

    def _coarser(self, power: int) -> dict[Cell, float]:
        shares: dict[Cell, float] = {}
        for (column, row), share in self.cells(power - 1).items():
            cell = (column, row // 2) if power % 2 else (column // 2, row)
            shares[cell] = shares.get(cell, 0.0) + share / 2
        return shares

    def _finest(self) -> dict[Cell, float]:
        columns, rows = self.shape
        every = {
            (column, row): self.area.share(self.box((column, row))) for row in range(rows) for column in range(columns)
        }
        enough = {cell for cell, share in every.items() if share >= SMALLEST_SHARE}
        wanted = enough | self._needed_beside(enough) | _needed_far(every) if enough else set(every)
        return {cell: share for cell, share in every.items() if share > _NO_SHARE and cell in wanted}

    def _needed_beside(self, enough: set[Cell]) -> set[Cell]:
        """The cells over pieces so small, or thin, that their middle lies in no cell that has enough."""
        needed: set[Cell] = set()
        for piece in self.area.pieces:
            left, top, right, bottom = piece.corners
            if self._cell_at((left + right) // 2, (top + bottom) // 2) not in enough:
                (first, upper), (last, lower) = self._cell_at(left, top), self._cell_at(right - 1, bottom - 1)
                needed |= {(column, row) for row in range(upper, lower + 1) for column in range(first, last + 1)}
        return needed

    def _cell_at(self, x: int, y: int) -> Cell:
        corner = self.box((0, 0))
        return (x - corner.x) // corner.width, (y - corner.y) // corner.height


def _needed_far(every: dict[Cell, float]) -> set[Cell]:
    """The cells over thin parts of larger pieces, far from all cells that have enough.

    Beside a cell with far more of the part, one over its edge is glass, as it is beside a cell that has enough.
    """
    thin = {cell: share for cell, share in every.items() if _NO_SHARE < share < SMALLEST_SHARE}
    fullest = {cell: _fullest_around(every, cell) for cell in thin}
    return {cell for cell, share in thin.items() if fullest[cell] < min(SMALLEST_SHARE, share / SMALLEST_SHARE)}


def _fullest_around(shares: dict[Cell, float], cell: Cell) -> float:
    column, row = cell
    return max(shares.get((column + dx, row + dy), 0.0) for dx in (-1, 0, 1) for dy in (-1, 0, 1))


def _halves(cell: Cell, power: int) -> list[Cell]:
    column, row = cell
    return [(column, 2 * row + half) if power % 2 else (2 * column + half, row) for half in (0, 1)]


def spread_cells(cells: dict[Cell, float], most: int) -> list[Cell]:
    """At most ``most`` cells, far apart from each other: the fullest first, then always the one farthest from all.

    Of several that are equally far it is the fullest.
    """
    if not cells:
        return []
    places, shares = np.array(list(cells)), np.array(list(cells.values()))  # [cells, 2], [cells]
    chosen = [int(shares.argmax())]
    distances = _squared(places, chosen[0])
    while len(chosen) < min(most, len(cells)):
        farthest = np.flatnonzero(distances == distances.max())
        chosen.append(int(farthest[shares[farthest].argmax()]))
        distances = np.minimum(distances, _squared(places, chosen[-1]))
    return [(int(column), int(row)) for column, row in places[chosen]]


def _squared(places: np.ndarray, number: int) -> np.ndarray:
    return ((places - places[number]) ** 2).sum(axis=1)
