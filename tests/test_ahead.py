"""Reading ahead: in order, one at a time, beside the caller's work, and not a moment after it was closed."""

import threading
from contextlib import closing

import pytest

from dragonfly_cli.readers.ahead import read_in_turn


def test_the_next_is_read_while_the_caller_is_busy() -> None:
    started = [threading.Event() for _ in range(3)]

    def read(number: int) -> int:
        started[number].set()
        return number * 10

    for number, coming in enumerate(read_in_turn(read, [0, 1, 2])):
        assert coming.result() == number * 10
        if number < 2:
            assert started[number + 1].wait(10)


def test_an_error_comes_with_its_item_and_the_others_are_read() -> None:
    told = []
    for coming in read_in_turn(lambda number: 1 / number, [1, 0, 2]):
        try:
            told.append(coming.result())
        except ZeroDivisionError:
            told.append("error")
    assert told == [1.0, "error", 0.5]


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_nothing_is_read_after_it_was_closed(taken: int) -> None:
    read: list[int] = []
    with closing(read_in_turn(read.append, list(range(9)))) as coming:
        for _ in range(taken):
            next(coming)
    seen = len(read)
    assert seen <= taken + 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reader")]
    assert read == list(range(seen))
