"""How far a run is, on stderr: a bar on a terminal, elsewhere a plain line every half minute."""

import sys
import threading
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Any, Self

from dragonfly_cli.output.streams import discard
from dragonfly_cli.output.terminal import say

_EVERY_S = 30


class Progress:
    """Counts finished images; use it in a ``with``."""

    def __init__(self, total: int, every_s: float = _EVERY_S) -> None:
        self._total = total
        self._every_s = every_s
        self._done = self.failed = 0
        self._started = monotonic()
        self._ended = threading.Event()
        self._bar: Any = _bar() if sys.stderr and sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        if self._bar:
            _draw(self._bar.start)
            self._task = self._bar.add_task("images", total=self._total, speed="", errors="")
        else:
            threading.Thread(target=self._tell, name="progress", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._bar:
            _draw(self._bar.stop)

    def advance(self, *, failed: bool) -> None:
        """One more image is finished."""
        self._done += 1
        self.failed += failed
        if self._bar:
            self._bar.update(self._task, advance=1, speed=f"{self._speed():.2f}/s", errors=f"failed {self.failed}")

    def line(self) -> str:
        """``images: 120 of 10000, 2.41/s, 1 h 08 min left, failed: 3``"""
        left = duration((self._total - self._done) / self._speed()) if self._done else "unknown time"
        return f"images: {self._done} of {self._total}, {self._speed():.2f}/s, {left} left, failed: {self.failed}"

    def _speed(self) -> float:
        return self._done / max(monotonic() - self._started, 1e-9)

    def _tell(self) -> None:
        while not self._ended.wait(self._every_s):
            say(self.line())


def _draw(step: Callable[[], None]) -> None:
    """The terminal may have been closed meanwhile; the run goes on without it."""
    try:
        step()
    except OSError:
        discard(sys.stderr)


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``7 h 05 min``"""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[errors]}"),
    )
    # lines said above the bar are left to the terminal to break, so that what is copied from there is whole
    return Bar(*columns, console=Console(stderr=True, soft_wrap=True), transient=True)
