"""The way of one image through the program: source, fields, views, model, answer, record.

``ask``, ``caption`` and ``batch`` all go this way. How a path becomes a source is decided in ``readers``, which boxes
are looked at in ``fields``, what is said of them in ``engine``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dragonfly_cli.engine.answering import answer, check_question, look_at
from dragonfly_cli.engine.checkpoints import Checkpoint
from dragonfly_cli.engine.model import Model, load_model
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.engine.settings import AnswerSettings
from dragonfly_cli.fields import plan_fields
from dragonfly_cli.output.record import answer_record, source_record
from dragonfly_cli.readers import Source
from dragonfly_med.generation import Sampling


@dataclass(frozen=True)
class Request:
    """What is asked of every image, and how to look at it."""

    questions: list[Question]
    sampling: Sampling
    frame: int | None = None


def prepare(
    checkpoint: Checkpoint, questions: list[Question], settings: AnswerSettings, frame: int | None = None
) -> tuple[Model, Request]:
    """Loads the model and checks that every question fits it, before any pixel is read."""
    model = load_model(checkpoint, settings.device, settings.quant, settings.attn)
    for question in questions:
        check_question(model, question)
    return model, Request(questions, Sampling(settings.max_tokens, settings.temperature, settings.seed), frame)


def answer_source(
    model: Model, source: Source, request: Request, on_text: Callable[[str], None] = lambda piece: None
) -> Iterator[dict[str, Any]]:
    """Yields one record per question, in their order; ``on_text`` is called with pieces of each as they come.

    The pixels are read once. Raises DragonflyError for an image that cannot be read.
    """
    facts = source_record(source)
    field = plan_fields(source, request.frame)[0]
    look = look_at(model, source, field)
    for question in request.questions:
        answered = answer(model, look, question, request.sampling, on_text)
        yield answer_record(source, facts, answered, model.identity, request.sampling.seed)
