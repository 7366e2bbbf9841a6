"""What a user may choose about a DICOM input - its window and its series - checked before any file is opened.

Nothing heavy is imported here. Presets are the usual ones of CT reading rooms, in Hounsfield units.
"""

import math
from dataclasses import dataclass
from typing import Literal

from dragonfly_cli.errors import UsageError

Function = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]
Origin = Literal["file", "default", "stored", "percentile", "option"]
WINDOW_HINT = "lung, brain, bone, soft, liver, mediastinum, stroke, rgb3, WIDTH,LEVEL such as 1500,-600, or a number"
EXACT_BELOW = 16  # LINEAR moves the edges by half a unit and a whole one, too much where values are 0 to 1, say


@dataclass(frozen=True)
class Window:
    """A VOI window in rescaled units (Hounsfield units for CT), and where it comes from."""

    center: float
    width: float
    function: Function = "LINEAR"
    origin: Origin = "file"

    @property
    def is_usable(self) -> bool:
        """PS3.3 C.11.2.1.2 and C.11.2.1.3: a LINEAR width is at least 1, which is a threshold, others are above 0."""
        is_wide_enough = self.width >= 1 if self.function == "LINEAR" else self.width > 0
        return math.isfinite(self.center) and is_wide_enough and self.width < math.inf


CT_DEFAULT = Window(40, 400, origin="default")  # soft tissue
PRESETS = {
    name: Window(center, width, origin="option")
    for name, center, width in (
        ("lung", -600, 1500),
        ("brain", 40, 80),
        ("bone", 500, 2000),
        ("soft", 40, 400),
        ("liver", 30, 150),
        ("mediastinum", 50, 350),
        ("stroke", 40, 40),
    )
}
RGB3 = (PRESETS["lung"], PRESETS["soft"], PRESETS["bone"])  # air, tissue and bone as red, green and blue


@dataclass(frozen=True)
class WindowChoice:
    """What ``--window`` asks for: one window, three for red, green and blue, or the file's own window ``number``.

    ``text`` is what the user wrote; ``number`` counts from 1; presets are meaningful for Hounsfield units alone.
    """

    text: str
    windows: tuple[Window, ...] = ()
    number: int | None = None
    needs_hounsfield: bool = False


@dataclass(frozen=True)
class DicomChoices:
    """The options that only DICOM inputs know; ``series`` is a number as ``info`` prints it, or a UID."""

    window: WindowChoice | None = None
    series: str | None = None


def parse_choices(window: str | None, series: str | None) -> DicomChoices:
    """Raises UsageError for a window or a series that cannot be understood."""
    if series is not None and not all(part.isdecimal() for part in series.split(".")):
        raise UsageError(f"--series {series!r} is neither a number nor a UID", "`dragonfly info` numbers the series")
    return DicomChoices(None if window is None else parse_window(window), series)


def parse_window(text: str) -> WindowChoice:
    """A preset's name, ``rgb3``, ``WIDTH,LEVEL``, or the number of one of the file's own windows."""
    name = text.strip().lower()
    if name == "rgb3":
        return WindowChoice(name, RGB3, needs_hounsfield=True)
    if name in PRESETS:
        return WindowChoice(name, (PRESETS[name],), needs_hounsfield=True)
    try:
        if name.isdecimal() and int(name) > 0:
            return WindowChoice(name, number=int(name))
        width, level = (float(part) for part in name.split(","))
    except ValueError:
        raise UsageError(f"--window {text!r} is not a window", WINDOW_HINT) from None
    if not (math.isfinite(width) and math.isfinite(level)):
        raise UsageError(f"--window {text!r}: WIDTH and LEVEL must both be numbers", WINDOW_HINT)
    if width <= 0:
        raise UsageError(f"--window {text!r}: the width must be above 0", WINDOW_HINT)
    function: Function = "LINEAR_EXACT" if width < EXACT_BELOW else "LINEAR"
    return WindowChoice(name, (Window(level, width, function, "option"),))
