"""What a reader gives back: a source, one opened input that can show any box of any frame at any size.

A reader is a module with a class that satisfies ``Source``; adding one touches that module and one row of the
table in ``opening``. Which boxes to look at is not decided here (see ``fields``).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from PIL import Image

from dragonfly_cli.geometry import Box

SourceKind = Literal["slide", "dicom", "raster"]
UNREAD = "could not be read and were left out"
SHOWN_WHITE = "are shown white, because they are damaged"
TOO_LATE = "were not looked at in time"
LOSSES = UNREAD, SHOWN_WHITE, TOO_LATE  # one of these stands in every warning of what an answer is not about
SQUARE_WITHIN = 0.005  # rounding in a header is no reason to resample
_SAME_SCALE = 0.05  # two scanners' statements of one scale are nearer
_MOST_LISTED = 12
MppSource = Literal["file", "resolution", "objective", "option", "none"]


class View(Protocol):
    """A box of one frame, to be read at whatever size is asked for. A Pillow image is one."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the box in level-0 pixels, or where these are not square in square ones."""

    def resize(self, size: tuple[int, int]) -> Image.Image:
        """The box stretched to ``size`` (width, height), 8-bit RGB, bicubic with antialiasing."""


class Source(Protocol):
    """One opened input. Not thread-safe unless the reader says so; close it after use.

    One whose frames lie in space may have ``slices``, one that consists of several files ``files``: see below.
    """

    path: Path
    kind: SourceKind
    format: str  # "aperio", "DICOM", "PNG" ...
    size_wh: tuple[int, int]  # level-0 pixels of a frame
    frames: int
    mpp: tuple[float, float] | None  # microns per level-0 pixel along x and y; None when the file does not say
    mpp_source: MppSource
    warnings: list[str]  # one sentence each, for the record; never patient data

    def view(self, box: Box, frame: int = 0) -> View:
        """The part ``box`` of ``frame`` as something that can be resized; raises InputError if unreadable."""

    def details(self) -> dict[str, Any]:
        """Technical facts for ``dragonfly info`` (levels, window, codec): an allow-list, no patient data."""

    def close(self) -> None: ...


def stated_scale(
    stated: float | None, own: tuple[float, float] | None, source: MppSource
) -> tuple[tuple[float, float] | None, MppSource, list[str]]:
    """The microns per pixel that a user has ``stated``, or else the file's ``own``; whose they are; what to warn of."""
    if stated is None:
        return own, source, []
    differs = own is not None and source != "objective" and max(abs(stated / each - 1) for each in own) > _SAME_SCALE
    told = " by ".join(dict.fromkeys(f"{each:.4g}" for each in own or ()))  # of both sides where these differ
    warning = f"--slide-mpp {stated:g} is taken, though the file says {told} microns per pixel"
    return (stated, stated), "option", [warning] * differs


def whole_of(source: Source) -> Box:
    """All of a frame."""
    return Box(0, 0, *source.size_wh)


def spatial_order(source: Source) -> Sequence[int]:
    """The frames in the order in which they lie in space, where the source has ``slices``; else as they come."""
    return getattr(source, "slices", None) or range(source.frames)


def files_of(source: Source) -> list[Path]:
    """The files that the source was made of."""
    return getattr(source, "files", None) or [source.path]


def left_out(numbers: list[int], files: int) -> str:
    """The warning of files that cannot be read; told by their number, for their names may be those of patients."""
    listed = ", ".join(map(str, numbers[:_MOST_LISTED])) + ", ..." * (len(numbers) > _MOST_LISTED)
    return f"{len(numbers)} of {files} files {UNREAD}: number{'s' * (len(numbers) > 1)} {listed} by name"
