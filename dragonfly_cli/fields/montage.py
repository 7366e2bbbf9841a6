"""Several slices of a source as one picture, in rows and columns as films were once printed: itself a source."""

import math
from pathlib import Path
from typing import Any

from PIL import Image

from dragonfly_cli.errors import InputError, UsageError
from dragonfly_cli.fields.frames import frames_to_look_at, parse_montage
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import LookOptions
from dragonfly_cli.readers.source import MppSource, Source, SourceKind, files_of, whole_of

MAX_PIXELS = 16_000_000  # more than any view of a model shows; slices are shrunk to stay below


def arranged(source: Source, looking: LookOptions) -> Source:
    """The source itself, or with ``--montage`` several of its frames as one picture. Raises UsageError."""
    if source.kind == "slide":
        _refuse_what_series_have(source, looking)
    if looking.montage is None:
        return source
    columns, rows = parse_montage(looking.montage)
    frames = frames_to_look_at(source, looking, columns * rows)
    if source.frames == 1:  # a montage of it would be one tile amid black ones
        source.warnings.append("--montage is for several frames: there is only one, which is shown as it is")
        return source
    return Montage(source, frames, (columns, rows))


def _refuse_what_series_have(source: Source, looking: LookOptions) -> None:
    for option, value in (("--slice", looking.slices), ("--montage", looking.montage)):
        if value is not None:
            raise UsageError(
                f"{option} is for images with slices or frames, and {source.path} is a slide",
                "leave it out; --region chooses a part of a slide",
            )


class Montage:
    """``frames`` of ``source`` in reading order, ``columns`` by ``rows`` tiles, black where there is no slice."""

    frames = 1

    def __init__(self, source: Source, frames: list[int], grid: tuple[int, int]) -> None:
        self.path: Path = source.path
        self.kind: SourceKind = source.kind
        self.format = source.format
        self.mpp_source: MppSource = source.mpp_source
        self.warnings = source.warnings
        self._source, self._frames, self._grid = source, frames, grid
        width, height = source.size_wh
        shrink = min(1.0, math.sqrt(MAX_PIXELS / (width * height * grid[0] * grid[1])))
        self._tile_wh = max(1, int(width * shrink)), max(1, int(height * shrink))
        self.size_wh = self._tile_wh[0] * grid[0], self._tile_wh[1] * grid[1]
        self.mpp = source.mpp and (
            source.mpp[0] * width / self._tile_wh[0],
            source.mpp[1] * height / self._tile_wh[1],
        )
        self.files = files_of(source)
        self._picture: Image.Image | None = None
        numbers = ", ".join(map(str, self._frames))
        self.warnings.append(
            f"the picture is a montage, {grid[0]} x {grid[1]}, of frames {numbers} of {source.frames}; "
            "boxes are places in the montage"
        )

    def view(self, box: Box, frame: int = 0) -> Image.Image:
        """The part ``box`` of the montage. Raises InputError when none of its slices can be read."""
        if self._picture is None:
            self._picture = self._composed()
        return self._picture.crop(box.corners)

    def details(self) -> dict[str, Any]:
        return {name: fact for name, fact in self._source.details().items() if name != "stored_size"}

    def close(self) -> None:
        self._source.close()

    def _composed(self) -> Image.Image:
        picture = Image.new("RGB", self.size_wh)
        whole = whole_of(self._source)
        unread: list[int] = []
        for number, frame in enumerate(self._frames):
            row, column = divmod(number, self._grid[0])
            try:
                tile = self._source.view(whole, frame).resize(self._tile_wh)
            except InputError:
                unread.append(frame)
                if len(unread) == len(self._frames):
                    raise
                continue
            picture.paste(tile, (column * self._tile_wh[0], row * self._tile_wh[1]))
        if unread:
            self.warnings.append(f"frames that could not be read are black: {', '.join(map(str, unread))}")
        return picture
