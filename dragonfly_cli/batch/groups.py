"""Items that are answered together: consecutive ones of a run, so that no timing decides which.

A group is handed out, answered and, after a run was cut off in the middle of it, answered again as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dragonfly_cli.batch.items import Item
from dragonfly_cli.batch.result import Key

Place = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Group:
    """At least one item, in the order of the run."""

    items: tuple[Item, ...]

    @property
    def place(self) -> Place:
        """What tells it from every other group of a run, and from each of its own items alone."""
        return tuple(item.place for item in self.items)

    @property
    def keys(self) -> list[Key]:
        return [key for item in self.items for key in item.keys]

    def parted(self) -> list["Group"]:
        """Its items one by one."""
        return [Group((item,)) for item in self.items]


def grouped(items: Sequence[Item], together: int) -> list[Group]:
    """All items, ``together`` in each group but the last."""
    return [Group(tuple(items[start : start + together])) for start in range(0, len(items), together)]
