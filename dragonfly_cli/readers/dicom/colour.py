"""Colours as a screen shows them: an ICC profile inside the file, applied by LittleCMS as Pillow ships it."""

from io import BytesIO

from PIL import Image, ImageCms

RGB_SPACE = "RGB "
LARGEST_PROFILE_BYTES = 2**24


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """An RGB image from the colours of ``profile`` to sRGB; None where the profile cannot be used."""
    if not 128 <= len(profile) <= LARGEST_PROFILE_BYTES:  # 128 bytes is its header alone
        return None
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if source.profile.xcolor_space != RGB_SPACE:
            return None
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
