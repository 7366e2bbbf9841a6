"""Who has which item: work is handed out by need, and what a lost worker had is handed out again.

Which of its items killed a worker is not known. Each of them is therefore given out again alone, to a worker that
has nothing else, and is given up when it has been with too many workers that were lost.
"""

from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from typing import TypeVar

from dragonfly_cli.batch.items import Item

TRIES = 3

Who = TypeVar("Who", bound=Hashable)


class Handout:
    """``depth`` items at most are with one worker, so that it can read ahead."""

    def __init__(self, items: Iterable[Item], depth: int) -> None:
        self._new: Iterator[Item] = iter(items)
        self._depth = depth
        self._suspects: deque[Item] = deque()
        self._losses: dict[tuple[str, str], int] = {}
        self._with: dict[Hashable, list[Item]] = {}
        self._stopped = False

    def deal(self, workers: Iterable[Who]) -> Iterator[tuple[Who, Item]]:
        """All that these workers may have now, one item each in turn, so that few items are spread over all."""
        ready = list(workers)
        while dealt := [(each, item) for each in ready if (item := self._next_for(each)) is not None]:
            yield from dealt

    def _next_for(self, worker: Hashable) -> Item | None:
        """Another item for this worker, or None if it has enough or there is none for it now."""
        has = self._with.setdefault(worker, [])
        if self._stopped or len(has) >= self._depth or any(item.place in self._losses for item in has):
            return None
        if self._suspects and has:
            return None  # until it has nothing else, so that a suspect is alone with it
        item = self._suspects.popleft() if self._suspects else next(self._new, None)
        if item is not None:
            has.append(item)
        return item

    def done(self, worker: Hashable, place: tuple[str, str]) -> None:
        self._with[worker] = [item for item in self._with[worker] if item.place != place]
        self._losses.pop(place, None)

    def lost(self, worker: Hashable) -> list[Item]:
        """Takes back what a lost worker had; returns the items that are given up."""
        given_up = []
        for item in self._with.pop(worker, []):
            self._losses[item.place] = self._losses.get(item.place, 0) + 1
            if self._losses[item.place] < TRIES:
                self._suspects.append(item)
            else:
                given_up.append(item)
        return given_up

    def stop(self) -> None:
        """From now on nothing is handed out."""
        self._stopped = True

    @property
    def outstanding(self) -> int:
        """How many items are with workers."""
        return sum(map(len, self._with.values()))

    @property
    def waits_for_a_worker(self) -> bool:
        """Whether items that were with a lost worker wait to be handed out."""
        return bool(self._suspects) and not self._stopped
