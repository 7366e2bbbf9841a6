"""The way of one image through the program: source, fields, views, model, answer, record.

``ask``, ``caption`` and ``batch`` all go this way. How a path becomes a source is decided in ``readers``, which boxes
are looked at in ``fields``, what is said of them in ``engine``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dragonfly_cli.engine.aggregation import aggregate
from dragonfly_cli.engine.answering import FieldAnswer, answer, check_question, look_at
from dragonfly_cli.engine.checkpoints import Checkpoint
from dragonfly_cli.engine.model import Model, load_model
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.fields import Field
from dragonfly_cli.options import Aggregate, AnswerOptions
from dragonfly_cli.output.record import answer_record, source_record
from dragonfly_cli.readers import Source
from dragonfly_med.generation import Sampling


@dataclass(frozen=True)
class Request:
    """What is asked of every image, and how the answers about its fields become one."""

    questions: list[Question]
    sampling: Sampling
    rule: Aggregate = Aggregate.auto


def prepare(checkpoint: Checkpoint, questions: list[Question], options: AnswerOptions) -> tuple[Model, Request]:
    """Loads the model and checks that every question fits it, before any pixel is read."""
    model = load_model(checkpoint, options.device, options.quant, options.attn)
    for question in questions:
        check_question(model, question)
    sampling = Sampling(options.max_tokens, options.temperature, options.seed)
    return model, Request(questions, sampling, options.aggregate)


def _say_nothing(piece: str) -> None:
    """Where answers are not shown as they come."""


def answer_source(
    model: Model,
    source: Source,
    fields: list[Field],
    request: Request,
    on_text: Callable[[str], None] = _say_nothing,
) -> Iterator[dict[str, Any]]:
    """Yields one record per question, in their order; ``on_text`` is called with the answer, in pieces as they come.

    The pixels of every field are read once. Raises DragonflyError for an image that cannot be read.
    """
    facts = source_record(source)
    answers: list[list[FieldAnswer]] = [[] for _ in request.questions]
    for field in fields[:-1]:
        look = look_at(model, source, field)
        for said, question in zip(answers, request.questions, strict=True):
            said.append(answer(model, look, question, request.sampling))
    look = look_at(model, source, fields[-1])
    on_piece = on_text if len(fields) == 1 else _say_nothing
    for said, question in zip(answers, request.questions, strict=True):  # each told as soon as it is complete
        said.append(answer(model, look, question, request.sampling, on_piece))
        combined = aggregate(said, request.rule)
        if len(fields) > 1:
            on_text(combined.text)
        yield answer_record(source, facts, combined, model.identity, request.sampling.seed)
