"""The stored values of one frame, whatever its transfer syntax: checks before memory is taken, then pydicom's plug-ins.

Only the frame that is asked for is read. Odd bit allocations are unpacked here, colour JPEG is left to ``jpeg``.
Everything that a broken file can make a decoder raise leaves as an InputError in our own words, because pydicom's may
quote an element. Non-goals: what the values look like (``display``).
"""

import contextlib
import math
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    UncompressedTransferSyntaxes,
)

from dragonfly_cli.errors import InputError
from dragonfly_cli.readers.dicom import header as header_of
from dragonfly_cli.readers.dicom import jpeg, jpeg_plugin
from dragonfly_cli.readers.dicom.display import Array
from dragonfly_cli.readers.dicom.failures import COPY_HINT, READ_ERRORS, quiet_pydicom
from dragonfly_cli.readers.dicom.places import Place
from dragonfly_cli.readers.dicom.streams import frame_stream
from dragonfly_cli.readers.dicom.terms import photometric

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
MAX_FRAME_PIXELS = 250_000_000  # 500 MB of 16 bits; the largest films and photographs have a tenth of it
_YBR = ("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT")
PHOTOMETRIC_OF = {1: ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"), 3: ("RGB", *_YBR)}  # by samples a pixel
FRAGMENT_BYTES = 8  # the smallest that a frame can take in encapsulated pixel data
CONVERT_HINT = "convert it to Explicit VR Little Endian, for example with `gdcmconv --raw IN OUT`"
_IMAGECODECS = "needs libjpeg-turbo: pip install imagecodecs"
_CHARLS = "JPEG-LS needs CharLS: pip install pyjpegls"
_OPENJPEG = "JPEG 2000 needs OpenJPEG: pip install pylibjpeg pylibjpeg-openjpeg"
CODECS = {  # what to install for the compressed transfer syntaxes that pydicom does not read by itself
    "1.2.840.10008.1.2.4.50": "JPEG Baseline needs Pillow: pip install pillow",
    "1.2.840.10008.1.2.4.51": f"12-bit JPEG Extended {_IMAGECODECS}",
    "1.2.840.10008.1.2.4.57": f"JPEG Lossless {_IMAGECODECS}",
    "1.2.840.10008.1.2.4.70": f"JPEG Lossless {_IMAGECODECS}",
    "1.2.840.10008.1.2.4.80": _CHARLS,
    "1.2.840.10008.1.2.4.81": _CHARLS,
    "1.2.840.10008.1.2.4.90": _OPENJPEG,
    "1.2.840.10008.1.2.4.91": _OPENJPEG,
    "1.2.840.10008.1.2.4.201": "High-Throughput " + _OPENJPEG,
    "1.2.840.10008.1.2.4.202": "High-Throughput " + _OPENJPEG,
    "1.2.840.10008.1.2.4.203": "High-Throughput " + _OPENJPEG,
    "1.2.840.10008.1.2.5": "RLE needs pylibjpeg: pip install pylibjpeg pylibjpeg-rle",
}
# Their values may stray beyond the bits stored, where those of all other syntaxes have old overlays, or nothing.
LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K)
DEEPEST_BITS = {JPEGExtended12Bit: 12}  # GDCM and Pillow count as decoders of its 8-bit form
PLUGINS = (jpeg_plugin.NAME, "pylibjpeg", "pyjpegls", "pydicom", "pillow")  # in the order in which they are tried

_stderr_lock = threading.Lock()
jpeg_plugin.register()


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """Hold back what C libraries (OpenJPEG, GDCM) print to the process's stderr about a broken stream."""
    with _stderr_lock:
        try:
            sys.stderr.flush()
            kept = os.dup(2)
        except (OSError, AttributeError):  # there is no stderr that could be written to
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


@dataclass(frozen=True)
class PixelFacts:
    """The shape of a data set's pixels as its header declares it; ``bits`` are those stored, ``allocated`` those taken.

    ``offset`` is where the value of the pixel data begins in the file, None where that is not known (deflated).
    """

    keyword: str
    rows: int
    columns: int
    samples: int
    frames: int
    allocated: int
    bits: int
    spare_low_bits: int  # of older files, which may keep their value in the upper bits of a word
    photometric: str  # "" in old files, which may leave it out
    syntax: UID
    length: int  # bytes of the element; 2**32 - 1 when undefined
    offset: int | None

    @property
    def is_gray(self) -> bool:
        """Whether a sample is a grey value."""
        return self.samples == 1 and self.photometric != "PALETTE COLOR"

    @property
    def assumed_photometric(self) -> str:
        """What is said, or meant where nothing is."""
        return self.photometric or ("MONOCHROME2" if self.samples == 1 else "RGB")

    @property
    def is_compressed(self) -> bool:
        """Whether frames are encapsulated; so are those of transfer syntaxes that nobody here knows."""
        return self.syntax not in UncompressedTransferSyntaxes

    @property
    def room(self) -> int:
        """How many frames uncompressed pixel data holds, whatever the header declares."""
        return self.frames if self.is_compressed else 8 * self.length // self.frame_bits

    @property
    def frame_bits(self) -> int:
        """Bits of one uncompressed frame."""
        samples = 2 if self.photometric == "YBR_FULL_422" and self.samples == 3 else self.samples
        return self.rows * self.columns * samples * self.allocated


def pixel_facts(header: Dataset, label: str) -> PixelFacts:
    """What the header declares; raises InputError for what cannot be, or would not fit memory."""
    keyword = next(word for word in PIXEL_KEYWORDS if word in header)
    element: Any = header.get_item(keyword)
    is_raw = getattr(element, "is_raw", False)
    length = element.length if is_raw else len(element.value or b"")
    default_bits = {"PixelData": 0, "FloatPixelData": 32, "DoubleFloatPixelData": 64}[keyword]
    allocated = int(header.get("BitsAllocated") or default_bits)
    bits = min(int(header.get("BitsStored") or allocated), allocated)
    high_bit = min(int(header.get("HighBit") or bits - 1), allocated - 1)
    frames = header.get("NumberOfFrames")
    facts = PixelFacts(
        keyword=keyword,
        rows=int(header.Rows),
        columns=int(header.Columns),
        samples=int(header.get("SamplesPerPixel") or 1),
        frames=1 if frames is None or frames == "" else int(frames),
        allocated=allocated,
        bits=bits,
        spare_low_bits=max(0, high_bit + 1 - bits) if keyword == "PixelData" else 0,
        photometric=photometric(str(header.get("PhotometricInterpretation") or "")),
        syntax=header_of.syntax_of(header),
        length=length,
        offset=element.value_tell if is_raw and header_of.has_place(header) else None,
    )
    _check_facts(facts, label)
    return facts


def _check_facts(facts: PixelFacts, label: str) -> None:
    shape = f"{facts.columns} x {facts.rows} pixels, {facts.frames} frames of {facts.samples} x {facts.allocated} bits"
    if facts.length == 0:
        raise InputError(f"cannot show {label}: its pixel data is empty", COPY_HINT)
    if min(facts.rows, facts.columns, facts.frames, facts.allocated) < 1 or facts.samples not in (1, 3):
        raise InputError(f"cannot show {label}: its header declares {shape}", COPY_HINT)
    if facts.assumed_photometric not in PHOTOMETRIC_OF[facts.samples]:
        samples = f"{facts.samples} sample{'s' * (facts.samples > 1)} a pixel"
        why = f"its photometric interpretation ({facts.photometric}) is none that is known for {samples}"
        raise InputError(f"cannot show {label}: {why}", CONVERT_HINT)
    if facts.rows * facts.columns > MAX_FRAME_PIXELS:
        raise InputError(
            f"cannot show {label}: it declares {shape}, more than {MAX_FRAME_PIXELS // 10**6} million pixels a frame",
            "a whole slide must be a slide file; otherwise the header is damaged",
        )
    wanted = facts.frames * FRAGMENT_BYTES if facts.is_compressed else math.ceil(facts.frames * facts.frame_bits / 8)
    if facts.length < wanted:
        raise InputError(f"cannot show {label}: it declares {shape}, but its pixel data is cut short", COPY_HINT)


class FrameReader:
    """The stored values of the frames of one data set, read one at a time."""

    def __init__(self, place: Place, header: Dataset, facts: PixelFacts) -> None:
        self._place = place
        self._header = header
        self._facts = facts

    def read(self, frame: int) -> Array:
        """[rows, columns] or [rows, columns, 3] (RGB) in the machine's byte order. Raises InputError."""
        with quiet_pydicom():
            try:
                if self._facts.is_compressed:
                    with quiet_decoders():
                        stored = self._decode(frame)
                else:
                    stored = self._read_native(frame)
            except MemoryError:
                raise InputError(f"cannot decode {self._place.label}: out of memory", "close other programs") from None
            except READ_ERRORS:
                raise self._undecodable() from None
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)

    def _decode(self, frame: int) -> Array:
        """A compressed frame."""
        facts = self._facts
        stream = self._stream(frame)
        self._check_stream(stream)
        is_8_bit_jpeg = facts.syntax in (JPEGBaseline8Bit, JPEGExtended12Bit) and jpeg.precision(stream) == 8
        if is_8_bit_jpeg and facts.samples == 3:
            return jpeg.natural_rgb(stream, facts.photometric == "RGB")
        one = header_of.pixel_elements(self._header)
        one.NumberOfFrames = 1
        one.PhotometricInterpretation = facts.assumed_photometric
        if facts.samples > 1:
            one.PlanarConfiguration = (
                0  # whatever stands there: codecs give colour by pixel, and RLE says that it does not
            )
        one.PixelData = encapsulate([stream])
        one["PixelData"].VR = "OB"
        is_doubtful = facts.photometric.startswith("YBR_FULL") and self._has_own_colors(stream)
        if is_doubtful:
            one.PhotometricInterpretation = "RGB"
        stored = _decoded(one, facts.syntax)
        if is_doubtful and stored.dtype == np.uint8:
            return jpeg.rgb_by_look(stored)
        return stored if facts.syntax in LOSSY else _without_unused_bits(stored, facts)

    def _has_own_colors(self, stream: bytes) -> bool:
        return self._facts.syntax in JPEG2000TransferSyntaxes and jpeg.has_own_colors(stream)

    def _stream(self, frame: int) -> bytes:
        """The compressed bytes of one frame."""
        header, facts = self._header, self._facts
        tables = header.get("ExtendedOffsetTable"), header.get("ExtendedOffsetTableLengths")
        extended = tables if all(tables) else None
        if facts.offset is None:
            return frame_stream(BytesIO(header.PixelData), frame, facts.frames, extended)
        with self._place.opener() as file:
            file.seek(facts.offset)
            return frame_stream(file, frame, facts.frames, extended)

    def _check_stream(self, stream: bytes) -> None:
        """Raises ValueError when the codec's own header speaks of another size or depth, or a JPEG has no end."""
        facts = self._facts
        if facts.syntax not in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes):
            return
        if jpeg.size_of(stream) not in (None, (facts.columns, facts.rows)):
            raise ValueError("the codec's size is not that of the header")
        if (jpeg.precision(stream) or 0) > facts.allocated:
            raise ValueError("the codec has more bits than the header has room for")
        if facts.syntax in jpeg_plugin.SYNTAXES and not jpeg.has_end(stream):
            raise ValueError("the stream is cut short, which libjpeg would fill with grey")

    def _read_native(self, frame: int) -> Array:
        """An uncompressed frame."""
        header, facts = self._header, self._facts
        if facts.keyword == "PixelData" and facts.allocated % 8:
            return self._unpacked(frame)
        how: dict[str, Any] = {"index": frame, "correct_unused_bits": False}
        if facts.offset is None or not header_of.is_complete(header, facts.assumed_photometric):
            stored = pixel_array(header_of.completed(header, facts.assumed_photometric), **how)
        else:
            with self._place.opener() as file:
                stored = pixel_array(file, **how)
        return _without_unused_bits(stored, facts) if facts.keyword == "PixelData" else stored

    def _unpacked(self, frame: int) -> Array:
        """Samples that are packed without regard to bytes, lowest bit first (PS3.5, 8.1.1 and annex D)."""
        facts = self._facts
        if facts.samples != 1 or facts.allocated > 31:
            raise NotImplementedError("packed colour")
        count = facts.rows * facts.columns
        start, stop = frame * count * facts.allocated, (frame + 1) * count * facts.allocated
        packed = np.frombuffer(self._native_bytes(start // 8, math.ceil(stop / 8)), np.uint8)
        bits = np.unpackbits(packed, bitorder="little")[start % 8 :][: count * facts.allocated]
        bits = bits.reshape(count, facts.allocated)[:, facts.spare_low_bits :][:, : facts.bits]
        values: Array = np.zeros(count, np.int32)
        for place in range(facts.bits):
            values |= bits[:, place].astype(np.int32) << place
        if self._header.get("PixelRepresentation") == 1:
            values = values << (32 - facts.bits) >> (32 - facts.bits)
        return values.reshape(facts.rows, facts.columns)

    def _native_bytes(self, start: int, stop: int) -> bytes:
        if self._facts.offset is None:
            return self._header.PixelData[start:stop]
        with self._place.opener() as file:
            file.seek(self._facts.offset + start)
            return file.read(stop - start)

    def _undecodable(self) -> InputError:
        label, syntax = self._place.label, self._facts.syntax
        is_standard = syntax.startswith("1.2.840.10008.") and syntax.is_valid
        name = header_of.known_name(syntax) or (
            f"transfer syntax {syntax}" if is_standard else "a private transfer syntax"
        )
        if not can_decode(syntax, self._facts.bits):
            if syntax in CODECS:
                return InputError(f"cannot decode {label}: no decoder for {name} is installed", CODECS[syntax])
            return InputError(f"cannot decode {label}: {name} is not supported", CONVERT_HINT)
        return InputError(f"cannot decode {label}: its pixel data ({name}) is damaged or incomplete", COPY_HINT)


def _without_unused_bits(stored: Array, facts: PixelFacts) -> Array:
    """The values of words that are wider than what is stored in them; shifts fill up with the sign.

    Where no word has anything above its lower ``bits``, a high bit above those in the header is a mistake.
    """
    above = 8 * stored.itemsize - facts.bits
    if above <= 0:
        return stored
    low = stored << above >> above
    if not facts.spare_low_bits or np.array_equal(low, stored):
        return low
    return stored << max(0, above - facts.spare_low_bits) >> above


def _decoded(one: Dataset, syntax: UID) -> Array:
    """The only frame of ``one``, by the first plug-in that can; raises what the last of them raises.

    GDCM is used only where there is no other: when a stream breaks its rules it may end the process.
    """
    decoder = get_decoder(syntax)
    how: dict[str, Any] = {"index": 0, "correct_unused_bits": False}
    plugins = [name for name in PLUGINS if name in decoder.available_plugins] or [""]
    for plugin in plugins[:-1]:
        with contextlib.suppress(*READ_ERRORS), _panics_as_errors():
            return decoder.as_array(one, decoding_plugin=plugin, **how)[0]
    with _panics_as_errors():
        return decoder.as_array(one, decoding_plugin=plugins[-1], **how)[0]


@contextlib.contextmanager
def _panics_as_errors() -> Iterator[None]:
    """pylibjpeg-rle is written in Rust, whose panics are no Exception and would end a whole run."""
    try:
        yield
    except BaseException as error:
        if type(error).__module__ == "pyo3_runtime":
            raise ValueError("the decoder panicked") from None
        raise


def can_decode(syntax: UID, bits: int = 8) -> bool:
    """Whether what is installed decodes ``bits`` of a transfer syntax."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return False
    is_deep_enough = bits <= 8 or syntax not in DEEPEST_BITS
    return decoder.is_available and (
        is_deep_enough or bool({jpeg_plugin.NAME, "pylibjpeg"} & set(decoder.available_plugins))
    )
