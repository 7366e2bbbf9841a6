"""The way of one image through the program: path, source, fields, views, model, answer, record.

``ask``, ``caption`` and ``batch`` all go this way. Which boxes are looked at is decided in ``fields``, how they are
read in ``readers``, what is said of them in ``engine``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragonfly_cli.engine.answering import answer, look_at
from dragonfly_cli.engine.model import Model
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.fields import plan_fields
from dragonfly_cli.output.record import answer_record, source_record
from dragonfly_cli.readers import open_source
from dragonfly_med.generation import Sampling


@dataclass(frozen=True)
class Request:
    """What is asked of every image, and how to look at it."""

    questions: list[Question]
    sampling: Sampling
    frame: int | None = None
    slide_mpp: float | None = None


def answer_image(
    model: Model, path: Path, request: Request, on_text: Callable[[str], None] = lambda piece: None
) -> Iterator[dict[str, Any]]:
    """Yields one record per question, in their order; ``on_text`` is called with pieces of each as they come.

    The image is opened and its pixels are read once. Raises DragonflyError for an image that cannot be read.
    """
    source = open_source(path, slide_mpp=request.slide_mpp)
    try:
        facts = source_record(source)
        field = plan_fields(source, request.frame)[0]
        look = look_at(model, source, field)
        for question in request.questions:
            answered = answer(model, look, question, request.sampling, on_text)
            yield answer_record(source, facts, answered, model.identity, request.sampling.seed)
    finally:
        source.close()
