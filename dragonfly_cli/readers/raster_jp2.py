"""What of JPEG 2000 colours Pillow does not give: profiles, and more than 8 bits, which it rounds up beyond white."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

_SIZE_MARKER = b"\xff\x4f\xff\x51"  # start of codestream, then SIZ; ISO/IEC 15444-1, A.5.1
_DEPTH_AT = 42  # of the first component; the upper bit is its sign

_PROFILE_METHODS = (2, 3)  # of a colour box, ISO/IEC 15444-1, I.5.3.3; and 15444-2, any profile
_HEADER_BYTES = 2**22


def profile_of(path: Path) -> bytes | None:
    """The ICC profile of a JP2 file; a bare codestream has none."""
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    colours = (colour for header in _boxes(head, b"jp2h") for colour in _boxes(header, b"colr"))
    return next((colour[3:] for colour in colours if colour and colour[0] in _PROFILE_METHODS), None)


def in_8_bits(image: Image.Image, path: Path) -> Image.Image:
    """``image`` itself, or of deep colours the same picture in 8 bits. Raises ValueError, RuntimeError if damaged."""
    if image.format != "JPEG2000" or len(image.getbands()) == 1:
        return image
    content = path.read_bytes()
    at = content.find(_SIZE_MARKER)
    depth = (content[at + _DEPTH_AT] & 127) + 1
    if depth <= 8:
        return image
    from imagecodecs import Jpeg2kError, jpeg2k_decode

    try:
        values = jpeg2k_decode(content)  # [height, width, bands]
    except Jpeg2kError as error:
        raise ValueError("the codestream is damaged") from error
    if values.shape[:2] != image.size[::-1] or values.dtype != np.uint16:
        raise ValueError("its samples are of a kind that is not known here")
    return Image.fromarray(np.rint(values * (255 / (2**depth - 1))).astype(np.uint8), image.mode)


def _boxes(content: bytes, kind: bytes) -> Iterator[bytes]:
    """What the boxes of one kind hold, side by side in ``content``; ISO/IEC 15444-1, I.4."""
    at = 0
    while at + 8 <= len(content):
        length, found = struct.unpack_from(">I4s", content, at)
        if length < 8:  # 0 reaches to the end, and 1 is longer than any header: that is the codestream
            return
        if found == kind:
            yield content[at + 8 : at + length]
        at += length
