"""One DICOM data set as pictures: each frame decoded, brought to 8-bit RGB, and stretched to square pixels.

``header`` says what the file wants, ``decoding`` gives stored values, ``display`` does the arithmetic; this module
joins them, one frame at a time. Non-goals: files and folders (``source``, ``series``), presentation states, overlays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut

from dragonfly_cli.errors import InputError
from dragonfly_cli.readers.colour import ToSrgb
from dragonfly_cli.readers.dicom import display
from dragonfly_cli.readers.dicom import header as header_of
from dragonfly_cli.readers.dicom.brightness import shared_window, thinned
from dragonfly_cli.readers.dicom.choices import CT_DEFAULT, Window, WindowChoice
from dragonfly_cli.readers.dicom.decoding import FrameReader
from dragonfly_cli.readers.dicom.display import Array, GrayWay, Voi
from dragonfly_cli.readers.dicom.failures import COPY_HINT, in_own_words
from dragonfly_cli.readers.dicom.index import Vector, frames_in
from dragonfly_cli.readers.dicom.notes import notes_of
from dragonfly_cli.readers.dicom.pixel_facts import MAX_FRAME_PIXELS, PIXEL_KEYWORDS, PixelFacts, pixel_facts
from dragonfly_cli.readers.dicom.places import Place
from dragonfly_cli.readers.dicom.series import Series, group, plane_of
from dragonfly_cli.readers.dicom.terms import told_modality
from dragonfly_cli.readers.dicom.windows import Windows, described, is_own, origin_of
from dragonfly_cli.readers.source import SQUARE_WITHIN

LARGEST_PIXEL_SHAPE = 20.0  # a pixel longer than this is a mistake in the header
ONE_GREY = "all pixels of a frame lie outside the window, so it is shown in one grey; try --window WIDTH,LEVEL"
ODD_WINDOW = {  # by the origin of the window that is shown in its place
    origin: f"the window in the file cannot be used: {shown}"
    for origin, shown in (
        ("default", f"{CT_DEFAULT.width:g} wide around {CT_DEFAULT.center:g} is shown"),
        ("stored", "the values are shown as they are stored"),
    )
}
DEEPER = "its compressed values have more bits than its header declares: they are shown as they are"
FLAT_WITHIN = 16  # of 255, as of 12 bits in a table for 16
FLAT = f"the values as they are shown differ by no more than {FLAT_WITHIN} of 255; try --window WIDTH,LEVEL"
MEANT_FOR_ALL = ("stored", "voi lut")  # a slice with little in it is often flat in the window of its series
NO_WINDOW = "the file gives no window that can be used: the middle 99 % of the pixel values are shown"


@dataclass(frozen=True)
class Shape:
    """How a frame is stored and how it is shown: (width, height) in pixels."""

    stored_wh: tuple[int, int]
    shown_wh: tuple[int, int]


class DicomImage:
    """The frames of one data set. ``warnings`` grows as frames are shown; ``used`` is the window shown last.

    ``example`` is the frame whose scale and plane are taken for those of all, ``fallback`` gives the window for frames
    without one; left out, it is measured over the frames of this data set.
    Raises InputError when the data set cannot be read, holds no picture, or declares what cannot be, and UsageError
    where ``choice`` does not fit it.
    """

    def __init__(
        self,
        place: Place,
        choice: WindowChoice | None = None,
        example: int = 0,
        fallback: Callable[[], Window | None] | None = None,
    ) -> None:
        self._place = place
        self._example = example
        self.label = place.label
        self.warnings: list[str] = []
        with in_own_words(place.label, "its header is damaged or incomplete"):
            self.header = header_of.read_header(place)
            _check_is_picture(self.header, place.label)
            self.facts: PixelFacts = pixel_facts(self.header, place)
            self._windows = Windows(self.header, self.facts, choice, place.label)
            self._read_facts()
            self._windows.check()
        self._frames = FrameReader(place, self.header, self.facts)
        if fallback is None and self.facts.frames > 1:
            fallback = cache(partial(shared_window, self.values, self.facts.frames))
        self._fallback = fallback

    def frame(self, frame: int) -> Image.Image:
        """A frame as it is shown: 8-bit RGB, square pixels. Raises InputError."""
        if not 0 <= frame < self.facts.frames:
            raise InputError(f"{self.label} has no frame {frame}", f"it has {self.facts.frames}, counted from 0")
        stored = self._frames.read(frame)
        if self._frames.bits > self.facts.bits:
            self._warn(DEEPER)
        with in_own_words(self.label, "its header does not fit its pixels"):
            image = self._to_srgb(Image.fromarray(self._display(stored, frame)).convert("RGB"))
        if image.size == self.shape.shown_wh:
            return image
        return image.resize(self.shape.shown_wh, Image.Resampling.BICUBIC)

    def values(self, frame: int) -> Array:
        """[values] of a frame after the modality step, evenly taken, without padding. Raises InputError."""
        stored = thinned(self._frames.read(frame))
        with in_own_words(self.label, "its header does not fit its pixels"):
            is_padding = display.is_within(stored, self._padding(stored))
            return header_of.modality_of(self.header, frame).apply(
                stored if is_padding is None else stored[~is_padding]
            )

    def stacks(self) -> list[Series]:
        """Its frames in the order of the body, those apart that differ in direction or spacing.

        Empty where frames have no places of their own. Raises InputError when these cannot be read.
        """
        if "PerFrameFunctionalGroupsSequence" not in self.header:
            return []
        with in_own_words(self.label, "its header is damaged or incomplete"):
            return group(frames_in(self.header, self._place, self.facts.frames))

    def details(self) -> dict[str, Any]:
        """Technical facts only: an allow-list."""
        return self._told | {"window": described(self.used)}

    def _read_facts(self) -> None:
        """Everything that the header tells of all frames; it may raise whatever pydicom raises."""
        header = self.header
        self.shape = self._shape()
        self.used = self._windows.own(0) if self.facts.is_gray else None  # that of the first frame
        spacing = header_of.spacing_of(header, self._example)
        self.mpp = None if spacing is None else self._mpp(spacing)
        self.warnings += notes_of(header, self.facts)
        self._told = {
            "modality": told_modality(header_of.code_of(header, "Modality")),
            "photometric_interpretation": self.facts.photometric or None,
            "transfer_syntax": header_of.known_name(self.facts.syntax),
            "bits_stored": self.facts.bits,
            "frames": self.facts.frames,
            "stored_size": list(self.shape.stored_wh),
            "pixel_spacing_mm": None if spacing is None else list(spacing),  # as the file has it: row, column
            "orientation": plane_of(self._orientation()),
            "window": None,
            "windows": [described(window) for window in header_of.voi_of(header, 0)[1]],
        }

    def _orientation(self) -> Vector | None:
        """The directions of rows and columns."""
        group, keyword = "PlaneOrientationSequence", "ImageOrientationPatient"
        numbers = tuple(map(float, header_of.frame_element(self.header, self._example, group, keyword) or ()))
        return numbers if len(numbers) == 6 and any(numbers) else None

    def _mpp(self, spacing: tuple[float, float]) -> tuple[float, float]:
        """Microns per shown pixel along x and y, from millimetres between rows and between columns."""
        (stored_w, stored_h), (shown_w, shown_h) = self.shape.stored_wh, self.shape.shown_wh
        return 1000 * spacing[1] * stored_w / shown_w, 1000 * spacing[0] * stored_h / shown_h

    def _shape(self) -> Shape:
        width, height = self.facts.columns, self.facts.rows
        tall = header_of.pixel_shape(self.header, self._example)
        if abs(tall - 1) <= SQUARE_WITHIN:
            return Shape((width, height), (width, height))
        shown = (width, round(height * tall)) if tall > 1 else (round(width / tall), height)
        if not 1 / LARGEST_PIXEL_SHAPE <= tall <= LARGEST_PIXEL_SHAPE or shown[0] * shown[1] > MAX_FRAME_PIXELS:
            self.warnings.append(
                "the pixels are not square, by an amount that cannot be right: they are shown as they are stored"
            )
            return Shape((width, height), (width, height))
        self.warnings.append(
            f"the pixels are not square: {width} x {height} are shown, and boxes given, as {shown[0]} x {shown[1]}"
        )
        return Shape((width, height), shown)

    def _display(self, stored: Array, frame: int) -> Array:
        """The frame as uint8, [rows, columns] or [rows, columns, 3]."""
        photometric = self.facts.photometric
        if photometric == "PALETTE COLOR":
            return self._palette(stored)
        if stored.ndim == 3:
            if photometric.startswith("YBR_PARTIAL") and not self.facts.is_compressed:  # codecs give RGB
                stored = display.partial_ybr_to_rgb(stored)
            return display.colour_to_8_bit(stored, self._frames.bits)
        ways = self._ways(stored, frame)
        self.used = ways[0].voi
        shown = ways[0].levels(stored) if len(ways) == 1 else np.stack([way.levels(stored) for way in ways], axis=-1)
        if shown.min() == shown.max() and stored.min() != stored.max():
            self._warn(ONE_GREY)
        elif origin_of(self.used) in MEANT_FOR_ALL and 0 < np.ptp(shown) <= FLAT_WITHIN:
            self._warn(FLAT)
        return shown

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def _palette(self, stored: Array) -> Array:
        tables = header_of.palette_tables(self.header)
        if tables:
            return display.palette_to_8_bit(stored, tables)
        colour = apply_color_lut(stored, self.header)[..., :3]
        return colour if colour.dtype == np.uint8 else (colour >> 8).astype(np.uint8)

    def _ways(self, stored: Array, frame: int) -> list[GrayWay]:
        """One way from stored values to grey, or three that make red, green and blue."""
        modality = header_of.modality_of(self.header, frame)
        padding = self._padding(stored)
        is_inverted = (
            self.facts.photometric == "MONOCHROME1"
            or header_of.code_of(self.header, "PresentationLUTShape") == "INVERSE"
        )
        vois = self._windows.chosen(frame) or [self._own(stored, frame, padding)]
        return [GrayWay(modality, voi, is_inverted, None if is_own(voi) else padding) for voi in vois]

    def _own(self, stored: Array, frame: int, padding: tuple[float, float] | None) -> Voi:
        """What the file gives, else what is usual for its kind, else what is measured."""
        if own := self._windows.own(frame):
            return own
        if usual := self._windows.usual(frame, self._frames.bits):
            if header_of.names_window(self.header, frame):
                self._warn(ODD_WINDOW[usual.origin])
            return usual
        self._warn(NO_WINDOW)
        shared = self._fallback and self._fallback()
        if shared:
            return shared
        values = header_of.modality_of(self.header, frame).apply(stored)
        return display.percentile_window(values, display.is_within(stored, padding))

    def _padding(self, stored: Array) -> tuple[float, float] | None:
        return display.padding_range(stored.dtype, *header_of.padding_of(self.header))

    @cached_property
    def _to_srgb(self) -> ToSrgb:
        is_needless = self.facts.is_gray or header_of.code_of(self.header, "ColorSpace") == "SRGB"
        found = ToSrgb(None if is_needless else self.header.get("ICCProfile"))
        for sentence in found.warnings:
            self._warn(sentence)
        return found


def _check_is_picture(header: Dataset, label: str) -> None:
    keyword = next((word for word in PIXEL_KEYWORDS if word in header), None)
    modality = header_of.code_of(header, "Modality")
    sop_class = header.get("SOPClassUID")
    if not (sop_class or keyword):
        why = "it is cut short, or no image" if getattr(header, "file_meta", None) else "it is not a DICOM file"
        raise InputError(f"cannot read {label}: {why}", COPY_HINT)
    if keyword is None or header_of.is_overlay_of_others(sop_class, modality):
        told = told_modality(modality)
        unknown = f"a DICOM object of an unknown kind{f', modality {told}' if told else ''}"
        kind = header_of.known_name(sop_class) or unknown
        if keyword is None and kind.endswith("Image Storage"):
            raise InputError(f"cannot read {label}: it ends before its pixels, or has lost them", COPY_HINT)
        raise InputError(
            f"cannot show {label}: it holds no picture (it is: {kind})", "give the image that it refers to"
        )
