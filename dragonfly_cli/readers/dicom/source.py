"""One DICOM file as a source: a picture, or the frames of a cine, in the order in which they are stored.

No value that could identify a patient leaves it: ``details`` is an allow-list. Non-goals: folders and archives
(``series``), whole slides (``readers.slide``).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dragonfly_cli.errors import InputError
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers.dicom.image import DicomImage
from dragonfly_cli.readers.dicom.places import on_disk
from dragonfly_cli.readers.dicom.series import Series
from dragonfly_cli.readers.raster import crop
from dragonfly_cli.readers.source import MppSource, SourceKind, stated_scale

SEVERAL_STACKS = "its frames differ in direction or spacing: they are in the order in which they are stored"

SEVERAL_SHAPES = "the pixels of its frames differ in shape: all are shown with the shape of the first frame's"

NO_PLACES = "where its frames lie cannot be read: they are in the order in which they are stored"


class DicomSource:
    """A single- or multi-frame DICOM image. The frame shown last is kept."""

    kind: SourceKind = "dicom"
    format = "DICOM"

    def __init__(self, path: Path, options: OpenOptions) -> None:
        self.path = path
        self._image = DicomImage(on_disk(path), options.dicom.window)
        self._shown: tuple[int, Image.Image] | None = None
        self.warnings = self._image.warnings
        self.size_wh = self._image.shape.shown_wh
        self.frames = self._image.facts.frames
        stacks = self._stacks() if self.frames > 1 else []
        self.slices = self._in_order(stacks)
        if len({round(each.first.spacing[0] / each.first.spacing[1], 3) for each in stacks if each.first.spacing}) > 1:
            self.warnings.append(SEVERAL_SHAPES)
        is_one_scale = len({each.first.spacing for each in stacks}) <= 1
        file_mpp = self._image.mpp if is_one_scale else None
        own: MppSource = "file" if file_mpp else "none"
        self.mpp, self.mpp_source, warnings = stated_scale(options.slide_mpp, file_mpp, own)
        self.warnings += warnings

    def view(self, box: Box, frame: int = 0) -> Image.Image:
        """The part ``box`` of ``frame`` as an 8-bit RGB image. Raises InputError if it cannot be decoded."""
        if self._shown is None or self._shown[0] != frame:
            self._shown = frame, self._image.frame(frame)
        return crop(self._shown[1], box)

    def details(self) -> dict[str, Any]:
        """Technical facts only. ``window`` is the one used last, or before any view the one that will be."""
        return self._image.details()

    def close(self) -> None:
        self._shown = None

    def _stacks(self) -> list[Series]:
        try:
            return self._image.stacks()
        except InputError:
            self.warnings.append(NO_PLACES)
            return []

    def _in_order(self, stacks: list[Series]) -> Sequence[int]:
        """The frames by position where they are one stack and every one has a position, else as they are stored."""
        if len(stacks) > 1:
            self.warnings.append(SEVERAL_STACKS)
        if len(stacks) != 1:
            return range(self.frames)
        self.warnings += stacks[0].notes
        return [each.frame for each in stacks[0].slices]
