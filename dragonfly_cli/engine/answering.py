"""One field and one question to one answer, with its probabilities and where the model looked.

Non-goals: choosing fields, and anything about files or printing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

import torch

from dragonfly_cli.engine.choices import presentations, read_choice
from dragonfly_cli.engine.model import Model, computing_errors
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.errors import UsageError
from dragonfly_cli.fields import Field, field_view
from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.source import Source
from dragonfly_med import ControlTokenError, PromptTooLongError
from dragonfly_med.generation import Prefilled, Reading, Sampling, decode, encode_images, stream_text, whole_text
from dragonfly_med.joint import Start, decode_together
from dragonfly_med.views import ViewPlan

OnText = Callable[[str], None]  # told the pieces of a free answer as they come

_NAMED_LETTERS = 40  # of a question that an error names


def say_nothing(piece: str) -> None:
    """Where answers are not shown as they come."""


@dataclass(frozen=True)
class Timing:
    """Seconds spent reading pixels, encoding and prefilling, and generating; of an answer, on search and control, too.

    A typed question is answered by its prefill. Pixels are read once for all questions, and count for each, and so does
    the search for fields that several have in common. Of what is encoded or written together, each one's share counts.
    """

    read_s: float
    encode_s: float
    generate_s: float
    search_s: float = 0.0
    control_s: float = 0.0

    @property
    def total(self) -> float:
        return self.read_s + self.encode_s + self.generate_s + self.search_s + self.control_s


@dataclass(eq=False)
class Look:
    """A field whose pixels have been read: float32 [crops, 3, side, side], and which crop lies where.

    What the network has made of them is kept in ``reading``, for all questions; ``encode_s`` is what it took when that
    was begun beside other fields, and counts for the first question.
    """

    field: Field
    plan: ViewPlan
    pixels: torch.Tensor
    reading: Reading
    read_s: float
    encode_s: float = 0.0

    def take_encode_s(self) -> float:
        """Given away once."""
        taken, self.encode_s = self.encode_s, 0.0
        return taken


@dataclass(frozen=True)
class FieldAnswer:
    """What the model says of one field; ``is_cut`` where it might have gone on beyond the longest answer.

    ``probabilities`` and ``option_mass`` are given for questions with options, yes/no among them, whose ``prompt`` is
    the first of several; ``selected`` are the crops that zoom-in selection kept, in level-0 pixels.
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
    is_cut: bool = False


@dataclass(frozen=True)
class Written:
    """A free answer, or the beginning of one that was cut."""

    text: str
    is_cut: bool


@dataclass
class Draft:
    """A free question about a field that the network has read, to be answered beside others.

    ``answered`` is the answer to be, without its text. ``prefilled`` takes memory of the device: 0.14 GB (v1) or 0.30
    GB (v2).
    """

    look: Look
    answered: FieldAnswer
    prefilled: Prefilled

    def forget(self) -> None:
        """Gives that memory back; after this, the question can only be asked anew."""
        del self.prefilled
        self.look.reading.forget()


def check_question(model: Model, question: Question) -> None:
    """Raises UsageError for a question that does not fit the model, before any image is read."""
    if not question.instruction.strip():
        raise UsageError("the question is empty", "write a question in quotes after the image")
    if why := _refused(model, question.schema or ""):
        raise UsageError(f"the schema cannot be held to: {why}", "write it in other words")
    _prompt_ids(model, question)


def prompts(model: Model, question: Question) -> list[str]:
    """The question in the network's chat form, once for each order of its options."""
    return [model.processor.prompt(asked, question.system, question.earlier) for asked in presentations(question)]


def look_at(model: Model, source: Source, field: Field) -> Look:
    """Reads the pixels of a field as the model will see them."""
    started = perf_counter()
    view = field_view(source, field)
    plan = model.processor.plan(view.size)
    pixels = model.processor.pixels(view)
    return Look(field, plan, pixels, model.reading(pixels), perf_counter() - started)


def encode(model: Model, looks: Sequence[Look]) -> list[Look]:
    """The same fields, whose crops have been encoded in one go, or where memory runs out in smaller parts.

    Raises DeviceError when not even one crop has room.
    """
    with computing_errors(model):
        started = perf_counter()
        encode_images([look.reading for look in looks])
    share_s = (perf_counter() - started) / len(looks)
    return [replace(look, encode_s=share_s) for look in looks]


def answer(
    model: Model,
    look: Look,
    question: Question,
    sampling: Sampling,
    on_text: OnText = say_nothing,
) -> FieldAnswer:
    """Asks one question about one field; ``on_text`` is called with pieces of a free answer as they come.

    Raises DeviceError when memory runs out, ModelError when the network computes no numbers, and UsageError when the
    question has more text than the network reads.
    """
    ids = _prompt_ids(model, question)
    probabilities, option_mass, is_cut = None, None, False
    with computing_errors(model):
        started = perf_counter()
        if question.options:
            choice = read_choice(look.reading, ids, model.spellings(question))
            probabilities, option_mass = choice.probabilities, choice.option_mass
            encoded = perf_counter()
            text = most_probable(question, probabilities)
        else:
            look.reading.logits(ids[0])
            encoded = perf_counter()
            written = free_text(model, look.reading, ids[0], question, sampling, on_text)
            text, is_cut = written.text, written.is_cut
    answered = _unanswered(model, look, question, encoded - started)
    timing = replace(answered.timing, generate_s=perf_counter() - encoded)
    answered = replace(answered, probabilities=probabilities, option_mass=option_mass, timing=timing)
    return replace(answered, text=text, is_cut=is_cut)


def draft(model: Model, look: Look, question: Question) -> Draft:
    """Reads a free question about a field, to be answered by ``write``; raises what ``answer`` does."""
    (ids,) = _prompt_ids(model, question)
    with computing_errors(model):
        started = perf_counter()
        prefilled = look.reading.prefilled(ids)
    return Draft(look, _unanswered(model, look, question, perf_counter() - started), prefilled)


def write(model: Model, drafts: Sequence[Draft], sampling: Sampling) -> list[FieldAnswer]:
    """Answers drafts in one go, or where memory runs out in smaller parts; each answer has its share of the time.

    Raises DeviceError when there is no room to answer one beside what was read for the others.
    """
    with computing_errors(model):
        started = perf_counter()
        written = decode_together(model.network, [_start(model, each) for each in drafts], sampling)
    share_s = (perf_counter() - started) / len(drafts)
    answers = []
    for each, ids in zip(drafts, written, strict=True):
        question, timing = each.answered.question, replace(each.answered.timing, generate_s=share_s)
        text = whole_text(model.processor, ids, verbatim=question.schema is not None).rstrip()
        is_cut = _is_cut(model, question, ids, sampling)
        answers.append(replace(each.answered, text=text, is_cut=is_cut, timing=timing))
    return answers


def free_text(
    model: Model,
    reading: Reading,
    prompt_ids: list[int],
    question: Question,
    sampling: Sampling,
    on_text: OnText = say_nothing,
) -> Written:
    """What the model says after a prompt; it obeys the question's schema, if there is one."""
    grammar = model.grammar(question.schema) if question.schema else None
    ids: list[int] = []
    tokens = _noted(decode(reading, prompt_ids, sampling, grammar), ids)
    text = _told(stream_text(model.processor, tokens, verbatim=grammar is not None), on_text)
    return Written(text, _is_cut(model, question, ids, sampling))


def most_probable(question: Question, probabilities: dict[str, float]) -> str:
    """The answer that is printed: yes and no with a capital, options as they were given."""
    if question.kind == "yesno":
        return "Yes" if probabilities["yes"] > probabilities["no"] else "No"
    return max(probabilities, key=lambda option: probabilities[option])


def _unanswered(model: Model, look: Look, question: Question, encode_s: float) -> FieldAnswer:
    """The answer that is to be, once the question was read."""
    return FieldAnswer(
        field=look.field,
        plan=look.plan,
        question=question,
        prompt=prompts(model, question)[0],
        text="",
        probabilities=None,
        option_mass=None,
        selected=_selected_boxes(look),
        timing=Timing(look.read_s, look.take_encode_s() + encode_s, 0.0),
    )


def _start(model: Model, drafted: Draft) -> Start:
    schema = drafted.answered.question.schema
    return Start(drafted.prefilled, partial(model.grammar, schema) if schema else None)


def _prompt_ids(model: Model, question: Question) -> list[list[int]]:
    try:
        return [model.processor.text_ids(prompt) for prompt in prompts(model, question)]
    except ControlTokenError as error:
        where = next(name for name, text in _parts(question) if _refused(model, text))
        anew = "; /reset starts a new one" if question.earlier else ""
        raise UsageError(f"{where} cannot be put: {error}", f"write it in other words{anew}") from error
    except PromptTooLongError as error:
        if question.earlier:
            raise UsageError(f"the conversation is too long: {error}", "/reset starts a new one") from error
        hint = "shorten it; nothing is ever cut silently"
        longest, _ = max(_parts(question), key=lambda part: len(part[1]))
        raise UsageError(f"{longest} is too long: {error}", hint) from error


def _parts(question: Question) -> list[tuple[str, str]]:
    """What a prompt is made of, as an error names it."""
    earlier = "\n".join(said for turn in question.earlier for said in turn)
    return [
        ("the conversation" if question.earlier else _named(question), f"{question.instruction}\n{earlier}"),
        ("the system text of the template", question.system or ""),
        ("the list of options", ", ".join(question.options)),
    ]


def _refused(model: Model, text: str) -> str:
    """Which token in it the network does not read as text; empty if there is none."""
    try:
        model.processor.prompt(text)
    except ControlTokenError as error:
        return str(error)
    return ""


def _named(question: Question) -> str:
    """By its beginning, which finds it among many."""
    text = question.instruction
    more = "..." if len(text) > _NAMED_LETTERS else ""
    return f'the question "{text[:_NAMED_LETTERS]}{more}"'


def _is_cut(model: Model, question: Question, ids: list[int], sampling: Sampling) -> bool:
    """Whether more might have followed the tokens of an answer, which are without the one that would have ended it."""
    if len(ids) < sampling.max_new_tokens:
        return False
    return question.schema is None or not model.grammar(question.schema).is_whole(ids)


def _noted(tokens: Iterable[int], ids: list[int]) -> Iterator[int]:
    for token in tokens:
        ids.append(token)
        yield token


def _told(pieces: Iterable[str], on_text: OnText) -> str:
    told = []
    for piece in pieces:
        told.append(piece)
        on_text(piece)
    return "".join(told).rstrip()


def _selected_boxes(look: Look) -> list[Box]:
    size_wh = look.field.box.size_wh
    boxes = []
    for number in look.reading.selected_crops:
        left, top, right, bottom = look.plan.high_crop(number).box_in(size_wh)
        boxes.append(Box(left, top, right - left, bottom - top).shifted(look.field.box.x, look.field.box.y))
    return boxes
