"""What of a slide is looked at: an overview, and zoomed-in fields at the target scale, or the regions that were named.

A slide that fits into one field is one field. Regions without a scale are fields themselves; with one, and for
outlines, they are what is searched.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from dragonfly_cli.errors import UsageError
from dragonfly_cli.fields.field import Field, LookPlan
from dragonfly_cli.fields.grid import SMALLEST_SHARE, Area, Grid, spread_cells
from dragonfly_cli.fields.outline import Outlined, areas_of, bounds_of, read_outline
from dragonfly_cli.fields.regions import centered_box, region_box
from dragonfly_cli.fields.search import ZoomSearch
from dragonfly_cli.fields.tissue import Tissue, find_tissue
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import LookOptions
from dragonfly_cli.readers.source import Source

TARGET_MPP = 0.5  # a 20x objective, at which most histology models were trained
FIELDS_LOOKED_AT = 8  # the overview among them; some seconds on a CPU with the built-in model
_NEARLY = 1.25  # a slide or outline this much larger than a field is shown as one, at a little less detail
_SHARPNESS_SAMPLES = 4
_FULL = 0.9
_SHARPNESS_SIDE_PX = 256
# Variance of the Laplacian of 8-bit luma; in-focus H&E at 0.5 microns per pixel has hundreds.
_BLURRED_BELOW = 20.0


@dataclass(frozen=True)
class Scale:
    """Level-0 pixels per pixel of the high view, along x and y."""

    x: float
    y: float

    def field_wh(self, canvas_wh: tuple[int, int]) -> tuple[int, int]:
        return max(1, round(canvas_wh[0] * self.x)), max(1, round(canvas_wh[1] * self.y))


def plan_slide(source: Source, looking: LookOptions, canvas_wh: tuple[int, int]) -> LookPlan:
    """The fields of a slide; ``canvas_wh`` is the high view in pixels. Raises UsageError, InputError, NoInputError."""
    scale = target_scale(source, looking)
    field_wh = scale.field_wh(canvas_wh)
    regions = named_boxes(source, looking, field_wh)
    searched = looking.mpp is not None or looking.level is not None
    if regions and not searched and not looking.roi:
        fields = [Field(number, "region", 0, box) for number, box in enumerate(regions)]
        return LookPlan(fields, time_limit=looking.time_limit)
    whole = Box(0, 0, *source.size_wh)
    if not regions and not looking.roi and _fits(whole, field_wh):
        return LookPlan([Field(0, "overview", 0, whole)])
    outline = _outline(source, looking, regions)  # before any pixel is read
    tissue = find_tissue(source)
    area, first = _searched_area(tissue, outline, regions)
    grid = Grid(area, area.bounds, field_wh)
    budget = looking.budget or FIELDS_LOOKED_AT
    left = budget - len(first)
    if _fits(area.bounds, field_wh) or not grid.cells():
        return LookPlan(first, None, tissue, looking.time_limit)
    if left < 1:
        source.warnings.append(
            f"--budget {budget}: none of the {len(grid.cells())} fields with tissue was looked at closely"
        )
        return LookPlan(first, None, tissue, looking.time_limit)
    if isinstance(area, Outlined):
        _warn_of_little_tissue(source, area)
    search = ZoomSearch(grid, left, looking.rank)
    even = search.even()
    _warn_of_blur(source, grid, scale)
    return LookPlan([*first, *zoom_fields(source, even, len(first))], search, tissue, looking.time_limit)


def zoom_fields(source: Source, boxes: list[Box], first_id: int) -> list[Field]:
    """Cells of a grid as fields; one that reaches beyond the slide is moved onto it, as far as it fits."""
    return [Field(first_id + number, "zoom", 0, _moved_onto(source, box)) for number, box in enumerate(boxes)]


def second_looks(source: Source, fields: list[Field], first_id: int) -> list[Field]:
    """The same fields with an eighth of a field more around them, so that what they show is framed otherwise."""
    looks = []
    for number, field in enumerate(fields):
        x, y, (width, height) = field.box.x, field.box.y, field.box.size_wh
        wider = Box(x - width // 8, y - height // 8, width + width // 4, height + height // 4)
        looks.append(Field(first_id + number, field.role, field.frame, _moved_onto(source, wider), field.id))
    return looks


def _moved_onto(source: Source, box: Box) -> Box:
    x, y = (
        max(0, min(start, whole - length)) if length <= whole else start
        for start, length, whole in zip((box.x, box.y), box.size_wh, source.size_wh, strict=True)
    )
    return Box(x, y, box.width, box.height)


def target_scale(source: Source, looking: LookOptions) -> Scale:
    """The scale of ``--level``, of ``--mpp``, or the default; never finer than level 0. Raises UsageError."""
    if looking.level is not None:
        levels = source.details().get("levels", [])
        if looking.level >= len(levels):
            raise UsageError(
                f"--level {looking.level}: {source.path} has {len(levels)} level{'s' * (len(levels) != 1)}",
                "levels count from 0, the finest; dragonfly info lists them",
            )
        return _undistorted(source, levels[looking.level]["downsample"])
    if source.mpp is None:
        if looking.mpp is not None:
            raise UsageError(
                f"--mpp {looking.mpp:g}: {source.path} does not give its microns per pixel",
                "give it with --slide-mpp, or choose a --level",
            )
        return Scale(1.0, 1.0)
    wanted = looking.mpp or TARGET_MPP
    if looking.mpp is not None and looking.mpp < max(source.mpp) * 0.99:
        source.warnings.append(f"--mpp {looking.mpp:g}: the slide has no finer level than {max(source.mpp):.3g}")
    return _undistorted(source, max(1.0, wanted / max(source.mpp)))


def _undistorted(source: Source, downsample: float) -> Scale:
    """So many level-0 pixels along the coarser axis, and as many microns along the other, also of pixels not square."""
    coarsest = max(source.mpp) if source.mpp else 1.0
    return Scale(*(downsample * coarsest / mpp for mpp in source.mpp or (1.0, 1.0)))


def named_boxes(source: Source, looking: LookOptions, field_wh: tuple[int, int]) -> list[Box]:
    """The boxes of ``--region`` and ``--center``, in level-0 pixels."""
    boxes = [region_box(source, region) for region in looking.region or ()]
    if looking.center:
        boxes.append(centered_box(source, looking.center, looking.fov, field_wh))
    return boxes


def named_part(source: Source, looking: LookOptions, canvas_wh: tuple[int, int]) -> Box:
    """The first of the regions, or what is around the outlines, or where nothing was named, all of the slide."""
    regions = named_boxes(source, looking, target_scale(source, looking).field_wh(canvas_wh))
    if regions:
        return regions[0]
    outline = _outline(source, looking, regions)
    return bounds_of(outline) if outline else Box(0, 0, *source.size_wh)


def bounds_origin(source: Source, looking: LookOptions) -> tuple[int, int]:
    """Where QuPath's coordinates begin on this slide, in level-0 pixels."""
    bounds = source.details().get("bounds") if looking.bounds_offset else None
    return (bounds["x"], bounds["y"]) if bounds else (0, 0)


def _outline(source: Source, looking: LookOptions, regions: list[Box]) -> shapely.Geometry | None:
    """What was named of the slide, None where nothing was; raises UsageError where it lies elsewhere."""
    outlines = [shapely.box(*box.corners) for box in regions]
    if looking.roi:
        outlines.append(_drawn_outline(source, looking, looking.roi))
    return shapely.union_all(outlines) if len(outlines) > 1 else next(iter(outlines), None)


def _drawn_outline(source: Source, looking: LookOptions, file: Path) -> shapely.Geometry:
    """What of the outlines of a file lies on the slide; what is left out is told."""
    offset_xy = bounds_origin(source, looking)
    drawn, without_area = read_outline(file, looking.roi_class or (), offset_xy)
    on_slide = areas_of(drawn.intersection(shapely.box(0, 0, *source.size_wh)))
    width, height = source.size_wh
    if on_slide.area <= 0:
        raise UsageError(
            f"--roi {file}: its outlines lie outside {source.path}, which has {width} x {height} px",
            "--no-bounds-offset counts them from the corner of the slide"
            if offset_xy != (0, 0)
            else "give the outlines of this slide, in pixels of its finest level",
        )
    if (lost := drawn.area - on_slide.area) >= 1:
        share = f"{100 * lost / drawn.area:.2g} %"
        source.warnings.append(f"--roi: {share} of what is outlined lies beyond the slide and was left out")
    if without_area:
        source.warnings.append(
            f"--roi: shapes without an area, such as lines and points, were left out: {without_area}"
        )
    return on_slide


def _searched_area(tissue: Tissue, outline: shapely.Geometry | None, regions: list[Box]) -> tuple[Area, list[Field]]:
    """Where to zoom in, and the fields that show it as a whole."""
    if outline is None:
        return tissue, [Field(0, "overview", 0, tissue.bounds)]
    area = Outlined(tissue, outline)
    boxes = regions if regions else [area.bounds]
    return area, [Field(number, "region", 0, box) for number, box in enumerate(boxes)]


def _fits(box: Box, field_wh: tuple[int, int]) -> bool:
    return box.width <= _NEARLY * field_wh[0] and box.height <= _NEARLY * field_wh[1]


def _warn_of_little_tissue(source: Source, area: Outlined) -> None:
    if not area.has_tissue:
        source.warnings.append("hardly any tissue was found in what was outlined, so all of it was searched")
    elif area.tissue_share < SMALLEST_SHARE:
        share = f"{area.tissue_share:.0%}"
        source.warnings.append(f"only {share} of what was outlined is tissue, and only that was searched")


def _warn_of_blur(source: Source, grid: Grid, scale: Scale) -> None:
    """Says so when the middles of some fields full of tissue have hardly any detail."""
    width, height = scale.field_wh((_SHARPNESS_SIDE_PX, _SHARPNESS_SIDE_PX))
    fullest = max(grid.cells().values())
    full = {cell: share for cell, share in grid.cells().items() if share > _FULL * fullest}
    details = []
    for box in map(grid.box, spread_cells(full, _SHARPNESS_SAMPLES)):
        middle = Box(box.x + (box.width - width) // 2, box.y + (box.height - height) // 2, width, height)
        luma = np.asarray(source.view(middle).resize((_SHARPNESS_SIDE_PX, _SHARPNESS_SIDE_PX)).convert("L"), np.float32)
        around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
        details.append(float((around - 4 * luma[1:-1, 1:-1]).var()))
    if details and np.median(details) < _BLURRED_BELOW:
        source.warnings.append("the slide looks out of focus, or has no detail, at the scale of the fields")
