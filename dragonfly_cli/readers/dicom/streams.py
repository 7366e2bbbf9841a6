"""The compressed bytes of one frame, out of encapsulated pixel data (PS3.5 annex A.4)."""

import struct
from contextlib import suppress
from io import BytesIO
from itertools import pairwise
from typing import BinaryIO

from pydicom.encaps import get_frame, parse_basic_offsets

_ITEM = b"\xfe\xff\x00\xe0"
_EMPTY_TABLE = _ITEM + bytes(4)


def frame_stream(pixels: BinaryIO, frame: int, frames: int, extended: tuple[bytes, bytes] | None) -> bytes:
    """The stream of ``frame`` of ``frames``; ``pixels`` stands at the first item, ``extended`` are its offset tables.

    A table that cannot be right, of zeros for example, would give one frame for another: it is passed over, and the
    fragments themselves tell where frames begin. Raises what pydicom raises where they do not.
    """
    start = pixels.tell()
    offsets = parse_basic_offsets(pixels)
    if extended:
        first, (starts, lengths) = pixels.tell(), map(_numbers, extended)
        if _may_be_right(starts, frames) and len(lengths) >= frames:
            stream = _item_at(pixels, first + starts[frame], lengths[frame])
            if stream is not None:
                return stream
        pixels.seek(first)
    if offsets and not _may_be_right(offsets, frames):
        return get_frame(BytesIO(_EMPTY_TABLE + pixels.read()), frame, number_of_frames=frames)
    pixels.seek(start)
    return get_frame(pixels, frame, number_of_frames=frames)


def _item_at(pixels: BinaryIO, place: int, length: int) -> bytes | None:
    """What the item at ``place`` holds, if there is one of this length, or of one byte of padding more."""
    with suppress(OSError, ValueError, OverflowError, struct.error):  # a place beyond every file
        pixels.seek(place)
        tag, padded = struct.unpack("<4sI", pixels.read(8))
        if tag == _ITEM and padded - length in (0, 1):
            return pixels.read(length)
    return None


def _numbers(table: bytes) -> list[int]:
    """The 64-bit numbers of an extended table."""
    count = len(table) // 8
    return list(struct.unpack_from(f"<{count}Q", table))


def _may_be_right(offsets: list[int], frames: int) -> bool:
    return len(offsets) >= frames and offsets[0] == 0 and all(a < b for a, b in pairwise(offsets))
