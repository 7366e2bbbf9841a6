"""An open image, where the model looks in it, and what was said so far. Nothing is printed or read from a user here."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dragonfly_cli.engine.answering import Look
from dragonfly_cli.engine.desk import Desk
from dragonfly_cli.engine.model import Model
from dragonfly_cli.engine.questions import as_question
from dragonfly_cli.errors import UsageError
from dragonfly_cli.fields import Field, arranged
from dragonfly_cli.fields.frames import check_frame
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import AnswerOptions, LookOptions, OpenOptions
from dragonfly_cli.output.files import check_unread, check_writable, write_text
from dragonfly_cli.output.record import answer_record, as_json, source_record
from dragonfly_cli.pipeline import QuestionInProgress, as_request, make_looks
from dragonfly_cli.readers import Source, open_source
from dragonfly_cli.readers.source import files_of

SMALLEST_SIDE_PX = 16


class Session:
    """Keeps the source open; close it after use.

    A conversation looks at one field at a time. It goes on when another field is looked at; ``reset`` begins anew.
    """

    def __init__(
        self,
        source: Source,
        field: Field,
        model: Model,
        opening: OpenOptions,
        looking: LookOptions,
        answering: AnswerOptions,
    ) -> None:
        """``source`` was opened with ``opening`` and arranged with ``looking``; ``field`` is looked at first."""
        self.source = source
        self.records: list[dict[str, Any]] = []
        self._model = model
        self._options = answering
        self._opening = self._opening_at_first = opening
        self._looking = looking
        self._first_field = field
        self._turns: list[tuple[str, str]] = []
        self.look_at(field)

    def close(self) -> None:
        self.source.close()

    def look_at(self, field: Field) -> None:
        """Another field from now on; its pixels are read with the next question."""
        self.field = field
        self._looks: list[Look] | None = None

    def look_at_box(self, box: Box) -> None:
        """A part of the frame that is looked at; ``box`` lies on the image."""
        self.look_at(Field(0, "region", self.field.frame, box))

    def look_closer(self, factor: float) -> None:
        """At the middle of what is looked at, ``factor`` times closer; below 1 from farther away."""
        old = self.field.box
        sides = zip(old.size_wh, self.source.size_wh, strict=True)
        width, height = (max(min(SMALLEST_SIDE_PX, whole), round(min(side / factor, whole))) for side, whole in sides)
        x = _kept_inside(old.x + (old.width - width) // 2, width, self.source.size_wh[0])
        y = _kept_inside(old.y + (old.height - height) // 2, height, self.source.size_wh[1])
        self.look_at_box(Box(x, y, width, height))

    def look_at_frame(self, frame: int) -> None:
        """The same box of another frame; raises UsageError if there is none of that number."""
        check_frame(self.source, frame)
        self.look_at(replace(self.field, frame=frame))

    def open_with_window(self, window: str) -> None:
        """Opens the file again under another grey level window; raises UsageError where there is no such thing."""
        if self.source.kind != "dicom":
            raise UsageError("only a DICOM image can be shown under another window", "/help shows what can be done")
        self._open(replace(self._opening, window=window))
        self.look_at(self.field)

    def reset(self) -> None:
        """Forgets the conversation, and looks at what was looked at first."""
        self._turns.clear()
        self.records.clear()
        if self._opening != self._opening_at_first:
            self._open(self._opening_at_first)
        self.look_at(self._first_field)

    def ask(self, text: str, on_text: Callable[[str], None]) -> dict[str, Any]:
        """The record of the answer. ``on_text`` is called with the answer, in pieces as they come.

        A question that was interrupted is not part of the conversation.
        """
        question = replace(as_question(text), earlier=tuple(self._turns))
        request = as_request(self._model, [question], self._options, asdict(self._opening) | asdict(self._looking))
        if self._looks is None:
            looks = make_looks(self._model, self.source, self.field, request.control)
            self._facts = source_record(self.source)  # it reads the file, which may fail or be interrupted
            self._looks = looks
        asked, desk = QuestionInProgress(question), Desk(self._model, request.sampling)
        asked.ask(desk, self._looks, on_text)
        desk.write()
        told = asked.combined(self._model, request)
        if question.options:
            on_text(told.text)
        record = answer_record(self.source, self._facts, told, self._model.identity, request.settings)
        self._turns.append((text, told.text))
        self.records.append(record)
        return record

    def save(self, file: Path) -> None:
        """The records of the conversation as JSON; raises OutputError if that cannot be written."""
        check_writable(file)
        check_unread((file,), (*files_of(self.source), self._looking.roi))
        if not self.records:
            raise UsageError("nothing has been answered yet", "ask something first")
        write_text(file, as_json(self.records))

    def _open(self, opening: OpenOptions) -> None:
        source = arranged(open_source(self.source.path, opening), self._looking)
        self.source.close()
        self.source, self._opening = source, opening


def _kept_inside(start: int, length: int, whole: int) -> int:
    return max(0, min(start, whole - length))
