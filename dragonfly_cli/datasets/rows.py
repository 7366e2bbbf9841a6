"""From one row of a data file to the picture and the conversation that it holds.

Three forms are read: ``question`` and ``answer``; ``conversations`` as a list of turns (``from``/``role`` and
``value``/``content``); and the reference's own, ``conversations`` as one Llama 3 text, or ``text`` as a caption.
The picture is ``image`` or ``image_url``, with ``frame`` and ``region`` where it has several frames or only a part of
it is meant. A column that is empty, as where tables of two forms were merged, is as none. A row that cannot be used is
named by its number; what it says is never repeated, since it may be private.
"""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unicodedata import normalize

from dragonfly_cli.engine.questions import CAPTION_INSTRUCTION
from dragonfly_cli.geometry import Box
from dragonfly_cli.output.files import is_text
from dragonfly_cli.output.table import column_name
from dragonfly_cli.parquet import UNDECODABLE

GROUP_COLUMNS = ("patient", "slide", "group")
COLUMNS = frozenset(
    (*GROUP_COLUMNS, "image", "image_url", "frame", "region", "split", "question", "answer", "conversations", "text")
)

TWO_ALIKE = "two columns have the same name"

_TRAIN = frozenset(("train", "training"))
_HELD_OUT = frozenset("val valid validation dev eval test held-out held_out".split())
_USER, _ASSISTANT = frozenset(("user", "human")), frozenset(("assistant", "gpt", "model"))
_PICTURE_MARK = "<image>"  # of other programs' files; the place of the picture is fixed here
_TURN = re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n(.*?)<\|eot_id\|>", re.DOTALL)
_SPECIAL = re.compile(r"<\|[^|<>]*\|>")
_COUNT_WITH_POINT = re.compile(r"-?[0-9]+\.0+")  # a number that went through a table of numbers with gaps
_BEGIN, _END = "<|begin_of_text|>", "<|end_of_text|>"


class BadRowError(ValueError):
    """A row that cannot be used; its text says why, without quoting it."""


@dataclass(frozen=True)
class Turn:
    """A question with its answer."""

    question: str
    answer: str
    system: str | None = None


@dataclass(frozen=True)
class Picture:
    """A picture that rows are about: a file, and which frame and part of it in level-0 pixels."""

    path: Path
    frame: int | None = None
    region: Box | None = None


@dataclass(frozen=True)
class Row:
    """``number`` counts from 1, as lines do. ``groups`` holds the row's patient, slide and group, where it has them.

    ``picture_hash`` tells a picture also under another name, once its file was read; ``patients`` are hashes of whom it
    shows, and of the study, where a DICOM file says that and it counts. They may be reversed, and are for comparing.
    """

    number: int
    picture: Picture
    turns: tuple[Turn, ...]
    groups: Mapping[str, str]
    is_held_out: bool | None  # None: the file does not say
    picture_hash: str | None = None
    patients: frozenset[str] = field(default=frozenset(), repr=False)


def as_row(number: int, content: Any, folder: Path) -> Row:
    """The row that a decoded line holds, or why there is none; raises BadRowError."""
    if isinstance(content, BadRowError):
        raise content
    if not isinstance(content, dict):
        raise BadRowError("it is not an object with named columns")
    for name, value in content.items():
        if value is UNDECODABLE:
            raise BadRowError(f"the column {name} holds a value that cannot be decoded")
    named = {column_name(name): value for name, value in content.items()}
    if len(named) < len(content):
        raise BadRowError(TWO_ALIKE)
    content = named
    gaps = {name: value for name, value in content.items() if _is_gap(value)}
    content = {name: value for name, value in content.items() if name not in gaps}
    groups = {name: key for name in GROUP_COLUMNS if (key := _group(content.get(name)))}
    return Row(number, _picture(content, folder), _turns(content, gaps), groups, _is_held_out(content.get("split")))


def _group(value: Any) -> str:
    """The same text for 7, 7.0, "7", "7.0" and "7 ", and however accents are put together; empty without a value."""
    text = "" if value is None else normalize("NFKC", str(_as_count(value))).strip()
    return text.partition(".")[0] if _COUNT_WITH_POINT.fullmatch(text) else text


def _as_count(value: Any) -> Any:
    """A whole number may come as 2.0, from tables of numbers with gaps."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _picture(content: dict[str, Any], folder: Path) -> Picture:
    name = content.get("image") or content.get("image_url")
    if not isinstance(name, str):
        raise BadRowError("the column image holds no path")
    if "\0" in name or not _can_be_path(name):
        raise BadRowError("the path of the image has a zero byte or half a letter in it")
    frame = _as_count(content.get("frame"))
    if frame is not None and (not _is_count(frame) or frame < 0):
        raise BadRowError("frame is not a number from 0 on")
    return Picture(folder / name, frame, _region(content.get("region")))


def _can_be_path(name: str) -> bool:
    """Whether the system can be asked for it: the bytes of a name that is not UTF-8 are no hindrance."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def _region(value: Any) -> Box | None:
    if value is None:
        return None
    if isinstance(value, dict):
        value = [value.get(name) for name in ("x", "y", "width", "height")]
    numbers = list(map(_as_count, value)) if isinstance(value, list | tuple) else []
    if len(numbers) != 4 or not all(map(_is_count, numbers)):
        raise BadRowError("region is not a list of four whole numbers: x, y, width, height in pixels")
    try:
        return Box(*numbers)
    except ValueError:
        raise BadRowError("region is empty") from None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_gap(value: Any) -> bool:
    """Whether it is an empty cell of a table: of text, of numbers (NaN), or of conversations (an empty list)."""
    return value is None or value != value or value == [] or (isinstance(value, str) and not value.strip())


def _is_held_out(split: Any) -> bool | None:
    if split is None:
        return None
    name = str(split).strip().lower()
    if name not in _TRAIN | _HELD_OUT:
        raise BadRowError("split is neither train nor a name of a held-out part (val, validation, dev, test)")
    return name in _HELD_OUT


def _turns(content: dict[str, Any], gaps: dict[str, Any]) -> tuple[Turn, ...]:
    """The conversation in the first form that is filled; ``gaps`` are the empty columns, to tell what is missing."""
    conversations = content.get("conversations")
    if isinstance(conversations, str):
        return _paired(_parsed(conversations))
    if isinstance(conversations, list | tuple):
        return _paired([_said(turn) for turn in conversations])
    if "question" in content:
        return _paired([("user", content["question"]), ("assistant", (content | gaps).get("answer"))])
    if "text" in content:
        return _paired([("user", CAPTION_INSTRUCTION), ("assistant", content["text"])])
    for name in ("question", "conversations", "text"):
        if isinstance(gaps.get(name), str | list):
            raise BadRowError(f"the column {name} is empty")
    raise BadRowError("there is no question, no conversations and no text")


def _said(turn: Any) -> tuple[str, Any]:
    if not isinstance(turn, dict):
        raise BadRowError("a turn of the conversation is not an object")
    return str(_either(turn, "from", "role")).lower(), _either(turn, "value", "content")


def _either(named: dict[str, Any], *names: str) -> Any:
    """The first of these that is filled, as a table gives every turn all columns; else an empty one, or None."""
    values = [named[name] for name in names if named.get(name) is not None]
    return next((value for value in values if not _is_gap(value)), values[0] if values else None)


def _parsed(text: str) -> list[tuple[str, Any]]:
    """Llama 3's chat text as turns; nothing may stand between them."""
    text = text.strip().removeprefix(_BEGIN).removesuffix(_END)
    if _TURN.sub("", text).strip():
        raise BadRowError("conversations is not whole turns of Llama 3's chat text")
    return [(role.lower(), said) for role, said in _TURN.findall(text)]


def _paired(said: list[tuple[str, Any]]) -> tuple[Turn, ...]:
    """Questions with their answers; a system turn goes with the question that follows it."""
    turns = []
    system = question = None
    for role, text in said:
        if role == "system" and question is None:
            system = _plain(text, "system prompt")
        elif role in _USER and question is None:
            question = _plain(text, "question")
        elif role in _ASSISTANT and question is not None:
            turns.append(Turn(question, _plain(text, "answer"), system))
            system = question = None
        else:
            raise BadRowError("user and assistant do not take turns")
    if question is not None or not turns:
        raise BadRowError("a question has no answer")
    return tuple(turns)


def _in_digits(number: float) -> str | None:
    """None of what is no number, or has more digits than Python writes."""
    try:
        return str(_as_count(number)) if math.isfinite(number) else None
    except (OverflowError, ValueError):
        return None


def _plain(text: Any, what: str) -> str:
    if isinstance(text, int | float) and not isinstance(text, bool):
        text = _in_digits(text)
    if not isinstance(text, str):
        raise BadRowError(f"the {what} is no text")
    text = text.replace(_PICTURE_MARK, "").strip()
    if not text:
        raise BadRowError(f"the {what} is empty")
    if not is_text(text):
        raise BadRowError(f"the {what} holds half a character")
    if _SPECIAL.search(text):
        raise BadRowError(f"the {what} holds one of the tokens that structure a prompt")
    return text
