"""Colours as the scanner meant them: an embedded ICC profile to sRGB, on canvases rather than on level pixels.

A canvas is small, so that this costs milliseconds where converting all that was read would cost seconds.
"""

import io
import threading

from PIL import Image, ImageCms

_SRGB_NAMES = ("srgb", "iec61966")


class ToSrgb:
    """The colour change of one profile; ``None`` for pictures that are taken for sRGB already. Thread-safe."""

    def __init__(self, profile: bytes | None) -> None:
        self._lock = threading.Lock()
        self._transform = _transform(profile) if profile else None

    def __call__(self, image: Image.Image) -> Image.Image:
        if self._transform is None:
            return image
        with self._lock:  # a transform keeps the colour it changed last
            return ImageCms.applyTransform(image, self._transform) or image

    @property
    def changes(self) -> bool:
        return self._transform is not None


def _transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(source).lower()
        if any(known in name for known in _SRGB_NAMES):
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
