"""What of a TIFF Pillow passes over without a word: the sign of samples, white as zero, colours of 16 bits, a lost end.

Every function takes a picture that Pillow has opened, of whatever format; one that is no TIFF has none of this.
Tags and their values are those of TIFF 6.0.
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.pyramid import TileError
from dragonfly_cli.readers.tiff_bits import FULL_16_BIT, MAX_SAMPLE_VALUE, white_of

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_DESCRIPTION = 270
_STRIP_OFFSETS, _TILE_OFFSETS, _TILE_BYTE_COUNTS = 273, 324, 325
_WHITE_IS_ZERO = 0
_UNSIGNED, _SIGNED = 1, 2


def samples(image: Image.Image) -> np.ndarray[Any, np.dtype[Any]]:
    """[height, width] of the values as the file means them; Pillow takes all 8 bits unsigned and all 32 signed."""
    stored = np.asarray(image)
    if stored.dtype == np.uint8 and is_signed_8_bit(image):
        return stored.view(np.int8)
    is_unsigned = image.format == "TIFF" and _sample_format(image) == _UNSIGNED
    return stored.view(np.uint32) if stored.dtype == np.int32 and is_unsigned else stored


def top_of_16_bit(image: Image.Image, brightest: int) -> int:
    """The value shown white of a picture in 16-bit words: of 12 bits where the file has packed or declared so many."""
    tags = _tags(image)
    if (bits := max(tags.get(_BITS, (16,)))) < 16:
        return int(2**bits - 1)
    largest = max(tags.get(MAX_SAMPLE_VALUE, (FULL_16_BIT,)))
    return white_of(tags.get(_DESCRIPTION), image.size, largest, brightest)


def is_signed_8_bit(image: Image.Image) -> bool:
    return image.mode == "L" and _sample_format(image) == _SIGNED


def is_white_zero(image: Image.Image) -> bool:
    """Whether the lowest value is white; Pillow inverts such pictures itself if they have 8 bits or fewer."""
    return image.format == "TIFF" and _tags(image).get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def wide_colours(image: Image.Image, path: Path, page: int) -> Image.Image | None:
    """Colours of 16 bits as RGB of 8, white by the rule for slides; None for any other picture. Raises ValueError.

    Pillow keeps their upper 8 bits alone, and takes the bytes of planes for pixels.
    """
    tags = _tags(image)
    bits = tags.get(_BITS, (1,))
    if len(bits) < 3 or max(bits) <= 8:
        return None
    import tifffile

    from dragonfly_cli.readers.slide_tiles import SegmentedPage
    from dragonfly_cli.readers.tiff_colours import is_picture

    with tifffile.TiffFile(path) as tiff:
        found: Any = tiff.pages[page]
        if not is_picture(found):
            raise ValueError("its samples are of a kind that is not known here")
        samples = SegmentedPage(path, found)
    try:
        samples.show_white(top_of_16_bit(image, samples.brightest_sample()))
        shown = samples.read(Box(0, 0, *samples.size_wh))  # Pillow's is the size when turned
    except TileError as error:
        raise ValueError("the samples cannot be decoded") from error
    finally:
        samples.close()
    shown.info = image.info
    return shown


def ends_early(image: Image.Image, file_bytes: int) -> bool:
    """Whether tiles or strips of the first picture begin beyond the end of the file, or their table is cut off."""
    tags = _tags(image)
    if _TILE_OFFSETS in tags and _TILE_BYTE_COUNTS not in tags:
        return True
    offsets = tags.get(_TILE_OFFSETS) or tags.get(_STRIP_OFFSETS) or ()
    return any(start >= file_bytes for start in offsets)


def _sample_format(image: Image.Image) -> int:
    return int(_tags(image).get(_SAMPLE_FORMAT, (_UNSIGNED,))[0])


def _tags(image: Image.Image) -> Any:
    return getattr(image, "tag_v2", {})
