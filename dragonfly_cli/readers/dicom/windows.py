"""Which window or table the frames of one data set are shown with, by what was chosen and what the header says.

What nobody says has to be measured on pixel values, which is left to ``image``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from dragonfly_cli.errors import InputError, UsageError
from dragonfly_cli.readers.dicom import header as header_of
from dragonfly_cli.readers.dicom.choices import CT_DEFAULT, Window, WindowChoice
from dragonfly_cli.readers.dicom.display import Rescale, Voi
from dragonfly_cli.readers.dicom.pixel_facts import PixelFacts


@dataclass(frozen=True)
class Windows:
    """Those of the data set that ``header`` and ``facts`` are of; ``label`` is its name for errors."""

    header: Dataset
    facts: PixelFacts
    choice: WindowChoice | None
    label: str

    def check(self) -> None:
        """Raises UsageError where the choice does not fit the picture, as its first frame is."""
        choice = self.choice
        if choice is None:
            return
        if not self.facts.is_gray:
            raise UsageError(f"--window {choice.text}: {self.label} is a colour picture", "leave --window out")
        if choice.needs_hounsfield and not header_of.is_hounsfield(self.header, 0):
            raise UsageError(
                f"--window {choice.text}: the values of {self.label} are not Hounsfield units",
                "give WIDTH,LEVEL in the file's own units",
            )
        if choice.number:
            self._numbered(choice.number, 0)

    def chosen(self, frame: int) -> list[Voi]:
        """One, three for red, green and blue, or none where nothing was chosen.

        Raises InputError where the choice, which fits the first frame, does not fit this one.
        """
        if self.choice is None:
            return []
        if not self.choice.number:
            return list(self.choice.windows)
        with told_as_unreadable():
            return [self._numbered(self.choice.number, frame)]

    def own(self, frame: int) -> Voi | None:
        """What the file gives, a table before a window."""
        tables, windows = header_of.voi_of(self.header, frame)
        return tables[0] if tables else windows[0] if windows else None

    def usual(self, frame: int, bits: int) -> Window | None:
        """What is usual for its kind of picture, with values of ``bits``, where the file gives none."""
        if as_stored := self._as_stored(frame, bits):  # a screenshot of a CT, too, whatever rescale it has inherited
            return as_stored
        return CT_DEFAULT if header_of.is_hounsfield(self.header, frame) else None

    def _numbered(self, number: int, frame: int) -> Voi:
        """The file's window ``number``, or its table where it has tables only. Raises UsageError."""
        tables, windows = header_of.voi_of(self.header, frame)
        known: list[Any] = list(windows or tables)
        if number > len(known):
            count = f"{len(known)} window{'s' * (len(known) != 1)}"
            raise UsageError(f"--window {number}: {self.label} has {count}", "they are counted from 1")
        return known[number - 1]

    def _as_stored(self, frame: int, bits: int) -> Window | None:
        """The window over all that 8 bits can hold, which without one of its own are meant for the screen as they are.

        PS3.3 A.8.3.4 says so of secondary captures. More bits are hardly ever used in full, and counts have no end.
        """
        modality, top = header_of.modality_of(self.header, frame), 2**bits - 1
        is_signed = self.header.get("PixelRepresentation") == 1
        is_emission = header_of.code_of(self.header, "Modality") in header_of.EMISSION
        if top > 255 or is_signed or is_emission or not isinstance(modality, Rescale) or not modality.slope:
            return None
        reach = modality.slope * top
        return Window(reach / 2 + modality.intercept, abs(reach), "LINEAR_EXACT", "stored")


@contextmanager
def told_as_unreadable() -> Iterator[None]:
    """One odd frame or slice among those that a choice fits is no wrong choice, but cannot be shown: an InputError."""
    try:
        yield
    except UsageError as error:
        raise InputError(error.message, error.hint) from None


def is_own(voi: Voi) -> bool:
    """Whether the file gives it, and so also says how its padding is to look; any other window knows nothing of it."""
    return origin_of(voi) in ("voi lut", "file")


def origin_of(voi: Voi) -> str:
    return voi.origin if isinstance(voi, Window) else "voi lut"


def described(voi: Voi | None) -> dict[str, Any] | None:
    """What ``info`` and records tell of it."""
    if isinstance(voi, Window):
        return {"center": voi.center, "width": voi.width, "function": voi.function, "origin": voi.origin}
    return {"origin": "voi lut", "entries": len(voi.entries)} if voi else None
