"""The loss over the steps as a small PNG, drawn with Pillow alone."""

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

_SIZE_WH = (960, 540)
_LEFT, _TOP, _RIGHT, _BOTTOM = 90, 50, 930, 480
_GRID, _INK = (225, 225, 225), (60, 60, 60)
_TRAINING, _HELD_OUT = (30, 110, 200), (210, 90, 20)
_LINES = 5  # of the grid, besides the axis

Points = list[tuple[float, float]]


def loss_curve(history: Sequence[dict[str, Any]]) -> Image.Image:
    """The training loss and the held-out loss, from the log of a run; where nothing was logged, an empty frame."""
    curves = {
        "training": (_points(history, "loss"), _TRAINING),
        "held out": (_points(history, "eval_loss"), _HELD_OUT),
    }
    everything = [point for points, _ in curves.values() for point in points]
    steps = max((step for step, _ in everything), default=1.0)
    highest = max((loss for _, loss in everything), default=1.0) or 1.0
    picture = Image.new("RGB", _SIZE_WH, "white")
    draw = ImageDraw.Draw(picture)
    _draw_axes(draw, steps, highest)
    for number, (name, (points, colour)) in enumerate(curves.items()):
        if not points:
            continue
        _write(draw, (_LEFT + 150 * number, 16), name, colour)
        placed = [_place(point, steps, highest) for point in points]
        draw.line(placed, fill=colour, width=2)
        for x, y in placed if len(placed) <= 50 else ():
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
    return picture


def _points(history: Sequence[dict[str, Any]], name: str) -> Points:
    return [(entry["step"], entry[name]) for entry in history if name in entry]


def _place(point: tuple[float, float], steps: float, highest: float) -> tuple[float, float]:
    return _LEFT + (_RIGHT - _LEFT) * point[0] / steps, _BOTTOM - (_BOTTOM - _TOP) * point[1] / highest


def _draw_axes(draw: ImageDraw.ImageDraw, steps: float, highest: float) -> None:
    for part in range(_LINES + 1):
        _, y = _place((0, highest * part / _LINES), steps, highest)
        draw.line([(_LEFT, y), (_RIGHT, y)], fill=_GRID)
        _write(draw, (16, y - 8), f"{highest * part / _LINES:.3g}", _INK)
    for step in sorted({round(steps * part / _LINES) for part in range(_LINES + 1)}):
        x, _ = _place((step, 0), steps, highest)
        _write(draw, (x - 10, _BOTTOM + 10), str(step), _INK)
    draw.line([(_LEFT, _TOP), (_LEFT, _BOTTOM), (_RIGHT, _BOTTOM)], fill=_INK, width=2)
    _write(draw, ((_LEFT + _RIGHT) / 2 - 20, _BOTTOM + 32), "step", _INK)


def _write(draw: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, colour: tuple[int, int, int]) -> None:
    draw.text(xy, text, fill=colour, font=ImageFont.load_default(16))
