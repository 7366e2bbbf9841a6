"""Which boxes of a source the model is shown: fields of view.

A photograph or a radiograph is one field, itself; a slide has an overview field; of several frames a few are looked
at, each a field. How a field is cut into crops is not decided here: that belongs to the weights
(``dragonfly_med.views``).
"""

from dataclasses import dataclass
from typing import Literal

from dragonfly_cli.errors import UsageError
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import LookOptions
from dragonfly_cli.readers.source import Source, View

Role = Literal["overview", "zoom", "region", "slice", "whole"]

_NOTHING_SAID = LookOptions()
FRAMES_LOOKED_AT = 8


@dataclass(frozen=True)
class Field:
    """A box of one frame, in level-0 pixels, that the model is shown in one go."""

    id: int
    role: Role
    frame: int
    box: Box


def plan_fields(source: Source, looking: LookOptions = _NOTHING_SAID) -> list[Field]:
    """The fields to look at, one after the other; their ids count from 0.

    One frame is one field; several are looked at in frames spread evenly, ``looking.budget`` of them at most.
    Raises UsageError if there is no frame ``looking.frame``, counted from 0.
    """
    whole = Box(0, 0, *source.size_wh)
    if looking.frame is not None:
        _check_frame(source, looking.frame)
        return [Field(0, "slice" if source.frames > 1 else "whole", looking.frame, whole)]
    if source.frames > 1:
        shown = spread(source.frames, looking.budget or FRAMES_LOOKED_AT)
        if len(shown) < source.frames:
            source.warnings.append(
                f"{len(shown)} of {source.frames} frames were looked at; --budget takes more, --frame chooses one"
            )
        return [Field(number, "slice", frame, whole) for number, frame in enumerate(shown)]
    return [Field(0, "overview" if source.kind == "slide" else "whole", 0, whole)]


def spread(count: int, most: int) -> list[int]:
    """At most ``most`` of the numbers below ``count``, evenly spread, each in the middle of its share."""
    most = min(most, count)
    return [(2 * number + 1) * count // (2 * most) for number in range(most)]


def _check_frame(source: Source, frame: int) -> None:
    if not 0 <= frame < source.frames:
        raise UsageError(
            f"--frame {frame}: {source.path} has {source.frames} frame{'s' * (source.frames > 1)}",
            f"frames count from 0; give one from 0 to {source.frames - 1}",
        )


def field_view(source: Source, field: Field) -> View:
    """The pixels of a field, to be read at whatever size is asked for."""
    return source.view(field.box, field.frame)


def field_mpp(source: Source, field: Field, canvas_wh: tuple[int, int]) -> float | None:
    """Microns per pixel at which ``canvas_wh`` shows the field, of the coarser axis; ``None`` when unknown."""
    if source.mpp is None:
        return None
    return max(
        mpp * length / pixels for mpp, length, pixels in zip(source.mpp, field.box.size_wh, canvas_wh, strict=True)
    )
