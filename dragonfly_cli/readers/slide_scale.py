"""Microns per pixel of a slide from what its file says, the most trustworthy statement first.

Non-goal: guessing from the picture. Whoever finds nothing here goes on in pixels.
"""

import math
from collections.abc import Mapping

from dragonfly_cli.readers.pyramid import Scale

PLAUSIBLE_MPP = (0.02, 50.0)
LARGEST_RESOLUTION_MPP = 10.0  # above that a "resolution" is a printer's: 72 dpi are 353 microns, 1200 dpi are 21
_MICRONS_PER_UNIT = {"inch": 25_400.0, "centimeter": 10_000.0}
# A 40x objective scans at about 0.25 microns per pixel, a 20x at 0.5: the camera's pixel is about 10 microns.
_MICRONS_TIMES_POWER = 10.0
_NEARLY_SQUARE = 1.1  # a scanner's pixels are nearly square
_NONE = "the slide does not give its microns per pixel: sizes are in pixels only"
_UNEVEN = (
    "the file gives {x:.4g} microns per pixel across and {y:.4g} down: if that is wrong, --slide-mpp gives them exactly"
)
_GUESSED_FROM_POWER = "microns per pixel are estimated from the objective power; --slide-mpp gives them exactly"


def scale_of(properties: Mapping[str, str]) -> Scale:
    """The scale from OpenSlide's property names, both axes or none: mpp, TIFF resolution, objective power."""
    # of a plain TIFF these are its resolution tags, which OpenSlide has converted
    is_resolution = properties.get("openslide.vendor") == "generic-tiff"
    largest = LARGEST_RESOLUTION_MPP if is_resolution else PLAUSIBLE_MPP[1]
    x, y = (_plausible(properties.get(f"openslide.mpp-{axis}"), largest) for axis in "xy")
    if x and y:
        return Scale((x, y), "resolution" if is_resolution else "file")
    if microns := _MICRONS_PER_UNIT.get(properties.get("tiff.ResolutionUnit", "").lower()):
        sizes = (_per_pixel(properties.get(f"tiff.{axis}Resolution"), microns) for axis in "XY")
        x, y = (_plausible(size, LARGEST_RESOLUTION_MPP) for size in sizes)
        if x and y:
            return Scale((x, y), "resolution")
    power = positive_number(properties.get("openslide.objective-power"))
    if power and (mpp := _plausible(_MICRONS_TIMES_POWER / power)):
        return Scale((mpp, mpp), "objective")
    return Scale(None, "none")


def doubts_of(scale: Scale) -> list[str]:
    """What to know of a scale that no user has given."""
    if scale.mpp is None:
        return [_NONE]
    if scale.source == "objective":
        return [_GUESSED_FROM_POWER]
    x, y = scale.mpp
    return [_UNEVEN.format(x=x, y=y)] * (max(x, y) > _NEARLY_SQUARE * min(x, y))


def positive_number(text: str | None) -> float | None:
    """A positive finite number of the slide's properties, or None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def _per_pixel(pixels_per_unit: str | None, microns: float) -> float | None:
    number = positive_number(pixels_per_unit)
    return microns / number if number else None


def _plausible(mpp: float | str | None, largest: float = PLAUSIBLE_MPP[1]) -> float | None:
    value = positive_number(str(mpp)) if mpp is not None else None
    return value if value and PLAUSIBLE_MPP[0] <= value <= largest else None
