"""One DICOM file as a source: each frame decoded by pydicom's plug-ins and shown as a viewer would show it.

``dicom_header`` says what the file wants, ``dicom_display`` does the arithmetic, this module joins them, one frame
at a time. No value that could identify a patient leaves it: ``details`` is an allow-list, and errors are in our own
words because pydicom's may quote an element. Non-goals: series, presentation states, whole slides (``slide``).
"""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, get_decoder, pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit

from dragonfly_cli.errors import InputError
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers import dicom_display as display
from dragonfly_cli.readers import dicom_header as header_of
from dragonfly_cli.readers.dicom_display import Array, LookupTable, Window
from dragonfly_cli.readers.dicom_jpeg import natural_rgb
from dragonfly_cli.readers.raster import check_pixel_count, crop
from dragonfly_cli.readers.source import MppSource, SourceKind

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
NOT_PICTURES = ("Segmentation Storage", "Label Map Segmentation Storage")
COPY_HINT = "copy or export the file again"
CONVERT_HINT = "convert it to Explicit VR Little Endian, for example with `gdcmconv --raw IN OUT`"
EXTENDED_JPEG = "1.2.840.10008.1.2.4.51"
JPEG_2000 = "JPEG 2000 needs OpenJPEG: pip install pylibjpeg pylibjpeg-openjpeg"
CODECS = {
    EXTENDED_JPEG: '12-bit JPEG Extended needs pylibjpeg-libjpeg (GPL): pip install "dragonfly-cli[gpl]"',
    "1.2.840.10008.1.2.4.57": "JPEG Lossless needs GDCM: pip install python-gdcm",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless needs GDCM: pip install python-gdcm",
    "1.2.840.10008.1.2.4.80": "JPEG-LS needs CharLS: pip install pyjpegls",
    "1.2.840.10008.1.2.4.81": "JPEG-LS needs CharLS: pip install pyjpegls",
    "1.2.840.10008.1.2.4.90": JPEG_2000,
    "1.2.840.10008.1.2.4.91": JPEG_2000,
    "1.2.840.10008.1.2.4.201": "High-Throughput " + JPEG_2000,
    "1.2.840.10008.1.2.4.202": "High-Throughput " + JPEG_2000,
    "1.2.840.10008.1.2.4.203": "High-Throughput " + JPEG_2000,
}
READ_ERRORS = (  # what pydicom and its plug-ins raise for files of all kinds of brokenness
    AttributeError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OSError,
    EOFError,
    RuntimeError,  # with NotImplementedError and RecursionError
    OverflowError,
    ZeroDivisionError,
    AssertionError,
    InvalidDicomError,
    struct.error,
    zlib.error,
)


class DicomSource:
    """A single- or multi-frame DICOM image; ``size_wh`` is (Columns, Rows). The frame shown last is kept."""

    kind: SourceKind = "dicom"
    format = "DICOM"

    def __init__(self, path: Path, options: OpenOptions) -> None:
        self.path = path
        self.warnings: list[str] = []
        self._shown: tuple[int, Image.Image] | None = None
        self._used: Window | LookupTable | None = None
        with header_of.quiet_pydicom():
            try:
                self._header = header_of.read_header(path)
                self._check_is_picture()
                self._read_facts(options.slide_mpp)
            except READ_ERRORS:
                raise InputError(
                    f"cannot read the DICOM file {path}: its header is damaged or incomplete", COPY_HINT
                ) from None
        check_pixel_count(path, self.size_wh)

    def view(self, box: Box, frame: int = 0) -> Image.Image:
        """The part ``box`` of ``frame`` as an 8-bit RGB image. Raises InputError if it cannot be decoded."""
        if not 0 <= frame < self.frames:
            raise InputError(f"{self.path} has no frame {frame}", f"it has {self.frames}, counted from 0")
        if self._shown is None or self._shown[0] != frame:
            self._shown = frame, self._render(frame)
        return crop(self._shown[1], box)

    def details(self) -> dict[str, Any]:
        """Technical facts only. ``window`` is the one used last, or before any view the one that will be."""
        mpp = self.mpp if self.mpp_source == "file" else None
        return {
            "modality": header_of.code_of(self._header, "Modality"),
            "photometric_interpretation": header_of.code_of(self._header, "PhotometricInterpretation"),
            "transfer_syntax": header_of.known_name(self._syntax),
            "bits_stored": self._bits,
            "frames": self.frames,
            "pixel_spacing_mm": [mpp[1] / 1000, mpp[0] / 1000] if mpp else None,  # as the file has it: row, column
            "window": _described(self._used),
        }

    def close(self) -> None:
        self._shown = None

    def _check_is_picture(self) -> None:
        name = header_of.known_name(self._header.get("SOPClassUID")) or "DICOM object of an unknown kind"
        keyword = next((word for word in PIXEL_KEYWORDS if word in self._header), None)
        if not len(self._header):
            raise InputError(f"cannot read {self.path}: it is not a DICOM file", COPY_HINT)
        if name in NOT_PICTURES or keyword is None:
            raise InputError(
                f"cannot show {self.path}: it holds no picture (it is: {name})",
                "give the image that it refers to",
            )
        if header_of.is_empty(self._header, keyword):
            raise InputError(f"cannot show {self.path}: its pixel data is empty", COPY_HINT)

    def _read_facts(self, slide_mpp: float | None) -> None:
        header = self._header
        self._syntax = header_of.syntax_of(header)
        self._bits = int(header.get("BitsStored") or header.BitsAllocated)
        self.size_wh: tuple[int, int] = (int(header.Columns), int(header.Rows))
        self.frames = max(1, int(header.get("NumberOfFrames") or 1))
        self.mpp = (slide_mpp, slide_mpp) if slide_mpp else header_of.mpp_of(header)
        self.mpp_source: MppSource = "option" if slide_mpp else "file" if self.mpp else "none"
        if header_of.code_of(header, "PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2"):
            self._used = header_of.voi_table(header, 0) or header_of.window_of(header, 0)
        if str(header.get("BurnedInAnnotation", "")).upper() == "YES":
            self.warnings.append("the file says that text is burned into its pixels: it may name the patient")

    def _render(self, frame: int) -> Image.Image:
        with header_of.quiet_pydicom():
            try:
                stored = self._decode(frame)
                shown = self._display(stored, frame)
            except MemoryError:
                raise InputError(f"cannot decode {self.path}: out of memory", "close other programs") from None
            except READ_ERRORS:
                raise self._undecodable() from None
        return Image.fromarray(shown).convert("RGB")

    def _decode(self, frame: int) -> Array:
        """[rows, columns] or [rows, columns, 3] of stored values in the machine's byte order."""
        is_by_path = header_of.has_syntax(self._header) and self._syntax != DeflatedExplicitVRLittleEndian
        source: Path | Dataset = self.path if is_by_path else header_of.with_syntax(self._header)
        if self._syntax == JPEGBaseline8Bit and self._header.SamplesPerPixel == 3:
            stream = get_frame(self._header.PixelData, frame, number_of_frames=self.frames)
            return natural_rgb(stream, self._header.PhotometricInterpretation == "RGB")
        stored = pixel_array(source, index=frame)
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)

    def _display(self, stored: Array, frame: int) -> Array:
        """The frame as uint8, [rows, columns] or [rows, columns, 3]."""
        photometric = self._header.PhotometricInterpretation
        if photometric == "PALETTE COLOR":
            return self._palette(stored)
        if stored.ndim == 3:
            return display.color_to_8_bit(stored, self._bits)
        return display.gray_to_8_bit(self._gray(stored, frame), inverted=photometric == "MONOCHROME1")

    def _palette(self, stored: Array) -> Array:
        tables = header_of.palette_tables(self._header)
        if tables:
            return display.palette_to_8_bit(stored, tables)
        color = apply_color_lut(stored, self._header)[..., :3]
        return color if color.dtype == np.uint8 else (color >> 8).astype(np.uint8)

    def _gray(self, stored: Array, frame: int) -> Array:
        """Grey from 0 to 1, before the inversion of MONOCHROME1."""
        values = self._modality_values(stored, frame)
        table = header_of.voi_table(self._header, frame)
        if table is not None:
            self._used = table
            return table.apply_signed(values) / np.float32(table.top)
        window = header_of.window_of(self._header, frame) or self._fallback_window(stored, values, frame)
        self._used = window
        return display.apply_window(values, window)

    def _modality_values(self, stored: Array, frame: int) -> Array:
        table = header_of.modality_table(self._header)
        if table is not None:
            return table.apply_signed(stored)
        slope_intercept = header_of.rescale_of(self._header, frame)
        return display.rescale(stored, *slope_intercept) if slope_intercept else stored

    def _fallback_window(self, stored: Array, values: Array, frame: int) -> Window:
        # Without a rescale the values of a CT are not known to be Hounsfield units.
        if self._header.get("Modality") == "CT" and header_of.rescale_of(self._header, frame):
            return display.CT_DEFAULT
        self._warn_once("the file gives no window: the middle 99 % of the pixel values are shown")
        padding = display.padding_mask(stored, *header_of.padding_of(self._header))
        return display.percentile_window(values, padding)

    def _warn_once(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def _undecodable(self) -> InputError:
        name = header_of.known_name(self._syntax) or "an unknown transfer syntax"
        try:
            is_known = get_decoder(self._syntax).is_available
        except NotImplementedError:
            is_known = False
        # GDCM and Pillow count as decoders of JPEG Extended, but of its 8-bit form only.
        if self._syntax in CODECS and (not is_known or (self._syntax == EXTENDED_JPEG and self._bits > 8)):
            return InputError(f"cannot decode {self.path}: no decoder for {name}", CODECS[self._syntax])
        if not is_known:
            return InputError(f"cannot decode {self.path}: {name} is not supported", CONVERT_HINT)
        return InputError(f"cannot decode {self.path}: its pixel data ({name}) is damaged or incomplete", COPY_HINT)


def _described(used: Window | LookupTable | None) -> dict[str, Any] | None:
    if isinstance(used, Window):
        return {"center": used.center, "width": used.width, "function": used.function, "origin": used.origin}
    return {"origin": "voi lut", "entries": len(used.entries)} if used else None
