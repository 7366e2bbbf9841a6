"""Colour JPEG frames of DICOM files in their natural colours, whatever the header calls them.

Headers often say RGB above a stream that is YCbCr, and the other way round. The stream's own marks (JFIF, Adobe,
component names) decide, as in every JPEG viewer; without any, the header, unless the pixels speak against it.
Non-goals: grey frames and all other codecs, which pydicom reads well.
"""

from io import BytesIO

import numpy as np
from PIL import Image

from dragonfly_cli.readers.dicom_display import Array

RGB_NAMES = ((82, 71, 66), (114, 103, 98))  # "RGB" and "rgb" as component numbers


def natural_rgb(frame: bytes, header_says_rgb: bool) -> Array:
    """A baseline JPEG stream as [height, width, 3] uint8 RGB. Raises what Pillow raises."""
    image = Image.open(BytesIO(frame), formats=("JPEG",))
    if not header_says_rgb or _is_marked(image):
        return np.asarray(image.convert("RGB"))
    image.draft("YCbCr", image.size)  # the stored components, untouched
    stored = np.asarray(image)
    if looks_like_ycbcr(stored):
        return np.asarray(Image.fromarray(stored, "YCbCr").convert("RGB"))
    return stored


def looks_like_ycbcr(stored: Array) -> bool:
    """Whether the second and third component stay nearer to 128, as chroma does, than to the first."""
    first, second, third = np.moveaxis(stored.astype(np.int16), -1, 0)
    from_neutral = np.abs(second - 128) + np.abs(third - 128)
    from_first = np.abs(second - first) + np.abs(third - first)
    return bool(from_neutral.mean() < from_first.mean())


def _is_marked(image: Image.Image) -> bool:
    """Whether the stream itself tells its colour space; only chroma is ever subsampled."""
    layers = getattr(image, "layer", [])
    names = tuple(layer[0] for layer in layers)
    is_subsampled = len({layer[1:3] for layer in layers}) > 1
    return "jfif" in image.info or "adobe" in image.info or names in RGB_NAMES or is_subsampled
