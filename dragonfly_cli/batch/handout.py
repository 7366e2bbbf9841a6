"""Who has which item: work is handed out by need, and what a lost worker had is handed out again.

Which of its groups killed a worker is not known. Each of them is therefore given out again alone, to a worker that
has nothing else. One that has been with too many workers that were lost is given out item by item, and what was alone
already is given up.
"""

from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from typing import TypeVar

from dragonfly_cli.batch.groups import Group, Place
from dragonfly_cli.batch.items import Item

TRIES = 3

Who = TypeVar("Who", bound=Hashable)


class Handout:
    """``depth`` groups at most are with one worker, so that it can read ahead."""

    def __init__(self, groups: Iterable[Group], depth: int) -> None:
        self._new = deque(groups)
        self._depth = depth
        self._suspects: deque[Group] = deque()
        self._losses: dict[Place, int] = {}
        self._with: dict[Hashable, list[Group]] = {}
        self._stopped = False

    def deal(self, workers: Iterable[Who]) -> Iterator[tuple[Who, Group]]:
        """All that these workers may have now, one group each in turn, so that few groups are spread over all."""
        ready = list(workers)
        while dealt := [(each, group) for each in ready if (group := self._next_for(each)) is not None]:
            yield from dealt

    def _next_for(self, worker: Hashable) -> Group | None:
        """Another group for this worker, or None if it has enough or there is none for it now."""
        has = self._with.setdefault(worker, [])
        if self._stopped or len(has) >= self._depth or any(group.place in self._losses for group in has):
            return None
        if self._suspects and has:
            return None  # until it has nothing else, so that a suspect is alone with it
        if not (waiting := self._suspects or self._new):
            return None
        has.append(waiting.popleft())
        return has[-1]

    def done(self, worker: Hashable, place: Place) -> None:
        self._with[worker] = [group for group in self._with[worker] if group.place != place]
        self._losses.pop(place, None)

    def lost(self, worker: Hashable) -> list[Item]:
        """Takes back what a lost worker had; returns the items that are given up."""
        given_up: list[Item] = []
        for group in self._with.pop(worker, []):
            self._losses[group.place] = self._losses.get(group.place, 0) + 1
            if self._losses[group.place] < TRIES:
                self._suspects.append(group)
            elif len(group.items) == 1:
                given_up += group.items
            else:
                self._suspects += group.parted()
                self._losses |= {each.place: 0 for each in group.parted()}
        return given_up

    def stop(self) -> None:
        """From now on nothing is handed out."""
        self._stopped = True

    @property
    def outstanding(self) -> int:
        """How many groups are with workers."""
        return sum(map(len, self._with.values()))

    @property
    def waits_for_a_worker(self) -> bool:
        """Whether there are groups to be handed out, which all workers may be too newly begun to take."""
        return bool(self._suspects or self._new) and not self._stopped
