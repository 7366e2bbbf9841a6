"""The compressed bytes of one frame, out of encapsulated pixel data (PS3.5 annex A.4)."""

from io import BytesIO
from itertools import pairwise
from typing import Any, BinaryIO

from pydicom.encaps import get_frame, parse_basic_offsets

_EMPTY_TABLE = b"\xfe\xff\x00\xe0\0\0\0\0"


def frame_stream(pixels: BinaryIO, frame: int, frames: int, extended: tuple[Any, Any] | None) -> bytes:
    """The stream of ``frame`` of ``frames``; ``pixels`` stands at the first item, ``extended`` are its offset tables.

    A Basic Offset Table that cannot be right, of zeros for example, would give one frame for another: it is passed
    over, and the fragments themselves tell where frames begin. Raises what pydicom raises where they do not.
    """
    start = pixels.tell()
    offsets = parse_basic_offsets(pixels)
    how: dict[str, Any] = {"number_of_frames": frames, "extended_offsets": extended}
    if not extended and offsets and not _may_be_right(offsets, frames):
        return get_frame(BytesIO(_EMPTY_TABLE + pixels.read()), frame, **how)
    pixels.seek(start)
    return get_frame(pixels, frame, **how)


def _may_be_right(offsets: list[int], frames: int) -> bool:
    return len(offsets) >= frames and offsets[0] == 0 and all(a < b for a, b in pairwise(offsets))
