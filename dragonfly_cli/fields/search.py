"""The zoom search: which fields of a slide are worth looking at, found with a cheap glance at every part of the tissue.

As Dragonfly zooms in within an image, one scale up. A glance shows a cell of the grid as small as the network's low
view. All cells are glanced at, at a scale at which there are few enough; the best are parted into four and glanced at
again, until they are fields. What a glance is worth is told by the caller; the number of glances follows from the
budget, and grows with the logarithm of the slide.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from dragonfly_cli.fields.grid import Cell, Grid, spread_cells
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import Rank

GLANCES_PER_FIELD = 24  # a glance is one crop, and a field 29: looking costs more than choosing
_GLANCED_AT_ONCE = 32

Worth = Callable[[list[Box]], list[float]]


@dataclass(frozen=True)
class ZoomSearch:
    """A slide's grid, how many of its cells may be looked at, until when (of ``time.monotonic``), and by which rank."""

    grid: Grid
    fields: int
    deadline: float | None = None
    rank: Rank = Rank.auto

    @property
    def power(self) -> int:
        """At how many doublings of the field there are few enough cells to glance at all."""
        power = 0
        while len(self.grid.cells(power)) > self.fields * GLANCES_PER_FIELD:
            power += 1
        return power

    def even(self) -> list[Box]:
        """Fields spread over the tissue, without a glance."""
        return [self.grid.box(cell) for cell in spread_cells(self.grid.cells(), self.fields)]

    def best(self, worth: Worth) -> list[Box]:
        """The fields that look most worthwhile, the best first.

        If time runs out, fields spread evenly fill the places that are left.
        """
        if len(self.grid.cells()) <= self.fields:
            return self.even()
        power = self.power
        cells = list(self.grid.cells(power))
        ranked = self._ranked(cells, power, worth)
        while power:
            parts = ranked[: max(1, self.fields * GLANCES_PER_FIELD // 8)]
            cells = [child for cell in parts for child in self.grid.children(cell, power)]
            power -= 1
            ranked = self._ranked(cells, power, worth)
        boxes = [self.grid.box(cell) for cell in ranked[: self.fields]]
        return boxes + [box for box in self.even() if box not in boxes][: self.fields - len(boxes)]

    def _ranked(self, cells: list[Cell], power: int, worth: Worth) -> list[Cell]:
        """The cells that time allowed to glance at, the most worthwhile first."""
        worths: dict[Cell, float] = {}
        rounds = -(-len(cells) // _GLANCED_AT_ONCE)
        for number in range(rounds):
            if self.is_late and worths:
                break
            some = cells[number::rounds]  # each round is spread over the tissue
            worths |= zip(some, worth([self.grid.box(cell, power) for cell in some]), strict=True)
        return sorted(worths, key=worths.__getitem__, reverse=True)

    @property
    def is_late(self) -> bool:
        return self.deadline is not None and monotonic() > self.deadline
