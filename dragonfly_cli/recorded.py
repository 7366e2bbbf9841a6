"""What a record says was asked, of which image and of which model, read back into what the program works with.

A record may have been written by hand or on another machine, so everything in it is checked. Non-goal: asking again.
"""

import json
import os
from dataclasses import dataclass, fields, replace
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from dragonfly_cli.engine.checkpoints import Checkpoint, find_checkpoint
from dragonfly_cli.engine.forms import options_fault
from dragonfly_cli.engine.questions import YES_NO, Question, QuestionKind
from dragonfly_cli.engine.schema import schema_fault
from dragonfly_cli.errors import InputError, ModelError, NoInputError
from dragonfly_cli.fields import Field
from dragonfly_cli.geometry import Box
from dragonfly_cli.option_values import Control
from dragonfly_cli.options import AnswerOptions, LookOptions, OpenOptions
from dragonfly_cli.output.files import is_text
from dragonfly_cli.output.record import SCHEMA_VERSION

Record = dict[str, Any]
Options = TypeVar("Options")

_WHOLE = 1 + 1e-3  # of a sum of probabilities, with its rounding
_NEEDED = ("schema_version", "image", "source", "question", "answer", "probabilities", "fields", "model", "settings")
_HINT = "give a file that dragonfly ask --json -o has written"


@dataclass(frozen=True)
class RecordedQuestion:
    """What was asked, of what, and of whom."""

    image: Path
    opening: OpenOptions
    looking: LookOptions
    answering: AnswerOptions
    question: Question
    fields: list[Field]
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Records:
    """What a file holds: where each record stands in it, as an error names that, and the record.

    ``torn`` is where the last line stands if it ends in its middle, as a run that was killed leaves it.
    """

    placed: list[tuple[str, Record]]
    torn: str | None

    @property
    def are_of_several_images(self) -> bool:
        return len({str(record["image"]) for _, record in self.placed}) > 1


def read_records(file: Path) -> Records:
    """The records of a file that ``--json`` or ``-f jsonl`` wrote, or ``batch --records``, whose failed rows have none.

    Raises InputError if it is something else.
    """
    rows, torn = _load(file)
    records = [(place, row) for place, row in rows if not (isinstance(row, dict) and row.get("status") == "failed")]
    if not records:
        raise _no_record(str(file), "it holds only failed rows" if rows else "it is empty")
    for place, record in records:
        missing = [name for name in _NEEDED if not isinstance(record, dict) or name not in record]
        if missing:
            raise _no_record(place, f"it has no {missing[0]}")
        if record["schema_version"] != SCHEMA_VERSION:
            raise _no_record(place, f"its schema_version is {record['schema_version']}, and {SCHEMA_VERSION} is known")
    return Records(records, torn)


def _load(file: Path) -> tuple[list[tuple[str, Any]], str | None]:
    """Every row and its place, of one JSON text or one a line; and the place of a last line that was cut off."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise NoInputError(f"no record {file}", "check the path") from None
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}", _HINT) from None
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):
        return _load_lines(file, content.split(b"\n"))
    if not isinstance(whole, list):
        return [(str(file), whole)], None
    return [(f"{file}, record {number}", row) for number, row in enumerate(whole, start=1)], None


def _load_lines(file: Path, lines: list[bytes]) -> tuple[list[tuple[str, Any]], str | None]:
    rows: list[tuple[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        place = f"{file}, line {number}"
        try:
            if line.strip():
                rows.append((place, json.loads(line)))
        except (ValueError, RecursionError):
            if rows and number == len(lines):
                return rows, place
            raise _no_record(place if rows else str(file), "it is not JSON") from None
    return rows, None


def _no_record(place: str, why: str) -> InputError:
    return InputError(f"{place} is not a record: {why}", _HINT)


def read_back(place: str, record: Record) -> RecordedQuestion:
    """Raises InputError for a record whose parts are not of the form that this program writes, ModelError."""
    try:
        settings = record["settings"]
        asked = RecordedQuestion(
            image=Path(record["image"]),
            opening=options_from(OpenOptions, settings),
            looking=options_from(LookOptions, settings),
            answering=replace(options_from(AnswerOptions, settings), control=_control(record)),
            question=_question(record),
            fields=_fields(record),
            checkpoint=_checkpoint(record),
        )
        _check_form(record, asked)
        return asked
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{place}: the record about {record['image']} is damaged: its parts are not of the form that this program "
            "writes",
            _HINT,
        ) from error


def _check_form(record: Record, asked: RecordedQuestion) -> None:
    """Raises ValueError for what no answer can have been."""
    if b"\0" in os.fsencode(asked.image):
        raise ValueError("its image is no path")
    for each in (record, *record["fields"], *([record["control"]] if record.get("control") else [])):
        said = each["probabilities"] or {}
        if said.keys() != set(asked.question.options) or not all(0 <= p <= 1 for p in said.values()):
            raise ValueError("its probabilities are not those of what was asked")
    mass = record.get("option_mass")
    if mass is not None and not 0 <= mass <= _WHOLE:
        raise ValueError("its option_mass is none")
    if not asked.fields or not isinstance(record["source"], dict):
        raise ValueError("nothing was looked at")
    if not isinstance(record["model"]["dtype"], str):
        raise ValueError("it does not say in which numbers it was computed")
    _check_question(asked.question)
    for field in asked.fields:
        numbers = (field.id, field.frame, field.second_look_of or 0, *field.box.corners)
        if not all(_is_of(int, each) for each in numbers) or not _is_of(str, field.role):
            raise TypeError("a field is none")


def _check_question(question: Question) -> None:
    texts = [*question.options, *(text for turn in question.earlier for text in turn)]
    texts += [text for text in (question.text, question.system) if text is not None]
    if question.kind not in get_args(QuestionKind) or not all(_is_of(str, text) and is_text(text) for text in texts):
        raise ValueError("its question is none")
    if not _fits(question):
        raise ValueError("no answer can be given in its form")


def _fits(question: Question) -> bool:
    """Whether options and schema are such as its kind has."""
    if question.schema is not None and (question.kind != "open" or schema_fault(json.loads(question.schema))):
        return False
    if question.kind == "yesno":
        return question.options == YES_NO
    if question.kind == "options":
        return options_fault(question.options) is None
    return all(question.options) and len(question.options) > 1 if question.kind == "scale" else not question.options


def options_from(group: type[Options], settings: Record) -> Options:
    """A group of options from a record's settings; what the record does not know keeps its default."""
    hints = get_type_hints(group)
    names = [field.name for field in fields(group) if field.name in settings]  # type: ignore[arg-type]
    return group(**{name: _as_option(hints[name], settings[name]) for name in names})


def _as_option(hint: Any, value: Any) -> Any:
    """Raises TypeError or ValueError for what is none of this option."""
    kind, *others = get_args(hint) or (hint,)
    if value is None and NoneType in others:
        return None
    if isinstance(kind, type) and issubclass(kind, Enum | Path):
        return kind(value)
    texts = value if get_origin(kind) is list else []
    if not _is_of(get_origin(kind) or kind, value) or not all(_is_of(str, each) for each in texts):
        raise TypeError(f"{value} is not of {hint}")
    return value


def _is_of(kind: type, value: Any) -> bool:
    """As JSON has them: true is no number, and a whole number may stand for any."""
    return type(value) in ((int, float) if kind is float else (kind,))


def _question(record: Record) -> Question:
    settings = record["settings"]
    return Question(
        kind=settings["type"],
        text=record["question"],
        options=tuple(settings["options"]),
        schema=None if settings["schema"] is None else json.dumps(settings["schema"], ensure_ascii=False),
        system=settings["system"],
        earlier=tuple((asked, answered) for asked, answered in settings["earlier"]),
    )


def _control(record: Record) -> Control:
    """That of the answer: a batch may have asked with one about some of its images alone."""
    return Control(record["control"]["kind"]) if record.get("control") else Control.none


def _fields(record: Record) -> list[Field]:
    """The very fields that were looked at: they are not searched for again."""
    return [
        Field(each["id"], each["role"], each["frame"], Box(**each["box"]), each.get("second_look_of"))
        for each in record["fields"]
    ]


def _checkpoint(record: Record) -> Checkpoint:
    name, sha256 = record["model"]["id"], record["model"]["sha256"]
    checkpoint = find_checkpoint(name)
    known = {copy.sha256() for copy in checkpoint.copies}
    if sha256 and None not in known and sha256 not in known:
        raise ModelError(
            f"model {name}: its weights are not those that answered",
            "store the model whose weights have the record's sha256",
        )
    return checkpoint
