"""The stored values of one frame, whatever its transfer syntax.

Only the frame that is asked for is read. Packed bits are unpacked here; colour JPEG is left to ``jpeg``, every other
compressed frame to ``codecs``. Whatever a broken file makes a decoder raise leaves as an InputError in our own words,
because pydicom's may quote an element. Non-goals: what the values look like (``display``).
"""

import math
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from dragonfly_cli.errors import InputError
from dragonfly_cli.readers.dicom import header as header_of
from dragonfly_cli.readers.dicom import jpeg, jpeg_plugin
from dragonfly_cli.readers.dicom.codecs import decoded_frame, quiet_decoders, refuse_rle_surplus, undecodable
from dragonfly_cli.readers.dicom.display import Array
from dragonfly_cli.readers.dicom.failures import READ_ERRORS, quiet_pydicom
from dragonfly_cli.readers.dicom.pixel_facts import PixelFacts
from dragonfly_cli.readers.dicom.places import Place
from dragonfly_cli.readers.dicom.streams import frame_stream
from dragonfly_cli.readers.jpeg_damage import is_damaged

# Their values may stray beyond the bits stored, where those of all other syntaxes have old overlays, or nothing.
LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K)

_DCT = (JPEGBaseline8Bit, JPEGExtended12Bit)
_WORD_BITS = 16

# libjpeg would fill what is missing with grey, and CharLS, which refuses it too, may take seconds to notice.
_NEEDING_AN_END = (*jpeg_plugin.SYNTAXES, *JPEGLSTransferSyntaxes)


class FrameReader:
    """The stored values of the frames of one data set, read one at a time; ``bits`` are those of the last one."""

    def __init__(self, place: Place, header: Dataset, facts: PixelFacts) -> None:
        self.bits = facts.bits
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
                raise undecodable(self._place.label, self._facts.syntax, self._facts.bits) from None
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)

    def _decode(self, frame: int) -> Array:
        """A compressed frame."""
        facts = self._facts
        stream = self._stream(frame)
        self._check_stream(stream)
        is_8_bit_jpeg = facts.syntax in _DCT and jpeg.precision(stream) == 8
        if is_8_bit_jpeg and facts.samples == 3:
            return jpeg.natural_rgb(stream, facts.photometric == "RGB")
        one = header_of.pixel_elements(self._header)
        one.NumberOfFrames = 1
        one.PhotometricInterpretation = facts.assumed_photometric
        if facts.samples > 1:
            one.PlanarConfiguration = 0  # codecs give colour by pixel, and that of RLE says where it does not
        one.PixelData = encapsulate([jpeg.without_jfif(stream)])
        one["PixelData"].VR = "OB"
        is_doubtful = facts.photometric.startswith("YBR_FULL") and self._has_own_colours(stream)
        if is_doubtful:
            one.PhotometricInterpretation = "RGB"
        stored = decoded_frame(one, facts.syntax)
        if is_doubtful and stored.dtype == np.uint8:
            return jpeg.rgb_by_look(stored)
        if facts.syntax in LOSSY:
            return stored
        precision = None if facts.syntax == RLELossless else jpeg.precision(stream)
        self.bits = _bits_needed(stored, facts, precision or 0)
        true_facts = facts if self.bits == facts.bits else replace(facts, bits=self.bits, spare_low_bits=0)
        return _without_unused_bits(stored, true_facts)

    def _has_own_colours(self, stream: bytes) -> bool:
        return self._facts.syntax in JPEG2000TransferSyntaxes and jpeg.has_own_colours(stream)

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
        """Raises ValueError when the codec's own header speaks of another size or depth, or a JPEG has lost data."""
        facts = self._facts
        if facts.syntax == RLELossless:
            refuse_rle_surplus(stream, facts.rows * facts.columns)
        if facts.syntax not in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes):
            return
        if jpeg.size_of(stream) not in (None, (facts.columns, facts.rows)):
            raise ValueError("the codec's size is not that of the header")
        if (jpeg.precision(stream) or 0) > facts.allocated:
            raise ValueError("the codec has more bits than the header has room for")
        if facts.syntax in _NEEDING_AN_END and not jpeg.has_end(stream):
            raise ValueError("the stream is cut short")
        if facts.syntax in _DCT and is_damaged(stream):
            raise ValueError("the stream has lost data in its middle")

    def _read_native(self, frame: int) -> Array:
        """An uncompressed frame."""
        header, facts = self._header, self._facts
        if facts.keyword == "PixelData" and facts.allocated % 8:
            return self._unpacked(frame)
        how: dict[str, Any] = {"index": frame, "correct_unused_bits": False}
        if facts.is_whole_422:
            return jpeg.rgb_by_look(pixel_array(header_of.completed(header, "RGB"), **how))
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
        if header_of.is_signed(self._header):
            values = values << (32 - facts.bits) >> (32 - facts.bits)
        return values.reshape(facts.rows, facts.columns)

    def _native_bytes(self, start: int, stop: int) -> bytes:
        if self._facts.offset is None:
            return self._header.PixelData[start:stop]
        with self._place.opener() as file:
            file.seek(self._facts.offset + start)
            return file.read(stop - start)


def _bits_needed(stored: Array, facts: PixelFacts, precision: int) -> int:
    """How many bits the values have: those of the stream where some do not fit into those that the header declares.

    Cut to these, what is brightest would wrap round to dark. A stream of 16 bits may hold whole words, with old
    overlays above the values, and is no witness.
    """
    declared = facts.bits + facts.spare_low_bits
    if not declared < precision < _WORD_BITS:
        return facts.bits
    values = stored.astype(np.int32) & (2**precision - 1)
    as_signed = values + 2 ** (declared - 1) & (2**precision - 1)
    fits = values.max() < 2**declared or (stored.dtype.kind == "i" and as_signed.max() < 2**declared)
    return facts.bits if fits else precision


def _without_unused_bits(stored: Array, facts: PixelFacts) -> Array:
    """The values of words that are wider than what is stored in them; shifts fill up with the sign.

    A high bit above those in the header is a mistake where no word has anything above its lower ``bits``, and some word
    has something in those below the value; of a dark frame only the former holds.
    """
    above = 8 * stored.itemsize - facts.bits
    if above <= 0:
        return stored
    low = stored << above >> above
    is_below = facts.spare_low_bits and (stored & (2**facts.spare_low_bits - 1)).any()
    if not facts.spare_low_bits or (is_below and np.array_equal(low, stored)):
        return low
    return stored << max(0, above - facts.spare_low_bits) >> above
