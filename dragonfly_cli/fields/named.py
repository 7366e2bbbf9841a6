"""What of a slide was named: by ``--region`` and ``--center``, or with outlines drawn in QuPath."""

from pathlib import Path

import shapely

from dragonfly_cli.errors import UsageError
from dragonfly_cli.fields.downsample import target_downsample
from dragonfly_cli.fields.outline import areas_of, bounds_of, read_outline
from dragonfly_cli.fields.regions import named_boxes
from dragonfly_cli.geometry import Box, ViewerPixels
from dragonfly_cli.options import LookOptions
from dragonfly_cli.readers.source import Source, whole_of


def named_outline(source: Source, looking: LookOptions, boxes: list[Box]) -> shapely.Geometry | None:
    """The named boxes and what was drawn, None where nothing was; raises UsageError where it lies elsewhere."""
    outlines = [shapely.box(*box.corners) for box in boxes]
    if looking.roi:
        outlines.append(_drawn_outline(source, looking, looking.roi))
    return shapely.union_all(outlines) if len(outlines) > 1 else next(iter(outlines), None)


def named_part(source: Source, looking: LookOptions, canvas_wh: tuple[int, int]) -> Box:
    """The first of the regions, or what is around the outlines, or where nothing was named, all of the slide."""
    boxes = named_boxes(source, looking, target_downsample(source, looking).level_0_wh(canvas_wh))
    if boxes:
        return boxes[0]
    outline = named_outline(source, looking, boxes)
    return bounds_of(outline) if outline else whole_of(source)


def viewer_pixels(source: Source, looking: LookOptions) -> ViewerPixels:
    """How QuPath counts the pixels of this image."""
    details = source.details()
    bounds = details.get("bounds") if looking.bounds_offset else None
    (stored_w, stored_h), (width, height) = details.get("stored_size") or source.size_wh, source.size_wh
    return ViewerPixels((bounds["x"], bounds["y"]) if bounds else (0, 0), (stored_w / width, stored_h / height))


def _drawn_outline(source: Source, looking: LookOptions, file: Path) -> shapely.Geometry:
    """What of the outlines of a file lies on the slide; what is left out is told."""
    offset_xy = viewer_pixels(source, looking).origin_xy
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
