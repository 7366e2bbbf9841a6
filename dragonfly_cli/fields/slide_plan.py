"""What of a slide is looked at: an overview, and zoomed-in fields at the target scale, or the regions that were named.

A slide that fits into one field is one field. Regions without a scale are fields themselves; with one, and for
outlines, they are what is searched.
"""

import math
from dataclasses import replace

import shapely

from dragonfly_cli.fields.downsample import TARGET_MPP, Downsample, target_downsample
from dragonfly_cli.fields.field import Field, LookPlan
from dragonfly_cli.fields.grid import SMALLEST_SHARE, Area, Grid
from dragonfly_cli.fields.named import named_boxes, named_outline
from dragonfly_cli.fields.outline import Outlined
from dragonfly_cli.fields.search import ZoomSearch
from dragonfly_cli.fields.sharpness import warn_of_blur
from dragonfly_cli.fields.tissue import Tissue, find_tissue
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import LookOptions
from dragonfly_cli.readers.source import Source, whole_of

_FIELDS_LOOKED_AT = 8  # the overview among them; some seconds on a CPU with the built-in model
_MUCH = 4.0  # times a field's size
_NEARLY = 1.25  # a slide or outline this much larger than a field is shown as one, at a little less detail


def plan_slide(source: Source, looking: LookOptions, canvas_wh: tuple[int, int]) -> LookPlan:
    """The fields of a slide; ``canvas_wh`` is the high view in pixels. Raises UsageError, InputError, NoInputError."""
    downsample = target_downsample(source, looking)
    field_wh = downsample.level_0_wh(canvas_wh)
    regions = named_boxes(source, looking, field_wh)
    has_scale = looking.mpp is not None or looking.level is not None
    if regions and not has_scale and not looking.roi:
        _warn_of_large_regions(source, regions, field_wh)
        return LookPlan(_region_fields(regions), time_limit=looking.time_limit)
    whole = whole_of(source)
    if not regions and not looking.roi and _fits(whole, field_wh):
        return LookPlan([Field(0, "overview", 0, whole)])
    outline = named_outline(source, looking, regions)  # before any pixel is read
    tissue = find_tissue(source)
    area, first = _searched_area(tissue, outline, regions)
    unsearched = LookPlan(first, None, tissue, looking.time_limit)
    planned = unsearched
    if not _fits(area.bounds, field_wh):
        cell_wh = field_wh if has_scale else _spanning(area.bounds, field_wh)
        if isinstance(area, Outlined) and not has_scale:
            cell_wh = min(cell_wh[0], area.bounds.width), min(cell_wh[1], area.bounds.height)
        planned = _with_search(unsearched, source, looking, Grid(area, area.bounds, cell_wh), downsample)
    if isinstance(area, Outlined):
        named = "what was outlined" if looking.roi else "the region" if len(regions) == 1 else "the regions"
        _warn_of_little_tissue(source, area, named, planned.search is not None)
    return planned


def _spanning(bounds: Box, field_wh: tuple[int, int]) -> tuple[int, int]:
    """A field a little larger where one nearly spans the area: of two side by side, most would be seen twice."""
    spans = zip(bounds.size_wh, field_wh, strict=True)
    nearly = max([1.0, *(length / side for length, side in spans if side < length <= _NEARLY * side)])
    return math.ceil(field_wh[0] * nearly), math.ceil(field_wh[1] * nearly)


def _with_search(plan: LookPlan, source: Source, looking: LookOptions, grid: Grid, downsample: Downsample) -> LookPlan:
    """The fields of ``plan``, and behind them as many of the grid as the budget leaves."""
    budget = looking.budget or _FIELDS_LOOKED_AT
    left = budget - len(plan.fields)
    if not grid.cells():
        return plan
    if left < 1:
        source.warnings.append(
            f"--budget {budget}: none of the {len(grid.cells())} fields with tissue was looked at closely"
        )
        return plan
    search = ZoomSearch(grid, left, looking.rank)
    even = zoom_fields(source, grid, search.even(), len(plan.fields))
    warn_of_blur(source, grid, downsample)
    return replace(plan, fields=[*plan.fields, *even], search=search)


def zoom_fields(source: Source, grid: Grid, boxes: list[Box], first_id: int) -> list[Field]:
    """Cells of a grid as fields; one that reaches beyond the slide, or beyond what was outlined, is moved into it."""
    whole = whole_of(source)
    if isinstance(grid.area, Outlined):
        boxes = [_moved_into(grid.bounds, box) for box in boxes]
    return [Field(first_id + number, "zoom", 0, _moved_into(whole, box)) for number, box in enumerate(boxes)]


def second_looks(source: Source, fields: list[Field], first_id: int) -> list[Field]:
    """The same fields with an eighth of a field more around them, so that what they show is framed otherwise."""
    looks = []
    for number, field in enumerate(fields):
        x, y, (width, height) = field.box.x, field.box.y, field.box.size_wh
        wider = Box(x - width // 8, y - height // 8, width + width // 4, height + height // 4)
        looks.append(Field(first_id + number, field.role, field.frame, _moved_into(whole_of(source), wider), field.id))
    return looks


def _moved_into(bounds: Box, box: Box) -> Box:
    """As far as it fits; where it does not fit at all it stays."""
    x, y = (
        max(start, min(at, start + room - length)) if length <= room else at
        for at, length, start, room in zip(
            (box.x, box.y), box.size_wh, (bounds.x, bounds.y), bounds.size_wh, strict=True
        )
    )
    return Box(x, y, box.width, box.height)


def _searched_area(tissue: Tissue, outline: shapely.Geometry | None, regions: list[Box]) -> tuple[Area, list[Field]]:
    """Where to zoom in, and the fields that show it as a whole."""
    if outline is None:
        return tissue, [Field(0, "overview", 0, tissue.bounds)]
    area = Outlined(tissue, outline)
    return area, _region_fields(regions or [area.bounds])


def _region_fields(boxes: list[Box]) -> list[Field]:
    return [Field(number, "region", 0, box) for number, box in enumerate(boxes)]


def _warn_of_large_regions(source: Source, regions: list[Box], field_wh: tuple[int, int]) -> None:
    """Says so where a region is shown in much less detail than fields are."""
    times = max(max(box.width / field_wh[0], box.height / field_wh[1]) for box in regions)
    if times > _MUCH:
        which = "the region" if len(regions) == 1 else "the largest region"
        source.warnings.append(
            f"{which} is looked at as a whole, with {times:.0f} times less detail than a field has; "
            f"{'--level 0' if source.mpp is None else f'--mpp {TARGET_MPP:g}'} searches it field by field"
        )


def _fits(box: Box, field_wh: tuple[int, int]) -> bool:
    return box.width <= _NEARLY * field_wh[0] and box.height <= _NEARLY * field_wh[1]


def _warn_of_little_tissue(source: Source, area: Outlined, named: str, is_searched: bool) -> None:
    """Says so where hardly any of the area, which is ``named`` so to the user, is tissue; and what that meant."""
    if not area.has_tissue:
        searched = ", so all of it was searched" if is_searched else ""
        source.warnings.append(f"hardly any tissue was found in {named}{searched}")
    elif area.tissue_share < SMALLEST_SHARE:
        searched = ", and only that was searched" if is_searched else ""
        source.warnings.append(f"only {area.tissue_share:.0%} of {named} is tissue{searched}")
