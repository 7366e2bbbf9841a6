"""The way of one image through the program: source, fields, views, model, answer, record.

``ask``, ``caption`` and ``batch`` all go this way. How a path becomes a source is decided in ``readers``, which boxes
are looked at in ``fields``, what is said of them in ``engine``.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import takewhile
from time import monotonic
from typing import Any

from dragonfly_cli.calibration.fitting import Fit
from dragonfly_cli.calibration.store import read_calibration
from dragonfly_cli.engine.aggregation import Answer, abstain_within, aggregate, yes_no_rule
from dragonfly_cli.engine.answering import FieldAnswer, Look, OnText, check_question, encode, look_at, say_nothing
from dragonfly_cli.engine.checkpoints import Checkpoint
from dragonfly_cli.engine.control import compare, controlled
from dragonfly_cli.engine.desk import MOST_TOGETHER, Desk
from dragonfly_cli.engine.model import Model, load_model
from dragonfly_cli.engine.questions import UNCONFIRMED, Question, check_rule
from dragonfly_cli.engine.synthesis import synthesised
from dragonfly_cli.errors import InputError
from dragonfly_cli.fields import Field
from dragonfly_cli.fields.readable import readable
from dragonfly_cli.option_values import Aggregate, Control
from dragonfly_cli.options import AnswerOptions
from dragonfly_cli.output.record import answer_record, source_record, storable_settings
from dragonfly_cli.readers import Source
from dragonfly_cli.readers.source import TOO_LATE
from dragonfly_med.generation import Sampling


@dataclass(frozen=True)
class Request:
    """What is asked of every image, and how the answers about its fields become one.

    ``settings`` are all options as they were given; they go into the record. After ``deadline`` (of
    ``time.monotonic``) no field is begun, if there is one to answer from. ``second_looks`` tells from the answers to a
    typed question about the fields which further ones to ask about. The search for the fields has taken ``search_s``.
    """

    questions: list[Question]
    sampling: Sampling
    rule: Aggregate = Aggregate.auto
    abstain: float = 0.0
    control: Control = Control.none
    settings: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Fit] = field(default_factory=dict)
    deadline: float | None = None
    second_looks: Callable[[list[FieldAnswer]], list[Field]] | None = None
    search_s: float = 0.0

    @property
    def is_late(self) -> bool:
        return self.deadline is not None and monotonic() > self.deadline


def prepare(
    checkpoint: Checkpoint, questions: list[Question], options: AnswerOptions, settings: dict[str, Any]
) -> tuple[Model, Request]:
    """Loads the model and checks that every question fits it, before any pixel is read.

    ``settings`` are the options that say how an image is opened and where it is looked at.
    """
    model = load_model(checkpoint, options.device, options.quant, options.attn)
    return model, as_request(model, questions, options, settings)


def as_request(model: Model, questions: list[Question], options: AnswerOptions, settings: dict[str, Any]) -> Request:
    """The same with a model that is loaded already."""
    check_rule(questions, options.aggregate)
    for question in questions:
        check_question(model, question)
    sampling = Sampling(options.max_tokens, options.temperature, options.seed)
    everything = storable_settings(settings | asdict(options))
    calibration = read_calibration(model.identity.sha256, model.identity.quantization)
    return Request(questions, sampling, options.aggregate, options.abstain, options.control, everything, calibration)


@dataclass(frozen=True)
class ReadAhead:
    """What of a source was read before its turn: its facts, and the pixels of its first fields, by their ids."""

    facts: dict[str, Any]
    looks: dict[int, Look] = field(default_factory=dict)

    def look(self, model: Model, source: Source, field: Field) -> Look:
        """The pixels of a field, read now if they were not before; they are given away, so that none are kept."""
        return self.looks.pop(field.id, None) or look_at(model, source, field)


def read_ahead(model: Model, source: Source, fields: list[Field]) -> ReadAhead:
    """Reads ``fields``, which may be the first of many; one that cannot be read is left for its turn."""
    read = ReadAhead(source_record(source))
    for each in fields:
        with suppress(InputError):
            read.looks[each.id] = look_at(model, source, each)
    return read


def encode_ahead(model: Model, reads: Sequence[ReadAhead]) -> None:
    """Encodes the fields that were read of several images, some at a time; raises DeviceError."""
    waiting = [(read, number) for read in reads for number in read.looks]
    for start in range(0, len(waiting), MOST_TOGETHER):
        some = waiting[start : start + MOST_TOGETHER]
        encoded = encode(model, [read.looks[number] for read, number in some])
        for (read, number), look in zip(some, encoded, strict=True):
            read.looks[number] = look


def answer_source(model: Model, source: Source, fields: list[Field], request: Request) -> Iterator[dict[str, Any]]:
    """Yields one record per question, in their order; raises DragonflyError for an image that cannot be read."""
    return inquire(Desk(model, request.sampling), source, fields, request).records()


def inquire(
    desk: Desk, source: Source, fields: list[Field], request: Request, read: ReadAhead | None = None
) -> "Inquiry":
    """Begins to ask; raises DragonflyError for an image that cannot be read."""
    inquiry = Inquiry(desk, source, request, read or read_ahead(desk.model, source, []))
    inquiry.ask(fields)
    return inquiry


class Inquiry:
    """Everything that is asked of one source: of all fields but the last at once, the rest when answers are told.

    The pixels of every field are read once, here or ahead, and the network reads them once; while it does, those of the
    next field are read. None are kept but those of the last field, and of fields whose free answers wait at the desk.
    Where there is one free answer alone, it does not wait there, and is told as it comes.
    """

    def __init__(self, desk: Desk, source: Source, request: Request, read: ReadAhead) -> None:
        self._desk = desk
        self._source = source
        self._request = request
        self._read = read
        self._questions = [QuestionInProgress(question) for question in request.questions]
        self._looks: list[Look] = []  # of the last field
        self._unasked: list[QuestionInProgress] = []  # of it
        self._streams = False

    def ask(self, fields: list[Field]) -> None:
        """Asks about all ``fields`` but the last; raises DragonflyError for an image that cannot be read."""
        left_out: list[str] = []
        with closing(self._readable(fields, left_out)) as coming:
            self._looks, following = next(coming), next(coming, None)
            while following:
                for one in self._questions:
                    one.ask(self._desk, self._looks)
                self._looks, following = following, next(coming, None)
        self._unasked = [*self._questions]
        for one in self._questions:
            one.left_out += left_out
        free = sum(not one.question.options for one in self._questions)
        self._streams = len(fields) * len(self._looks) * free == 1

    def draft(self) -> None:
        """Asks what is left; even a lone free answer waits then.

        In the order in which answers are told, but that all free questions are asked where the first one is.
        """
        self._streams = False
        typed = list(takewhile(lambda one: one.question.options, self._unasked))
        others = sorted(self._unasked[len(typed) :], key=lambda one: bool(one.question.options))
        for one in [*typed, *others]:
            self._ask_the_rest(one)

    def records(self, on_text: OnText = say_nothing) -> Iterator[dict[str, Any]]:
        """Yields one record per question, each as soon as it is complete.

        ``on_text`` is called with the answer, in pieces as they come.
        """
        model, request = self._desk.model, self._request
        for one in self._questions:
            streams = self._streams and not one.question.options
            self._complete(one, on_text if streams else None)
            combined = one.combined(model, request)
            if not streams:
                on_text(combined.text)
            yield answer_record(self._source, self._read.facts, combined, model.identity, request.settings)

    def _complete(self, one: "QuestionInProgress", aloud: OnText | None) -> None:
        if not one.question.options and not aloud:
            self.draft()
            self._desk.write()
            return
        self._ask_the_rest(one, aloud)

    def _ask_the_rest(self, one: "QuestionInProgress", aloud: OnText | None = None) -> None:
        """About the last field, and in second looks."""
        if one not in self._unasked:
            return
        self._unasked.remove(one)
        one.ask(self._desk, self._looks, aloud)
        again = self._request.second_looks(one.seen) if self._request.second_looks else []
        if again and self._request.is_late:
            one.left_out.append(f"--time-limit: the fields for second looks {TOO_LATE}")
            return
        with closing(self._readable(again, one.left_out)) as once_more:
            for looks in once_more:
                one.ask(self._desk, looks)

    def _readable(self, fields: list[Field], left_out: list[str]) -> Generator[list[Look]]:
        """Of every field that can be read, the field as it is, and where there is a control with nothing to be seen.

        Warnings of the others are added to ``left_out``.
        """
        model, request = self._desk.model, self._request
        read = partial(self._read.look, model, self._source)
        with closing(readable(self._source, fields, read, left_out, lambda: request.is_late)) as looks:
            for look in looks:
                yield _with_control(model, look, request.control)


@dataclass(eq=False)
class QuestionInProgress:
    """One question, and what was said of the fields so far: as they are, and with nothing to be seen.

    ``left_out`` are warnings of fields about which it was not asked.
    """

    question: Question
    seen: list[FieldAnswer] = field(default_factory=list)
    unseen: list[FieldAnswer] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def ask(self, desk: Desk, looks: list[Look], aloud: OnText | None = None) -> None:
        """A free answer that is not told ``aloud`` is there when the desk has written it."""
        seen, *unseen = looks
        desk.ask(seen, self.question, self.seen, aloud)
        for look in unseen:
            desk.ask(look, self.question, self.unseen)

    def combined(self, model: Model, request: Request) -> Answer:
        told = _as_one(model, self.seen, request)
        told = replace(
            told,
            calibrated=_calibrated(told, request),
            search_s=request.search_s,
            left_out=[*self.left_out, *_unconfirmed(told, request)],
        )
        if not self.unseen:
            return told
        unseen = _as_one(model, self.unseen, request)
        return replace(told, control=compare(told, unseen, request.control), control_s=unseen.timing.total)


def _as_one(model: Model, answers: list[FieldAnswer], request: Request) -> Answer:
    if request.rule is Aggregate.synthesise and len(answers) > 1:
        return synthesised(model, answers, request.sampling)
    return abstain_within(aggregate(answers, request.rule), request.abstain)


def _unconfirmed(told: Answer, request: Request) -> list[str]:
    """Says so where another rule stands for the one that was asked for."""
    if request.rule is not Aggregate.confirmed or told.aggregate is not Aggregate.top3_mean:
        return []
    return [UNCONFIRMED]


def _calibrated(told: Answer, request: Request) -> dict[str, float] | None:
    """A calibration is that of a yes/no question asked by itself, without a template or a conversation before it.

    And of the rule by which several fields became one, which may be another than was asked for; what is said of one
    field is the same by every rule.
    """
    question = told.question
    fit = request.calibration.get(question.text or "")
    if fit is None or question.kind != "yesno" or question.system or question.earlier or not told.probabilities:
        return None
    if told.aggregate and fit.aggregate and yes_no_rule(fit.aggregate) is not told.aggregate:
        return None
    yes = fit.apply(told.probabilities["yes"])
    return {"yes": yes, "no": 1 - yes}


def make_looks(model: Model, source: Source, field: Field, control: Control) -> list[Look]:
    """The field as it is, and where there is a control, the field with nothing to be seen."""
    return _with_control(model, look_at(model, source, field), control)


def _with_control(model: Model, look: Look, control: Control) -> list[Look]:
    return [look] if control is Control.none else [look, controlled(model, look, control)]
