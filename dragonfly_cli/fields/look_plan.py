"""Which fields of a source are looked at, and whether the options that say where can be understood.

A photograph or a radiograph is one field, itself; of several frames a few are looked at, each a field; a slide is left
to ``slide_plan``.
"""

from dataclasses import replace

from dragonfly_cli.errors import UsageError
from dragonfly_cli.fields.field import Field, LookPlan, Role
from dragonfly_cli.fields.frames import check_frame, frames_to_look_at, parse_montage, parse_slices
from dragonfly_cli.fields.regions import named_boxes, parse_center, parse_fov, parse_region
from dragonfly_cli.options import LookOptions
from dragonfly_cli.readers.source import Source, whole_of

_STRIP = 20  # times as long as wide; the longest canvas is 6 times


def check_looking(looking: LookOptions) -> None:
    """Raises UsageError for options that cannot be understood or contradict each other; opens nothing."""
    if looking.frame is not None and (looking.slices is not None or looking.montage is not None):
        raise UsageError("--frame chooses one picture", "leave --frame out, or --slice and --montage")
    if looking.slices is not None:
        parse_slices(looking.slices)
    if looking.montage is not None:
        parse_montage(looking.montage)
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


def plan_looks(source: Source, looking: LookOptions, canvas_wh: tuple[int, int]) -> LookPlan:
    """The fields to look at, for a network whose high view has ``canvas_wh`` pixels.

    Of several frames those that ``looking`` names, or some that are spread evenly over the volume, ``looking.budget``
    of them at most; named regions are looked at in each of them. A slide is searched (see ``slide_plan``).
    Raises UsageError for what this source does not have, such as a frame or slice, counted from 0.
    """
    check_looking(looking)
    if source.kind == "slide":
        if looking.frame is not None:
            check_frame(source, looking.frame)  # a slide has one, and is looked at as it would be without
        from dragonfly_cli.fields.slide_plan import plan_slide

        plan = plan_slide(source, looking, canvas_wh)
    else:
        _refuse_what_slides_have(source, looking)
        plan = _plan_frames(source, looking, canvas_wh)
    _warn_of_strips(source, plan.fields)
    return plan


def _times_as_long(field: Field) -> float:
    return max(field.box.size_wh) / min(field.box.size_wh)


def _warn_of_strips(source: Source, fields: list[Field]) -> None:
    """Says so where a field is squeezed until what it shows cannot be recognised: canvases have few shapes."""
    longest = max(fields, key=_times_as_long)
    if (times := _times_as_long(longest)) > _STRIP:
        source.warnings.append(
            f"the {longest.role} is {times:.0f} times as long as wide, and is squeezed before it is looked at: "
            "--region chooses a part of it"
        )


def _plan_frames(source: Source, looking: LookOptions, canvas_wh: tuple[int, int]) -> LookPlan:
    is_one = source.frames == 1 and looking.frame is None and looking.slices is None
    frames = [0] if is_one or looking.montage else frames_to_look_at(source, looking)
    boxes = named_boxes(source, looking, canvas_wh)
    role: Role = "region" if boxes else "slice" if source.frames > 1 else "whole"
    places = [(frame, box) for frame in frames for box in boxes or [whole_of(source)]]
    return LookPlan([Field(number, role, frame, box) for number, (frame, box) in enumerate(places)])


def displayed_field(source: Source, looking: LookOptions, canvas_wh: tuple[int, int]) -> Field:
    """What is shown as it is: the first frame or part that was named, or all of it. No pixel is read.

    Of several frames it is the one in the middle where none is named.

    Raises what ``plan_looks`` does.
    """
    if source.kind != "slide":
        if source.frames > 1 and looking.frame is None and looking.slices is None:
            looking = replace(looking, slices=str(source.frames // 2))
            source.warnings.append(
                f"one of {source.frames} frames, that in the middle, is drawn; --slice or --frame draws another"
            )
        return plan_looks(source, looking, canvas_wh).fields[0]
    from dragonfly_cli.fields.named import named_part

    check_looking(looking)
    if looking.frame is not None:
        check_frame(source, looking.frame)
    return Field(0, "whole", 0, named_part(source, looking, canvas_wh))


def _refuse_what_slides_have(source: Source, looking: LookOptions) -> None:
    for option, value in (("--mpp", looking.mpp), ("--level", looking.level), ("--roi", looking.roi)):
        if value is not None:
            raise UsageError(
                f"{option}: {source.path} is not a slide, and is looked at as it is",
                "--region chooses a part of any image",
            )
