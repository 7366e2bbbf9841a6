"""One DICOM file as a source: a picture, or the frames of a cine, in the order in which they are stored.

No value that could identify a patient leaves it: ``details`` is an allow-list. Non-goals: folders and archives
(``series``), whole slides (``readers.slide``).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dragonfly_cli.geometry import Box
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers.dicom.image import DicomImage
from dragonfly_cli.readers.dicom.places import on_disk
from dragonfly_cli.readers.raster import crop
from dragonfly_cli.readers.source import MppSource, SourceKind


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
        self.mpp = (options.slide_mpp, options.slide_mpp) if options.slide_mpp else self._image.mpp
        self.mpp_source: MppSource = "option" if options.slide_mpp else "file" if self.mpp else "none"

    @property
    def slices(self) -> Sequence[int]:
        """The frames in spatial order: by position where every frame has one, else as they are stored."""
        return self._image.spatial_order() if self.frames > 1 else range(1)

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
