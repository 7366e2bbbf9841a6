"""A field of view, what a source shows of it, and a plan of which are looked at."""

from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Literal

from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.source import Source, View

if TYPE_CHECKING:  # these import numpy and scipy, which a plan of one field does not need
    from dragonfly_cli.fields.search import ZoomSearch
    from dragonfly_cli.fields.tissue import Tissue

Role = Literal["overview", "zoom", "region", "slice", "whole"]


@dataclass(frozen=True)
class Field:
    """A box of one frame, in level-0 pixels, that the model is shown in one go.

    ``second_look_of`` is the id of a field that it shows once more, otherwise framed.
    """

    id: int
    role: Role
    frame: int
    box: Box
    second_look_of: int | None = None


@dataclass(frozen=True)
class LookPlan:
    """The fields to look at, one after the other; their ids count from 0.

    With ``search``, those of role ``zoom`` are spread evenly, and a model may choose better ones. Once it has
    ``begun``, a plan with a ``time_limit`` in seconds has a ``deadline`` (of ``time.monotonic``).
    """

    fields: list[Field]
    search: "ZoomSearch | None" = None
    tissue: "Tissue | None" = None
    time_limit: float | None = None
    deadline: float | None = None

    def begun(self) -> "LookPlan":
        """The plan when a model begins to look: planned long ago perhaps, while others were looked at, or it loaded."""
        if self.time_limit is None:
            return self
        deadline = monotonic() + self.time_limit
        search = replace(self.search, deadline=deadline) if self.search else None
        return replace(self, search=search, deadline=deadline)

    @property
    def certain(self) -> list[Field]:
        """The fields that no search replaces."""
        return [field for field in self.fields if self.search is None or field.role != "zoom"]


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
