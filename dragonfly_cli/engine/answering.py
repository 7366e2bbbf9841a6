"""One field and one question to one answer, with its probabilities and where the model looked.

Non-goals: choosing fields, and anything about files or printing.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import torch

from dragonfly_cli.engine.model import Model
from dragonfly_cli.engine.placement import out_of_memory
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.errors import UsageError
from dragonfly_cli.fields import Field, field_view
from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.source import Source
from dragonfly_med import PromptTooLongError
from dragonfly_med.generation import Prefill, Sampling, decode, prefill, stream_text
from dragonfly_med.views import ViewPlan


@dataclass(frozen=True)
class Timing:
    """Seconds spent reading pixels, encoding and prefilling, and generating."""

    read_s: float
    encode_s: float
    generate_s: float


@dataclass(frozen=True)
class Look:
    """A field whose pixels have been read: float32 [crops, 3, side, side], and which crop lies where."""

    field: Field
    plan: ViewPlan
    pixels: torch.Tensor
    read_s: float


@dataclass(frozen=True)
class FieldAnswer:
    """What the model says of one field.

    ``probabilities`` and ``option_mass`` are given for yes/no questions only; ``selected`` are the crops that zoom-in
    selection kept, in level-0 pixels.
    """

    field: Field
    plan: ViewPlan
    question: Question
    prompt: str
    text: str
    probabilities: dict[str, float] | None
    option_mass: float | None
    selected: list[Box]
    timing: Timing


def check_question(model: Model, question: Question) -> None:
    """Raises UsageError for a question that does not fit the model, before any image is read."""
    if not question.instruction.strip():
        raise UsageError("the question is empty", "write a question in quotes after the image")
    try:
        model.processor.text_ids(model.processor.prompt(question.instruction))
    except PromptTooLongError as error:
        raise UsageError(f"the question is too long: {error}", "shorten it; nothing is ever cut silently") from error


def look_at(model: Model, source: Source, field: Field) -> Look:
    """Reads the pixels of a field as the model will see them."""
    started = perf_counter()
    view = field_view(source, field)
    plan = model.processor.plan(view.size)
    pixels = model.processor.pixels(view)
    return Look(field, plan, pixels, perf_counter() - started)


def answer(
    model: Model,
    look: Look,
    question: Question,
    sampling: Sampling,
    on_text: Callable[[str], None] = lambda piece: None,
) -> FieldAnswer:
    """Asks one question about one field; ``on_text`` is called with pieces of an open answer as they come.

    Raises DeviceError when memory runs out.
    """
    prompt = model.processor.prompt(question.instruction)
    with _memory_errors(model):
        started = perf_counter()
        read = prefill(model.network, _inputs(model, look, prompt))
        encoded = perf_counter()
        probabilities, option_mass = _yes_no(model, read, question)
        if probabilities:
            text = max(probabilities, key=lambda option: probabilities[option]).capitalize()
            on_text(text)
        else:
            text = _generate(model, read, sampling, on_text)
        generated = perf_counter()
    return FieldAnswer(
        field=look.field,
        plan=look.plan,
        question=question,
        prompt=prompt,
        text=text,
        probabilities=probabilities,
        option_mass=option_mass,
        selected=_selected_boxes(look, read),
        timing=Timing(look.read_s, encoded - started, generated - encoded),
    )


def _inputs(model: Model, look: Look, prompt: str) -> dict[str, torch.Tensor]:
    ids = model.processor.image_block() + model.processor.text_ids(prompt)
    return {
        "input_ids": torch.tensor([ids], device=model.device),
        "pixel_values": look.pixels[None].to(model.device),
    }


def _generate(model: Model, read: Prefill, sampling: Sampling, on_text: Callable[[str], None]) -> str:
    pieces = []
    for piece in stream_text(model.processor, decode(model.network, read, sampling)):
        pieces.append(piece)
        on_text(piece)
    return "".join(pieces).rstrip()


def _yes_no(model: Model, read: Prefill, question: Question) -> tuple[dict[str, float] | None, float | None]:
    """Probabilities of yes and no for the first answer token, and how much of all probability they hold."""
    if question.kind != "yesno" or not all(model.option_ids.values()):
        return None, None
    everything = torch.softmax(read.logits.double(), dim=-1)
    mass = {option: float(everything[ids].sum()) for option, ids in model.option_ids.items()}
    total = sum(mass.values())
    return {option: part / total for option, part in mass.items()}, total


def _selected_boxes(look: Look, read: Prefill) -> list[Box]:
    size_wh = look.field.box.size_wh
    boxes = []
    for number in read.selected_crops:
        left, top, right, bottom = look.plan.high_crop(number).box_in(size_wh)
        boxes.append(Box(left, top, right - left, bottom - top).shifted(look.field.box.x, look.field.box.y))
    return boxes


@contextmanager
def _memory_errors(model: Model):
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise out_of_memory(str(model.device)) from error
