"""Boxes as a user writes them: ``X,Y,W,H`` in level-0 pixels, microns or percent, or a centre and a field of view.

What is written is understood (``parse_*``, before any file is opened) apart from where it lies (``*_box``).
Every number has a unit of its own, px where none is written, so that none can be taken for another.
"""

import math
import re
from dataclasses import dataclass

from dragonfly_cli.errors import UsageError
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import LookOptions
from dragonfly_cli.readers.source import Source

_NUMBER = re.compile(r"\s*(-?\d{1,15}(?:\.\d*)?|-?\.\d+)\s*(px|um|µm|μm|mm|%)?\s*")
_MICRONS = {"um": 1.0, "µm": 1.0, "μm": 1.0, "mm": 1000.0}
_HINT = "numbers are level-0 pixels, or have a unit: 500um, 2mm, 25%"


@dataclass(frozen=True)
class Length:
    """A number with its unit: ``px``, ``%`` of the image, or one of microns."""

    value: float
    unit: str


def parse_region(text: str) -> list[Length]:
    """Left, top, width and height; raises UsageError."""
    lengths = _parse("--region", text, (4,), "X,Y,W,H")
    _refuse_empty(f"--region {text}", lengths[2:])
    return lengths


def parse_center(text: str) -> list[Length]:
    """x and y of a point; raises UsageError."""
    return _parse("--center", text, (2,), "X,Y")


def parse_fov(text: str) -> list[Length]:
    """Width and height of a field of view; one number is both. Raises UsageError."""
    lengths = _parse("--fov", text, (1, 2), "W or W,H")
    _refuse_empty(f"--fov {text}", lengths)
    return lengths * 2 if len(lengths) == 1 else lengths


def region_box(source: Source, region: str) -> Box:
    """The part of ``--region`` that lies on the image; raises UsageError if none does."""
    left, top, width, height = _pixels(source, parse_region(region), "xyxy")
    if width < 1 or height < 1:
        raise _too_small(f"--region {region}")
    return on_image(source, (left, top, width, height), f"--region {region}")


def named_boxes(source: Source, looking: LookOptions, field_wh: tuple[int, int]) -> list[Box]:
    """The boxes of ``--region`` and ``--center``, in level-0 pixels."""
    boxes = [region_box(source, region) for region in looking.region or ()]
    if looking.center:
        boxes.append(centered_box(source, looking.center, looking.fov, field_wh))
    return boxes


def centered_box(source: Source, center: str, fov: str | None, default_wh: tuple[float, float]) -> Box:
    """The field of view around ``--center``, of ``default_wh`` level-0 pixels where ``--fov`` is not given."""
    x, y = _pixels(source, parse_center(center), "xy")
    width, height = _pixels(source, parse_fov(fov), "xy") if fov else default_wh
    if width < 1 or height < 1:
        raise _too_small(f"--fov {fov}")
    return on_image(source, (x - width / 2, y - height / 2, width, height), f"--center {center}")


def on_image(source: Source, edges_xywh: tuple[float, float, float, float], what: str) -> Box:
    """The part of a rectangle that lies on the image, in whole pixels; a cut is told, nothing left is an error."""
    x, y, width, height = edges_xywh
    left, top, right, bottom = (math.floor(edge + 0.5) for edge in (x, y, x + width, y + height))
    image_w, image_h = source.size_wh
    cut = max(left, 0), max(top, 0), min(right, image_w), min(bottom, image_h)
    if cut[0] >= cut[2] or cut[1] >= cut[3]:
        raise UsageError(
            f"{what}: it lies outside {source.path}, which has {image_w} x {image_h} px",
            "dragonfly info shows the size; the origin is the top left corner",
        )
    if cut != (left, top, right, bottom):
        source.warnings.append(f"{what} reaches beyond the image: only the part on it was looked at")
    return Box(cut[0], cut[1], cut[2] - cut[0], cut[3] - cut[1])


def _parse(option: str, text: str, counts: tuple[int, ...], form: str) -> list[Length]:
    found = [_NUMBER.fullmatch(part) for part in text.split(",")]
    if len(found) not in counts or not all(found):
        raise UsageError(f"{option} {text}: it must be {form}", _HINT)
    return [Length(float(match[1]), match[2] or "px") for match in found if match]


def _refuse_empty(what: str, sides: list[Length]) -> None:
    """Raises UsageError for what is too small on every image."""
    if any(side.value < 1 if side.unit == "px" else side.value <= 0 for side in sides):
        raise _too_small(what)


def _too_small(what: str) -> UsageError:
    return UsageError(f"{what}: it is less than a pixel wide or high", _HINT)


def _pixels(source: Source, lengths: list[Length], axes: str) -> list[float]:
    return [_in_pixels(source, length, "xy".index(axis)) for length, axis in zip(lengths, axes, strict=True)]


def _in_pixels(source: Source, length: Length, axis: int) -> float:
    if length.unit == "px":
        return length.value
    if length.unit == "%":
        return length.value / 100 * source.size_wh[axis]
    if source.mpp is None:
        raise UsageError(
            f"{length.value:g}{length.unit}: {source.path} does not give its microns per pixel",
            "give pixels, or the scale with --slide-mpp",
        )
    return length.value * _MICRONS[length.unit] / source.mpp[axis]
