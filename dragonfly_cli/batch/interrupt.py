"""Ctrl-C during a folder run."""

import signal
from contextlib import suppress
from types import FrameType
from typing import Self

from dragonfly_cli.output.terminal import say


class FirstInterrupt:
    """The first Ctrl-C asks for an end after what is ``in_hand``, an image or a group; the second one ends."""

    def __init__(self, in_hand: str) -> None:
        self._in_hand = in_hand
        self.asked = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        with suppress(RuntimeError):  # it came in the middle of another line
            say(f"note: ending after the {self._in_hand} in hand; Ctrl-C again ends now")
