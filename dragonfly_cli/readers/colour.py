"""Colours as they were meant: an embedded ICC profile to sRGB by LittleCMS, as Pillow ships it; and the gamma of a PNG.

Of slides it is done on canvases rather than on level pixels: a canvas is small, so that this costs milliseconds where
converting all that was read would cost seconds. Sources: ICC.1; PNG (W3C), gAMA and its decoder's exponent.
"""

import io
import threading

import numpy as np
from PIL import Image, ImageCms

UNUSABLE = "the ICC profile in the file cannot be used: its colours are shown as they are stored"
_PROFILE_BYTES = (128, 2**24)  # its header alone; more than any has
_MODE_OF_SPACE = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK"}
_UNSEEN = 3  # of 255: a profile that changes no colour by more is sRGB itself
_SCREEN = 2.2  # exponent of a screen that no gamma need be corrected for
_GAMMAS, _SAME_GAMMA = (0.1, 10.0), 0.05  # those that may be meant; the difference that libpng passes over


class ToSrgb:
    """The colour change of one profile; none where there is no profile, or it cannot be used. Thread-safe.

    ``mode`` is that of the samples: Pillow's L, RGB or CMYK.
    """

    def __init__(self, profile: bytes | None, mode: str = "RGB") -> None:
        self._lock = threading.Lock()
        self._transform: ImageCms.ImageCmsTransform | None = None
        self.warnings: list[str] = []
        if profile:
            try:
                self._mode = _mode_of(profile, mode)
                self._transform = _transform(profile, self._mode)
            except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
                self.warnings.append(UNUSABLE)

    def __call__(self, image: Image.Image) -> Image.Image:
        """``image`` is CMYK, or RGB, also of grey samples."""
        if self._transform is None:
            return image
        with self._lock:  # a transform keeps the colour it changed last
            return ImageCms.applyTransform(image.convert(self._mode), self._transform) or image

    @property
    def changes(self) -> bool:
        return self._transform is not None


def _mode_of(profile: bytes, mode: str) -> str:
    """The mode whose colours a profile describes; raises ValueError if samples of ``mode`` have none of these."""
    if not _PROFILE_BYTES[0] <= len(profile) <= _PROFILE_BYTES[1]:
        raise ValueError("no profile has this size")
    described = _MODE_OF_SPACE.get(profile[16:20].decode("ascii", "replace"))
    if described is None or (described != mode and (mode, described) != ("L", "RGB")):
        raise ValueError("the profile of other colours")
    return described


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    found = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode == "CMYK":
        return found
    seen = _every_colour().convert(mode)
    changed = ImageCms.applyTransform(seen, found)
    difference = np.abs(np.asarray(seen.convert("RGB"), int) - np.asarray(changed, int))
    return found if difference.max() > _UNSEEN else None


def _every_colour() -> Image.Image:
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1)  # [9, 9, 9, 3]
    return Image.fromarray(cube.reshape(-1, 9, 3))


def by_gamma(image: Image.Image, gamma: float) -> Image.Image:
    """An RGB image whose values are light to the power of ``gamma``, as a screen wants it."""
    exponent = 1 / (gamma * _SCREEN) if _GAMMAS[0] <= gamma <= _GAMMAS[1] else 1.0
    if abs(exponent - 1) < _SAME_GAMMA:
        return image
    return image.point([round(255 * (level / 255) ** exponent) for level in range(256)] * 3)
