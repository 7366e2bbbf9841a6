"""Pictures of what the model sees: pixel for pixel, so that a wrong window or a wrong box can be seen.

Pure drawing: what is drawn comes from a field's view and from the crop geometry of ``dragonfly_med``.
"""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageOps

from dragonfly_cli.errors import UsageError
from dragonfly_cli.fields import Field
from dragonfly_cli.readers.source import Source, View, whole_of
from dragonfly_med.views import ViewPlan

_GAP_PX = 4
_FIELD_GAP_PX = 10 * _GAP_PX
_GAP_COLOUR = (255, 255, 255)
_FRAME_PX = _GAP_PX // 2
_FRAME_COLOUR = (230, 120, 0)
_BOX_COLOUR = (0, 120, 255)
_THUMBNAIL_SIDE_PX = 1024
_LARGEST_DISPLAY_PX = 100_000_000


def crops_picture(canvases: list[Image.Image], plan: ViewPlan, zoomed_in: Sequence[int] = ()) -> Image.Image:
    """The low and the middle canvas side by side, the high canvas below, with a gap between all crops.

    Every crop is pasted as it is, so the picture holds the very pixels that the model is given. The high crops that it
    zoomed in on have a frame, which lies in the gap; for that there is a gap around the picture as well.
    """
    low, middle, high = (
        _cut_apart(canvas, grid, plan.side_px) for canvas, grid in zip(canvases, plan.grids, strict=True)
    )
    top = _beside(low, middle)
    high_y = top.height + 3 * _GAP_PX
    picture = Image.new("RGB", (max(top.width, high.width), high_y + high.height), _GAP_COLOUR)
    picture.paste(top, (0, 0))
    picture.paste(high, (0, high_y))
    return _framed(picture, plan, high_y, zoomed_in) if zoomed_in else picture


def _framed(picture: Image.Image, plan: ViewPlan, high_y: int, zoomed_in: Sequence[int]) -> Image.Image:
    framed = ImageOps.expand(picture, _GAP_PX, _GAP_COLOUR)
    draw = ImageDraw.Draw(framed)
    side = plan.side_px
    for place in map(plan.high_crop, zoomed_in):
        x = _GAP_PX + place.column * (side + _GAP_PX)
        y = _GAP_PX + high_y + place.row * (side + _GAP_PX)
        edges = x - _FRAME_PX, y - _FRAME_PX, x + side + _FRAME_PX - 1, y + side + _FRAME_PX - 1
        draw.rectangle(edges, outline=_FRAME_COLOUR, width=_FRAME_PX)
    return framed


def sheet_of(pictures: list[Image.Image], gap_px: int = _FIELD_GAP_PX) -> Image.Image:
    """Pictures one below the other; those of several fields have a wider gap between them than their crops have."""
    height = sum(picture.height for picture in pictures) + gap_px * (len(pictures) - 1)
    sheet = Image.new("RGB", (max(picture.width for picture in pictures), height), _GAP_COLOUR)
    y = 0
    for picture in pictures:
        sheet.paste(picture, (0, y))
        y += picture.height + gap_px
    return sheet


def display_picture(view: View) -> Image.Image:
    """The display image at its own resolution; raises UsageError where that would not fit in memory.

    Nothing else of the file is in it: a colour profile may name a scanner, or whoever somebody wrote there.
    """
    width, height = view.size
    if width * height > _LARGEST_DISPLAY_PX:
        raise UsageError(
            f"--what display would draw {width} x {height} pixels", "give a --region, or --what fields or crops"
        )
    picture = view.resize((width, height)).convert("RGB")
    picture.info.clear()
    return picture


def fields_picture(source: Source, frame: int, fields: list[Field]) -> Image.Image:
    """A thumbnail of the whole frame with a box around every field."""
    whole = source.view(whole_of(source), frame)
    scale = min(1.0, _THUMBNAIL_SIDE_PX / max(whole.size))
    size_wh = max(1, round(whole.size[0] * scale)), max(1, round(whole.size[1] * scale))
    picture = whole.resize(size_wh).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for field in fields:
        left, top, right, bottom = field.box.corners_on(size_wh, source.size_wh)
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=_BOX_COLOUR, width=3)
    return picture


def _cut_apart(canvas: Image.Image, grid: tuple[int, int], side: int) -> Image.Image:
    columns, rows = grid
    step = side + _GAP_PX
    picture = Image.new("RGB", (columns * step - _GAP_PX, rows * step - _GAP_PX), _GAP_COLOUR)
    for row in range(rows):
        for column in range(columns):
            x, y = column * side, row * side
            picture.paste(canvas.crop((x, y, x + side, y + side)), (column * step, row * step))
    return picture


def _beside(left: Image.Image, right: Image.Image) -> Image.Image:
    picture = Image.new("RGB", (left.width + 3 * _GAP_PX + right.width, max(left.height, right.height)), _GAP_COLOUR)
    picture.paste(left, (0, 0))
    picture.paste(right, (left.width + 3 * _GAP_PX, 0))
    return picture
