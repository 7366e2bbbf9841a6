"""The zoom search: which fields of a slide are worth looking at, found with cheap glances from coarse to fine.

As Dragonfly zooms in within an image, one scale up. A glance shows a cell of the grid as small as the network's low
view. All cells are glanced at, at the finest scale at which there are few enough; of each further scale, down to that
of the fields, only the halves of the best cells, some for every field that may be looked at: what is small may look
less worthwhile at a coarse scale than what is large and harmless.

A glance may have several reasons to look closer, told by the caller. Each orders the cells, and they choose in turns,
so that what one of them cannot see at a coarse scale is not lost when another does. For n fields that is at most
40 n glances, and 12 n more for each doubling of the slide's side: the cost follows the budget.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from time import monotonic
from typing import Protocol

from dragonfly_cli.fields.grid import Cell, Grid, spread_cells
from dragonfly_cli.geometry import Box
from dragonfly_cli.option_values import Rank

GLANCES_PER_FIELD = 40  # at the coarsest scale; a glance is one crop, of which a field has 29
CELLS_PER_FIELD = 3  # of a coarse scale, that are halved
_GLANCED_AT_ONCE = 32


class Glances(Protocol):
    """What the boxes of one scale look like."""

    def take(self, boxes: list[Box]) -> None:
        """Glances at some boxes more."""

    def worths(self, boxes: list[Box]) -> list[list[float]]:
        """For each reason to look closer, how much it speaks for each of ``boxes``, all of which were taken."""


@dataclass(frozen=True)
class ZoomSearch:
    """A slide's grid, how many fields may be looked at, by which rank, and until when (of ``time.monotonic``).

    ``second_looks`` are those of the fields that will not be new ones.
    """

    grid: Grid
    fields: int
    rank: Rank = Rank.auto
    second_looks: int = 0
    deadline: float | None = None

    @property
    def confirming(self) -> "ZoomSearch":
        """The search that leaves a third of its fields for second looks."""
        return replace(self, second_looks=self.fields // 3)

    @property
    def places(self) -> int:
        """How many different cells may be looked at."""
        return self.fields - self.second_looks

    @property
    def power(self) -> int:
        """At how many doublings of the field's area there are few enough cells to glance at all."""
        power = 0
        while len(self.grid.cells(power)) > self.fields * GLANCES_PER_FIELD:
            power += 1
        return power

    def even(self) -> list[Box]:
        """Fields spread over the tissue, without a glance."""
        return [self.grid.box(cell) for cell in spread_cells(self.grid.cells(), self.places)]

    def best(self, glances: Glances) -> list[Box]:
        """The fields that look most worthwhile, the best first.

        If time runs out, fields spread evenly fill the places that are left.
        """
        if len(self.grid.cells()) <= self.places:
            return self.even()
        cells = list(self.grid.cells(self.power))
        for power in range(self.power, 0, -1):
            parts = self._ranked(cells, power, glances)[: self.fields * CELLS_PER_FIELD]
            cells = [child for cell in parts for child in self.grid.children(cell, power)]
        boxes = [self.grid.box(cell) for cell in self._ranked(cells, 0, glances)[: self.places]]
        return boxes + [box for box in self.even() if box not in boxes][: self.places - len(boxes)]

    def _ranked(self, cells: list[Cell], power: int, glances: Glances) -> list[Cell]:
        """The cells that time allowed to glance at, the most worthwhile first."""
        seen: dict[Box, Cell] = {}
        for some in _rounds(cells):
            if self.is_late and seen:
                break
            boxes = {self.grid.box(cell, power): cell for cell in some}
            glances.take(list(boxes))
            seen |= boxes
        return _in_turns([_ordered(list(seen.values()), worths) for worths in glances.worths(list(seen))])

    @property
    def is_late(self) -> bool:
        return self.deadline is not None and monotonic() > self.deadline


def _rounds(cells: list[Cell]) -> Iterator[list[Cell]]:
    """The cells in parts to be glanced at together, each spread over the tissue."""
    count = -(-len(cells) // _GLANCED_AT_ONCE)
    return (cells[number::count] for number in range(count))


def _ordered(cells: list[Cell], worths: list[float]) -> list[Cell]:
    worth_of = dict(zip(cells, worths, strict=True))
    return sorted(cells, key=worth_of.__getitem__, reverse=True)


def _in_turns(orders: list[list[Cell]]) -> list[Cell]:
    """The first of each order, then the second of each, and so on, every cell once."""
    return list(dict.fromkeys(chain.from_iterable(zip(*orders, strict=True))))
