"""Which boxes of a source the model is shown: fields of view.

A photograph or a radiograph is one field, itself; a slide has an overview field; of several frames a few are looked
at, each a field. How a field is cut into crops is not decided here: that belongs to the weights
(``dragonfly_med.views``).
"""

from dragonfly_cli.errors import UsageError
from dragonfly_cli.fields.field import Field, LookPlan, Role
from dragonfly_cli.fields.frames import parse_montage, pick, spread
from dragonfly_cli.fields.regions import centered_box, parse_center, parse_fov, parse_region, region_box
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import LookOptions
from dragonfly_cli.readers.source import Source, View, spatial_order

__all__ = [
    "Field",
    "LookPlan",
    "Role",
    "arranged",
    "check_looking",
    "displayed_field",
    "field_mpp",
    "field_view",
    "plan_fields",
    "plan_looks",
    "spread",
]

_NOTHING_SAID = LookOptions()
PUBLISHED_V1_CANVAS_WH = (1344, 896)
FRAMES_LOOKED_AT = 8


def check_looking(looking: LookOptions) -> None:
    """Raises UsageError for options that cannot be understood or contradict each other; opens nothing."""
    for region in looking.region or ():
        parse_region(region)
    if looking.center:
        parse_center(looking.center)
    if looking.fov:
        parse_fov(looking.fov)
    for option, value in (("--mpp", looking.mpp), ("--time-limit", looking.time_limit)):
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"{option} must be above 0, not {value:g}", "leave it out for the default")
    if looking.fov and not looking.center:
        raise UsageError("--fov is the size of the field at --center, which is missing", "give --center X,Y")
    if looking.roi_class and not looking.roi:
        raise UsageError("--roi-class chooses among the outlines of --roi, which is missing", "give --roi FILE.geojson")
    if looking.mpp is not None and looking.level is not None:
        raise UsageError("--mpp and --level both say the scale", "give one of them")


def plan_fields(source: Source, looking: LookOptions = _NOTHING_SAID) -> list[Field]:
    """``plan_looks`` for the published network, without a search."""
    return plan_looks(source, looking).fields


def plan_looks(
    source: Source,
    looking: LookOptions = _NOTHING_SAID,
    canvas_wh: tuple[int, int] = PUBLISHED_V1_CANVAS_WH,
) -> LookPlan:
    """The fields to look at, for a network whose high view has ``canvas_wh`` pixels.

    Of several frames those that ``looking`` names, or some that are spread evenly over the volume, ``looking.budget``
    of them at most; named regions are looked at in each of them. A slide is searched (see ``slide_plan``).
    Raises UsageError for what this source does not have, such as a frame or slice, counted from 0.
    """
    check_looking(looking)
    if source.kind == "slide":
        if looking.frame is not None:
            _check_frame(source, looking.frame)  # a slide has one, and is looked at as it would be without
        from dragonfly_cli.fields.slide_plan import plan_slide

        return plan_slide(source, looking, canvas_wh)
    _refuse_what_slides_have(source, looking)
    is_one = source.frames == 1 and looking.frame is None and looking.slices is None
    frames = [0] if is_one or looking.montage else _frames_to_look_at(source, looking, FRAMES_LOOKED_AT)
    whole = Box(0, 0, *source.size_wh)
    boxes = [region_box(source, region) for region in looking.region or ()]
    if looking.center:
        boxes.append(centered_box(source, looking.center, looking.fov, canvas_wh))
    role: Role = "region" if boxes else "slice" if source.frames > 1 else "whole"
    places = [(frame, box) for frame in frames for box in boxes or [whole]]
    return LookPlan([Field(number, role, frame, box) for number, (frame, box) in enumerate(places)])


def displayed_field(source: Source, looking: LookOptions, canvas_wh: tuple[int, int]) -> Field:
    """What is shown as it is: the first frame or part that was named, or all of it. No pixel is read.

    Raises what ``plan_looks`` does.
    """
    if source.kind != "slide":
        return plan_looks(source, looking, canvas_wh).fields[0]
    from dragonfly_cli.fields.slide_plan import named_part

    check_looking(looking)
    if looking.frame is not None:
        _check_frame(source, looking.frame)
    return Field(0, "whole", 0, named_part(source, looking, canvas_wh))


def _refuse_what_slides_have(source: Source, looking: LookOptions) -> None:
    for option, value in (("--mpp", looking.mpp), ("--level", looking.level), ("--roi", looking.roi)):
        if value is not None:
            raise UsageError(
                f"{option}: {source.path} is not a slide, and is looked at as it is",
                "--region chooses a part of any image",
            )


def _refuse_what_series_have(source: Source, looking: LookOptions) -> None:
    for option, value in (("--slice", looking.slices), ("--montage", looking.montage)):
        if value is not None:
            raise UsageError(
                f"{option} is for images with slices or frames, and {source.path} is a slide",
                "leave it out; --region chooses a part of a slide",
            )


def arranged(source: Source, looking: LookOptions) -> Source:
    """The source itself, or with ``--montage`` several of its frames as one picture. Raises UsageError."""
    if source.kind == "slide":
        _refuse_what_series_have(source, looking)
    if looking.montage is None:
        return source
    columns, rows = parse_montage(looking.montage)
    if source.frames == 1:  # a montage of it would be one tile amid black ones
        source.warnings.append("--montage is for several frames: there is only one, which is shown as it is")
        return source
    from dragonfly_cli.fields.montage import Montage

    return Montage(source, _frames_to_look_at(source, looking, columns * rows), (columns, rows))


def _frames_to_look_at(source: Source, looking: LookOptions, most: int) -> list[int]:
    """The frames that were named, all of them; or else ``most`` or the budget of them, spread evenly."""
    if looking.frame is not None:
        _check_frame(source, looking.frame)
        return [looking.frame]
    order = spatial_order(source)
    chosen = list(order) if looking.slices is None else pick(order, looking.slices, str(source.path))
    limit = looking.budget or (len(chosen) if looking.slices else most)
    shown = [chosen[number] for number in spread(len(chosen), limit)]
    if len(shown) < len(chosen):
        source.warnings.append(
            f"{len(shown)} of {len(chosen)} frames were looked at; --budget looks at more, --slice or --frame at others"
        )
    return shown


def _check_frame(source: Source, frame: int) -> None:
    if not 0 <= frame < source.frames:
        raise UsageError(
            f"--frame {frame}: {source.path} has {source.frames} frame{'s' * (source.frames > 1)}",
            f"give one from 0 to {source.frames - 1}" if source.frames > 1 else "leave it out: there is one picture",
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
