"""JPEG 2000 colours of more than 8 bits, which Pillow rounds up beyond white: there they turn black."""

from pathlib import Path

import numpy as np
from PIL import Image

_SIZE_MARKER = b"\xff\x4f\xff\x51"  # start of codestream, then SIZ; ISO/IEC 15444-1, A.5.1
_DEPTH_AT = 42  # of the first component; the upper bit is its sign


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
