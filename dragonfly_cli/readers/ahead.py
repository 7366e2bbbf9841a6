"""Reads what comes next in a thread, while the caller is busy with the one before.

Decoding and resizing are OpenSlide's, libjpeg's and Pillow's work, during which other threads run.
"""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")


def read_in_turn(read: Callable[[Item], Read], items: Sequence[Item]) -> Generator["Future[Read]"]:
    """Yields what ``read`` gives or raises for every item, in order; the next one is being read meanwhile.

    Two are never read at once, so a source need not be thread-safe. Close the generator after use: then nothing is
    being read any more.
    """
    pool = ThreadPoolExecutor(1, "reader")
    try:
        futures = (pool.submit(read, item) for item in items)
        current = next(futures, None)
        while current:
            following = next(futures, None)
            yield current
            current = following
    finally:
        pool.shutdown(cancel_futures=True)
