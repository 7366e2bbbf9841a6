"""Which boxes of a source the model is shown: fields of view.

A photograph, a radiograph or one frame of a series is one field, itself; a slide has an overview field. How a field
is cut into crops is not decided here: that belongs to the weights (``dragonfly_med.views``).
"""

from dataclasses import dataclass
from typing import Literal

from dragonfly_cli.errors import UsageError
from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.source import Source, View

Role = Literal["overview", "zoom", "region", "slice", "whole"]


@dataclass(frozen=True)
class Field:
    """A box of one frame, in level-0 pixels, that the model is shown in one go."""

    id: int
    role: Role
    frame: int
    box: Box


def plan_fields(source: Source, frame: int | None = None) -> list[Field]:
    """The fields to look at: at present always one, the whole of one frame.

    ``frame`` counts from 0; ``None`` is the first. Raises UsageError if there is no such frame.
    """
    if frame is not None and not 0 <= frame < source.frames:
        raise UsageError(
            f"--frame {frame}: {source.path} has {source.frames} frame{'s' * (source.frames > 1)}",
            f"frames count from 0; give one from 0 to {source.frames - 1}",
        )
    if frame is None and source.frames > 1:
        source.warnings.append(f"only frame 0 of {source.frames} was looked at; --frame chooses another")
    role: Role = "overview" if source.kind == "slide" else "whole"
    return [Field(0, role, frame or 0, Box(0, 0, *source.size_wh))]


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
