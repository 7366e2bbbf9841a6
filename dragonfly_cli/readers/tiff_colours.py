"""What the decoded samples of a TIFF page look like: grey or RGB of 8 bits, transparent parts on white.

tifffile and imagecodecs give samples as they are stored (but those of JPEG as RGB); their meaning stands in tags, of
which the values here are those of TIFF 6.0. Non-goals: YCbCr outside of JPEG and Aperio's JPEG 2000,
CIELab, more than four samples.
"""

from typing import Any

import numpy as np
from PIL import Image

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6  # PhotometricInterpretation
_JPEG, _APERIO_YCBCR = 7, 33003  # Compression; the latter is JPEG 2000
SEPARATE = 2  # PlanarConfiguration: colours in planes of their own
PLANAR = (1, SEPARATE)
_PREMULTIPLIED, _TRANSPARENCY = 1, 2  # ExtraSamples
_MOST_SAMPLES = 4
ALL_CLEAR = "every pixel is fully transparent, so the picture is shown white"
DTYPES = (np.bool_, np.uint8, np.uint16)  # of samples that have a look


def is_picture(page: Any) -> bool:
    """Whether ``TiffColours`` can show a page of tifffile's; several planes of grey are channels, and no picture."""
    if page.dtype not in DTYPES or page.samplesperpixel > _MOST_SAMPLES:
        return False
    if page.photometric == _RGB or (page.photometric == _YCBCR and page.compression in (_JPEG, _APERIO_YCBCR)):
        return page.samplesperpixel >= 3
    if page.photometric == _CMYK:
        return page.samplesperpixel == 4
    is_one_plane = page.planarconfig != SEPARATE or page.samplesperpixel == 1
    return is_one_plane and page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE)


def is_grey(page: Any) -> bool:
    return page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) and page.samplesperpixel < 3


def are_misnamed(page: Any) -> bool:
    """Whether three samples a pixel are shown as colours though the file calls them grey."""
    return page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) and page.samplesperpixel >= 3


def is_plain_rgb(page: Any) -> bool:
    """Whether samples of 8 bits are shown as they are decoded, every one of them."""
    return page.photometric in (_RGB, _YCBCR) and page.samplesperpixel == 3 and page.dtype == np.uint8


def palette_of(entries: np.ndarray) -> np.ndarray:
    """[3, values] as they are stored to [values, 3] uint8; old writers leave 8 bits in words of 16, as in libtiff."""
    return (entries.T >> (8 if entries.max() > 255 else 0)).astype(np.uint8)


class TiffColours:
    """The look of one page's samples, of which ``white`` is the largest that is shown."""

    def __init__(self, page: Any) -> None:
        self._photometric = page.photometric
        self._is_ycbcr = page.compression == _APERIO_YCBCR
        self.white = 2**page.bitspersample - 1
        self._palette = palette_of(page.colormap) if page.photometric == _PALETTE else None
        alpha = page.extrasamples[0] if page.extrasamples else None
        self.has_opacity = alpha in (_PREMULTIPLIED, _TRANSPARENCY)
        self._is_premultiplied = alpha == _PREMULTIPLIED

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """[rows, columns, samples] as they are stored to [rows, columns, 3 or 1] uint8."""
        if self._palette is not None:
            return self._palette[samples[..., 0].astype(np.intp)]
        samples = self._as_8_bits(samples)
        if self._photometric == _CMYK:
            inks = 255 - self.of_colour(samples).astype(np.uint16)
            return (inks[..., :3] * inks[..., 3:] // 255).astype(np.uint8)
        colours = self.of_colour(samples)
        if self._is_ycbcr:
            colours = _rgb_of(colours)
        if self._photometric == _WHITE_IS_ZERO:
            colours = 255 - colours
        return self._on_white(colours, self.opacity(samples))

    def of_colour(self, samples: np.ndarray) -> np.ndarray:
        """The samples without opacity and the like."""
        count = 4 if self._photometric == _CMYK else 3 if samples.shape[-1] >= 3 else 1
        return samples[..., :count]

    def opacity(self, samples: np.ndarray) -> np.ndarray:
        """What follows the colours, [rows, columns, 1 or 0]; it is opacity where ``has_opacity``."""
        return samples[..., self.of_colour(samples).shape[-1] :][..., :1]

    def _as_8_bits(self, samples: np.ndarray) -> np.ndarray:
        if self.white == 255:
            return samples
        if self.white == 65535:
            return (samples // 257).astype(np.uint8)
        return np.minimum(samples.astype(np.uint32) * 255 // self.white, 255).astype(np.uint8)

    def _on_white(self, colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        if not self.has_opacity or alpha.size == 0 or alpha.min() == 255:
            return colours
        opacity = alpha.astype(np.uint16)
        seen = colours if self._is_premultiplied else colours * opacity // 255
        return np.minimum(seen + (255 - opacity), 255).astype(np.uint8)


def _rgb_of(ycbcr: np.ndarray) -> np.ndarray:
    rows, columns, _ = ycbcr.shape
    return np.asarray(Image.frombytes("YCbCr", (columns, rows), ycbcr.tobytes()).convert("RGB"))
