"""The letters in pictures: Pillow's own, which look the same everywhere, and for others those of the machine."""

from functools import cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_OF_MACHINES = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "Arial.ttf", "arial.ttf")
_ALSO_OWN = str.maketrans("", "", "…\u2019\u201c\u201d°±")


def font_for(size: int, text: str = "") -> Font:
    """For ``text``, in pixels; where the machine has none with more letters, the missing ones are boxes."""
    return _font(size, text.translate(_ALSO_OWN).isascii())


@cache  # of a few sizes, and not of texts: a batch draws thousands
def _font(size: int, is_ascii: bool) -> Font:
    if not is_ascii:
        for name in _OF_MACHINES:
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    return ImageFont.load_default(size)
