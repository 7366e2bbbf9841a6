"""Several free answers to one: the language model is given them as text, without the picture, and writes one answer.

It reads every different answer once, with the number of fields that gave it, the most frequent first. Where all fields
say the same there is nothing to write. How sure it is cannot be read from prose: there is no probability, but a count
of its words that stand in what the fields said.
"""

import re
from bisect import bisect_left
from collections import Counter
from time import perf_counter

from dragonfly_cli.engine.aggregation import Answer, Synthesis
from dragonfly_cli.engine.answering import FieldAnswer, Written, free_text
from dragonfly_cli.engine.model import Model, computing_errors
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.option_values import Aggregate
from dragonfly_med import ControlTokenError, PromptTooLongError
from dragonfly_med.generation import Sampling

_WORD = re.compile(r"\w+")


def synthesised(model: Model, answers: list[FieldAnswer], sampling: Sampling) -> Answer:
    """One answer from the free ones of several fields, which have the question in common.

    If the different answers are too many to be read at once, the rarest are left out, and counted. Raises
    DeviceError when memory runs out, and ModelError when the network computes no numbers.
    """
    question = answers[0].question
    different = Counter(_on_one_line(each.text) for each in answers).most_common()
    read = different[: _how_many_fit(model, question, different)]
    started = perf_counter()
    commonest = next(each for each in answers if _on_one_line(each.text) == different[0][0])
    prompt, final = None, Written(commonest.text, commonest.is_cut)
    if len(read) > 1:
        prompt = _prompt(model, question, read)
        with computing_errors(model):
            ids = model.processor.text_ids(prompt)
            final = free_text(model, model.reading_of_text(), ids, question, sampling)
    synthesis = Synthesis(
        prompt=prompt,
        answers=len(different),
        left_out=len(different) - max(1, len(read)),
        from_fields=_share_of_words(final.text, [each for each, _ in different]),
        seconds=perf_counter() - started,
    )
    rule = Aggregate.synthesise
    return Answer(question, final.text, None, None, rule, answers, is_cut=final.is_cut, synthesis=synthesis)


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


def _prompt(model: Model, question: Question, read: list[tuple[str, int]]) -> str:
    fields = sum(count for _, count in read)
    listed = "\n".join(f"- {count} part{'s' * (count > 1)}: {text}" for text, count in read)
    asked = (
        f"{fields} parts of one image were looked at, each with this request: {question.instruction}\n"
        f"The answers were:\n{listed}\n"
        f"From these answers alone, answer for the whole image: {question.instruction}"
    )
    return model.processor.prompt(asked, question.system)


def _how_many_fit(model: Model, question: Question, different: list[tuple[str, int]]) -> int:
    def is_too_long(count: int) -> bool:
        try:
            model.processor.text_ids(_prompt(model, question, different[:count]))
        except (ControlTokenError, PromptTooLongError):
            return True
        return False

    return bisect_left(range(1, len(different) + 1), True, key=is_too_long)


def _share_of_words(text: str, answers: list[str]) -> float:
    """How many of the words of ``text`` stand in ``answers``, 0 to 1."""
    known = {word for answer in answers for word in _WORD.findall(answer.lower())}
    words = _WORD.findall(text.lower())
    return sum(word in known for word in words) / len(words) if words else 0.0
