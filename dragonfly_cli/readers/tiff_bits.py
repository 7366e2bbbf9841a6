"""How many of its 16 bits a TIFF really uses, as the OME header or a tag declares; else all of them.

One rule for small and large files: a declaration holds unless a value lies above it; without one the full 16 bits are
shown, and a picture that is dark then is told.
Source: OME-TIFF (``Pixels/@SignificantBits``), TIFF 6.0 (MaxSampleValue).
"""

from typing import Any

MAX_SAMPLE_VALUE = 281  # TIFF tag
FULL_16_BIT = 65535
DARK_16_BIT = 4096  # 16-bit values all below this look black in 8 bits: a camera of 12 bits or fewer
DARK = f"the 16-bit values stay below {DARK_16_BIT}, so the picture is nearly black"


def ome_pixels(header: str | None, size_wh: tuple[int, int]) -> dict[str, Any]:
    """What an OME header says of its first image of this size; nothing where it is damaged or none."""
    if not header or "OME" not in header:
        return {}
    import tifffile

    try:
        images = tifffile.xml2dict(header)["OME"]["Image"]
        every = [image["Pixels"] for image in (images if isinstance(images, list) else [images])]
        return next((each for each in every if (each["SizeX"], each["SizeY"]) == size_wh), {})
    except (SyntaxError, LookupError, TypeError, ValueError):
        return {}


def white_of(header: str | None, size_wh: tuple[int, int], max_sample_value: object, brightest: int) -> int:
    """The 16-bit value that is shown white, of a picture whose brightest is known."""
    bits = ome_pixels(header, size_wh).get("SignificantBits")
    if not isinstance(bits, int):
        bits = max_sample_value.bit_length() if isinstance(max_sample_value, int) else 16
    return 2**bits - 1 if 8 <= bits < 16 and brightest < 2**bits else FULL_16_BIT
