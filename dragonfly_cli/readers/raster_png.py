"""The grey or colour that a PNG calls transparent; Pillow looks for it among 8-bit values, whatever the file's are."""

from pathlib import Path

import numpy as np
from PIL import Image

_BIT_DEPTH_AT = 24  # in the file: signature, length, IHDR, width, height; PNG (W3C), 11.2.1


def with_opacity(image: Image.Image, path: Path) -> Image.Image:
    """``image`` itself, or, of other than 8 bits, the same picture with its opacity. Raises ValueError if damaged.

    In a palette it is the entries that are transparent, and in an animation none is.
    """
    is_of_values = image.format == "PNG" and isinstance(image.info.get("transparency"), int | tuple)
    if not is_of_values or image.mode == "P" or getattr(image, "n_frames", 1) > 1:
        return image
    content = path.read_bytes()
    if content[_BIT_DEPTH_AT] == 8:
        return image
    from imagecodecs import PngError, png_decode

    try:
        values = png_decode(content)  # [height, width, colours and opacity]
    except PngError as error:
        raise ValueError("the image data is damaged") from error
    if values.dtype == np.uint16:
        values = np.rint(values / 257).astype(np.uint8)
    return Image.fromarray(values)
