"""A picture of where the model looked: the whole image with tissue and fields on it, the best fields enlarged beside.

Fields have the colour of what they say (``votes``), a number that record and GeoJSON know them by, and P(yes) where the
question has one. One panel per question, one below the other.
"""

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from dragonfly_cli.geometry import Box
from dragonfly_cli.output.fonts import Font, font_for
from dragonfly_cli.output.pictures import sheet_of
from dragonfly_cli.output.votes import (
    AGREES_COLOUR,
    BETWEEN,
    NO_COLOUR,
    YES_COLOUR,
    Colour,
    agreement,
    certainty,
    colour,
    has_frames,
    name_of,
    rounded,
    says_yes_or_no,
    support,
    told_mpp,
    verdict,
)
from dragonfly_cli.readers.source import Source, whole_of

Corners = tuple[int, int, int, int]  # left, top, right, bottom in the picture

_MAP_SIDE_PX = 1100
_BEST_FIELDS = 3
_BEST_WIDTH_PX = 440
_MARGIN_PX = 24
_TITLE_LINE_PX = 34
_TITLE_LINES = 4
_STRIP_PX = 300
_LEGEND_PX = 120
_BARRED_PX = 90  # of a smaller picture a scale bar hides too much
_LINE_PX = 4
_TAG_PX = 20
_INK: Colour = (30, 30, 30)
_PALE: Colour = (110, 110, 110)
_PAPER: Colour = (255, 255, 255)
_TISSUE: Colour = (20, 150, 60)
_ROUND = (1, 2, 5)  # a scale bar is one of these times a power of ten


def overlay_picture(source: Source, records: list[dict[str, Any]], mask: np.ndarray | None) -> Image.Image:
    """``mask`` is the tissue over the whole frame, [rows, columns], or None where none was looked for."""
    return sheet_of([_panel(source, record, mask) for record in records], gap_px=0)


def _panel(source: Source, record: dict[str, Any], mask: np.ndarray | None) -> Image.Image:
    ranked = sorted(record["fields"], key=lambda field: support(record, field), reverse=True)
    once = [field for field in ranked if field["role"] != "overview" and field["second_look_of"] is None]
    best = once[:_BEST_FIELDS] or ranked[:1]
    plan = _map(source, record, mask, best)
    insets = [_inset(source, record, field) for field in best]
    height = max(plan.height, sum(inset.height + _MARGIN_PX for inset in insets) - _MARGIN_PX)
    width = plan.width + 3 * _MARGIN_PX + _BEST_WIDTH_PX
    font = font_for(26, _title(record))
    title = wrapped(_title(record), font, width - 2 * _MARGIN_PX)
    head = 50 + _TITLE_LINE_PX * len(title)
    panel = Image.new("RGB", (width, height + head + _MARGIN_PX), _PAPER)
    _write_head(panel, title, font, record, best[0]["frame"])
    panel.paste(plan, (_MARGIN_PX, head))
    y = head
    for inset in insets:
        panel.paste(inset, (plan.width + 2 * _MARGIN_PX, y))
        y += inset.height + _MARGIN_PX
    return panel


def _title(record: dict[str, Any]) -> str:
    return f"{record['question'] or 'Description:'}  {record['answer']} {certainty(record)}".rstrip()


def _write_head(panel: Image.Image, title: list[str], font: Font, record: dict[str, Any], frame: int) -> None:
    draw = ImageDraw.Draw(panel)
    rule = f", combined by {record['aggregate']}" if record["aggregate"] else ""
    looked = f"{len(record['fields'])} field{'s' * (len(record['fields']) != 1)} looked at{rule}"
    shown = f"; below is frame {frame}" if has_frames(record) else ""
    model = f"model {record['model']['id']}, {record['notice']}"
    width = panel.width - 2 * _MARGIN_PX
    for number, line in enumerate(title):
        draw.text((_MARGIN_PX, 16 + _TITLE_LINE_PX * number), line, _INK, font)
    below = 18 + _TITLE_LINE_PX * len(title)
    draw.text((_MARGIN_PX, below), _shortened(f"{looked}{shown}; {model}", font_for(16), width), _PALE, font_for(16))


def _map(source: Source, record: dict[str, Any], mask: np.ndarray | None, best: list[dict[str, Any]]) -> Image.Image:
    """The frame of the best field, with the fields on it."""
    frame = best[0]["frame"]
    view = source.view(whole_of(source), frame)
    scale = _MAP_SIDE_PX / max(view.size)
    size_wh = max(1, round(view.size[0] * scale)), max(1, round(view.size[1] * scale))
    picture = view.resize(size_wh).convert("RGB")
    if mask is not None:
        picture.paste(_TISSUE, mask=_edge_of(mask, size_wh))
    draw = ImageDraw.Draw(picture)
    fields = [field for field in record["fields"] if field["frame"] == frame]
    for field in sorted(fields, key=lambda field: (field["role"] != "overview", support(record, field))):
        left, top, right, bottom = Box(**field["box"]).corners_on(size_wh, source.size_wh)
        box = left, top, max(left + 4, right - 1), max(top + 4, bottom - 1)
        _draw_frame(draw, box, colour(record, field), 2 if field["role"] == "overview" else _LINE_PX)
    for field in sorted(fields, key=lambda field: field in best):
        _tag(draw, record, field, Box(**field["box"]).corners_on(size_wh, source.size_wh), always=field in best)
    picture = _with_room(picture)
    _draw_scale_bar(picture, source, size_wh[0] / source.size_wh[0])
    _draw_legend(picture, record, mask is not None)
    return picture


def _with_room(picture: Image.Image) -> Image.Image:
    """Paper below a strip, most of which scale bar and legend would hide, or be cut off by its edge."""
    if min(picture.size) >= _STRIP_PX:
        return picture
    paper = Image.new("RGB", (max(picture.width, _STRIP_PX), picture.height + _LEGEND_PX), _PAPER)
    paper.paste(picture)
    return paper


def _draw_frame(draw: ImageDraw.ImageDraw, box: Corners, rgb: Colour, width: int) -> None:
    """A line between two pale ones: red alone is hardly visible on pink tissue, nor is where one field ends."""
    left, top, right, bottom = box
    draw.rectangle(box, outline=_PAPER, width=width + 2)
    if right - left > 4 and bottom - top > 4:
        draw.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline=rgb, width=width)


def _tag(
    draw: ImageDraw.ImageDraw, record: dict[str, Any], field: dict[str, Any], corners: Corners, always: bool
) -> None:
    """The field's number, and P(yes), on a plate in its upper left corner; as much as it has room for."""
    font = font_for(16)
    left, top, right, bottom = corners
    texts = [str(field["id"])]
    if says_yes_or_no(field):
        texts.insert(0, f"{field['id']}: {rounded(field['probabilities']['yes'])}")
    room = right - left - 2 * _LINE_PX if bottom - top > 2 * _TAG_PX else 0
    fitting = [text for text in texts if font.getlength(text) + 8 <= room] or texts[-1:] * always
    if fitting:
        x, y = max(0, left + 1), max(0, top + 1)
        draw.rectangle((x, y, x + font.getlength(fitting[0]) + 8, y + _TAG_PX), colour(record, field))
        draw.text((x + 4, y + 1), fitting[0], _PAPER, font)


def _inset(source: Source, record: dict[str, Any], field: dict[str, Any]) -> Image.Image:
    box = Box(**field["box"])
    view = source.view(box, field["frame"])
    shown_w, shown_h = view.size
    height = max(40, min(_BEST_WIDTH_PX, round(_BEST_WIDTH_PX * shown_h / shown_w)))
    width = min(_BEST_WIDTH_PX, max(40, round(height * shown_w / shown_h)))
    inset = Image.new("RGB", (_BEST_WIDTH_PX, height + 26), _PAPER)
    picture = view.resize((width, height)).convert("RGB")
    if min(picture.size) >= _BARRED_PX:
        _draw_scale_bar(picture, source, width / box.width)
    inset.paste(picture, (0, 26))
    draw = ImageDraw.Draw(inset)
    draw.rectangle((0, 26, width - 1, height + 25), outline=colour(record, field), width=_LINE_PX)
    mpp = "" if field["mpp"] is None else f", {told_mpp(field['mpp'])} um per pixel"
    text = f"{name_of(record, field)}: {_said(field)}{mpp}"
    font = font_for(16, text)
    draw.text((0, 2), _shortened(text, font, _BEST_WIDTH_PX), _INK, font)
    return inset


def _said(field: dict[str, Any]) -> str:
    return f"P(yes) {rounded(field['probabilities']['yes'])}" if says_yes_or_no(field) else verdict(field)


def _draw_scale_bar(picture: Image.Image, source: Source, scale: float) -> None:
    """A bar of a round length, about a fifth of the width; in pixels where the image has no scale."""
    mpp = source.mpp[0] if source.mpp else 1.0
    length = round_length(picture.width / 5 / scale * mpp)
    bar = round(length / mpp * scale)
    text = f"{length:g} px" if source.mpp is None else f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} um"
    draw, font = ImageDraw.Draw(picture), font_for(14)
    plate = max(bar, round(draw.textlength(text, font))) + 16
    x, y = 10, picture.height - 46
    draw.rectangle((x, y, x + plate, y + 36), _PAPER)
    draw.text((x + 8, y + 3), text, _INK, font)
    draw.rectangle((x + 8, y + 25, x + 8 + bar, y + 29), _INK)


def round_length(wanted: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above ``wanted``."""
    power = 10.0 ** np.floor(np.log10(wanted))
    return float(max(step * power for step in _ROUND if step * power <= wanted * (1 + 1e-9)))


def _draw_legend(picture: Image.Image, record: dict[str, Any], has_tissue: bool) -> None:
    has_yes_no = says_yes_or_no(record)
    entries = [("says yes", YES_COLOUR)] if has_yes_no else [(agreement(record), AGREES_COLOUR)]
    entries += [("undecided", BETWEEN), ("says no", NO_COLOUR)] if has_yes_no else [("says other", BETWEEN)]
    entries += [("tissue", _TISSUE)] if has_tissue else []
    draw, font = ImageDraw.Draw(picture), font_for(14)
    width = 38 + max(74, *(round(font.getlength(text)) for text, _ in entries))
    x, y = picture.width - width - 10, picture.height - 20 * len(entries) - 20
    draw.rectangle((x, y, x + width, y + 20 * len(entries) + 10), _PAPER)
    for number, (text, rgb) in enumerate(entries):
        draw.rectangle((x + 8, y + 9 + 20 * number, x + 22, y + 21 + 20 * number), rgb)
        draw.text((x + 30, y + 6 + 20 * number), text, _INK, font)


def _edge_of(mask: np.ndarray, size_wh: tuple[int, int]) -> Image.Image:
    """A line two pixels wide along the edge of a mask, as a picture of ``size_wh``."""
    large = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size_wh, Image.Resampling.BILINEAR)) > 127
    padded = np.pad(large, 2)
    eroded = large.copy()
    for dx, dy in ((-2, 0), (2, 0), (0, -2), (0, 2)):
        eroded &= padded[2 + dy : 2 + dy + large.shape[0], 2 + dx : 2 + dx + large.shape[1]]
    return Image.fromarray((large & ~eroded).astype(np.uint8) * 255)


def wrapped(text: str, font: Font, width: int) -> list[str]:
    """Lines no wider than ``width``, at most ``_TITLE_LINES`` of them."""
    words, lines = text.split(), [""]
    for number, word in enumerate(words):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width and lines[-1]:
            if len(lines) == _TITLE_LINES:
                return [*lines[:-1], _shortened(f"{lines[-1]} {' '.join(words[number:])}", font, width)]
            lines.append(word)
        else:
            lines[-1] = longer
    return [_shortened(line, font, width) for line in lines]


def _shortened(text: str, font: Font, width: int) -> str:
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
