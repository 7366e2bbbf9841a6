"""A folder, a DICOMDIR or an archive as a source: one of its series, whose slices are the frames, in order.

Headers are read once, for the order; the pixels of a slice are read when it is shown, and of no other. Non-goals: how
slices are grouped (``series``) and shown (``image``), and which of them are looked at (``fields``).
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from dragonfly_cli.errors import InputError
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers.dicom import header as header_of
from dragonfly_cli.readers.dicom.brightness import shared_window
from dragonfly_cli.readers.dicom.choices import Window
from dragonfly_cli.readers.dicom.collection import DICOMDIR_HINT, places_in
from dragonfly_cli.readers.dicom.display import Array, Voi
from dragonfly_cli.readers.dicom.failures import quiet_pydicom
from dragonfly_cli.readers.dicom.image import DicomImage
from dragonfly_cli.readers.dicom.index import Slice, slices_of
from dragonfly_cli.readers.dicom.places import Place
from dragonfly_cli.readers.dicom.series import Series, choose, group
from dragonfly_cli.readers.dicom.windows import told_as_unreadable
from dragonfly_cli.readers.head import read_head
from dragonfly_cli.readers.raster import crop
from dragonfly_cli.readers.signature import is_archive
from dragonfly_cli.readers.source import MppSource, SourceKind, left_out, stated_scale

ONE_IMAGE_HINT = "give one of its images, or ask about all of them with `dragonfly batch`"
PACKED_HINT = "unpack it: photographs, and slides in anything but a zip, are read from a folder"
SECTIONS = frozenset(("CT", "MR", "PT", "NM"))  # pictures of these are of one body, also where they do not say where
OWN_WINDOWS = (
    "its slices have different windows, and their brightness cannot be compared; --window WIDTH,LEVEL is for all"
)


def read_series(path: Path, places: list[Place] | None = None) -> tuple[list[Series], list[str]]:
    """Every series below ``path``, or of ``places`` alone, and what had to be left out.

    Raises InputError when there is none.
    """
    places = places_in(path) if places is None else places
    found: dict[int, list[Slice]] = {}
    with quiet_pydicom():
        # A packed tar is unpacked from its start for each step back.
        for number, place in sorted(enumerate(places, 1), key=lambda numbered: numbered[1].at):
            with suppress(InputError):
                found[number] = slices_of(place)
    slices = [each for number in sorted(found) for each in found[number]]
    broken = [number for number in range(1, len(places) + 1) if number not in found]
    other = sum(not own for own in found.values())
    if not slices:
        what = f"cannot open {path} as one image"
        is_packed = path.is_file() and is_archive(read_head(path))
        if places and len(broken) == len(places):
            hint = "copy the whole folder or archive again" if path.is_dir() or is_packed else DICOMDIR_HINT
            raise InputError(f"{what}: none of the DICOM files that it names or holds can be read", hint)
        held = "DICOM objects, but no pictures" if places else "no DICOM series"
        raise InputError(f"{what}: it holds {held}", PACKED_HINT if is_packed else ONE_IMAGE_HINT)
    notes = [left_out(broken, len(places))] if broken else []
    return group(slices), notes + ([f"{other} of {len(places)} files hold no picture"] if other else [])


class VolumeSource:
    """One series of a folder, a DICOMDIR or an archive; frame n is its n-th slice. The slice shown last is kept."""

    kind: SourceKind = "dicom"
    format = "DICOM series"

    def __init__(self, path: Path, options: OpenOptions, places: list[Place] | None = None) -> None:
        """``places`` are the files to take instead of everything that ``path`` holds."""
        self.path = path
        self._every_series, notes = read_series(path, places)
        self.series, choice_notes = choose(self._every_series, options.dicom.series, str(path))
        self._window = options.dicom.window
        self.frames = len(self.series.slices)
        self.warnings = [*choice_notes, *notes, *self.series.notes]
        self._images: dict[Place, DicomImage] = {}
        is_body = self.series.first.modality in SECTIONS or any(each.position for each in self.series.slices)
        self._fallback = (
            cache(partial(shared_window, self._values, self.frames)) if self.frames > 1 and is_body else None
        )
        self._shown: tuple[int, Image.Image] | None = None
        self._first_window: Window | None = None
        self._last: DicomImage = self._first_readable()
        self.size_wh = self._last.shape.shown_wh
        own: MppSource = "file" if self._last.mpp else "none"
        self.mpp, self.mpp_source, warnings = stated_scale(options.slide_mpp, self._last.mpp, own)
        self.warnings += warnings

    @property
    def slices(self) -> Sequence[int]:
        """The frames in spatial order."""
        return range(self.frames)

    @property
    def files(self) -> list[Path]:
        """The files that the series consists of; the archive where it came out of one."""
        paths = (each.place.path for each in self.series.slices)
        return list(dict.fromkeys(path for path in paths if path)) or [self.path]

    def view(self, box: Box, frame: int = 0) -> Image.Image:
        """The part ``box`` of slice ``frame`` as an 8-bit RGB image. Raises InputError if it cannot be decoded."""
        if not 0 <= frame < self.frames:
            raise InputError(f"{self.path} has no slice {frame}", f"it has {self.frames}, counted from 0")
        if self._shown is None or self._shown[0] != frame:
            shown = self.series.slices[frame]
            with told_as_unreadable():
                self._last = self._image(shown)
            image = self._last.frame(shown.frame)
            self._compare_window(self._last.used)
            self._shown = frame, image if image.size == self.size_wh else image.resize(self.size_wh)
        return crop(self._shown[1], box)

    def details(self) -> dict[str, Any]:
        """Technical facts of the series that is shown, and a list of all that are there."""
        return self._last.details() | {
            "frames": self.frames,
            "spacing_mm": self.series.facts()["spacing_mm"],
            "series_shown": self.series.number,
            "series": [each.facts() for each in self._every_series],
        }

    def close(self) -> None:
        self._shown = None
        self._images.clear()

    def _compare_window(self, used: Voi | None) -> None:
        """A window of its own for every slice hides, of emission, what matters: how much there is."""
        if self.series.first.modality not in header_of.EMISSION or not isinstance(used, Window):
            return
        self._first_window = self._first_window or used
        if used != self._first_window and OWN_WINDOWS not in self.warnings:
            self.warnings.append(OWN_WINDOWS)

    def _image(self, shown: Slice) -> DicomImage:
        """The data set of a slice; the one used last is kept, which serves many frames in one file."""
        if shown.place not in self._images:  # by its place: several members of an archive may have one name
            self._images.clear()
            image = self._images[shown.place] = DicomImage(shown.place, self._window, shown.frame, self._fallback)
            self.warnings += [sentence for sentence in image.warnings if sentence not in self.warnings]
            image.warnings = self.warnings
        return self._images[shown.place]

    def _values(self, number: int) -> Array:
        each = self.series.slices[number]
        return DicomImage(each.place, example=each.frame).values(each.frame)

    def _first_readable(self) -> DicomImage:
        """That of the first slice whose file can be opened; a file is tried once, however many slices it holds."""
        firsts: dict[Place, Slice] = {}
        for each in self.series.slices:
            firsts.setdefault(each.place, each)
        *others, last = firsts.values()
        for each in others:
            with suppress(InputError):
                return self._image(each)
        return self._image(last)
