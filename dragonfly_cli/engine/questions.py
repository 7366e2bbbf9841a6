"""What kind of question is asked, and what the model's answer to it is read from.

A yes/no question is recognised by its form; a choice between options, or a place on a scale, is asked for. Answers to
these are never parsed from text: they are read from the model's probabilities (``engine.choices``).
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from dragonfly_cli.errors import UsageError
from dragonfly_cli.option_values import Aggregate

QuestionKind = Literal["yesno", "options", "scale", "open", "caption"]

# Dragonfly's own caption instruction (Together AI, Dragonfly's data recipe).
CAPTION_INSTRUCTION = "Provide a brief description of the given image."

# Below this the model would mostly have said something other than one of the options.
DOUBTFUL_OPTION_MASS = 0.5

# Below this distance from the answer of a control, an answer is hardly one about the picture.
HARDLY_APART = 0.05

# Warnings of an answer that the network might have gone on with, and of one by another rule than was asked for.
CUT = "the answer was cut at --max-tokens, so it may not be whole"
UNCONFIRMED = "--aggregate confirmed: no field was looked at twice, so the rule is top3-mean, for calibration too"

YES_NO = ("yes", "no")
# How people and their tables write either, where they say what is true; in lower case.
WORDS_OF_YES_NO = dict.fromkeys(("yes", "y", "true", "1"), "yes") | dict.fromkeys(("no", "n", "false", "0"), "no")

_AUXILIARY = (
    "is are was were am do does did has have had can could will would shall should may might must "
    "isn't aren't wasn't weren't don't doesn't didn't hasn't haven't hadn't can't couldn't won't wouldn't shouldn't"
).split()
_STARTS_WITH_AUXILIARY = re.compile(rf"(?:{'|'.join(_AUXILIARY)})\b", re.IGNORECASE)
_TELLING = (
    "caption characterise characterize classify comment compare count describe elaborate estimate explain give help "
    "interpret list name outline point provide report show specify state summarise summarize tell walk write"
).split()
_TELL = rf"(?:{'|'.join(_TELLING)})\b"
_WHICH = r"(?:what|which|where|when|why|who|whose|whom|how)\b"
# What follows "was" where it is German for "what".
_GERMAN = "ist sind sieht siehst sehen zeigt zeigen erkennt erkennst hat haben wird kann fehlt liegt macht für".split()
# "Can you describe it?" and "Can you see what it is?" want more than a yes, "Can you tell whether it is?" does not.
_ASKS_TO_TELL = re.compile(
    r"[\w']+ +you +(?:(?:please|kindly|briefly|also) +)*"
    rf"(?:{_TELL}(?! +(?:(?:me|us) +)?(?:if|whether)\b)|\w+ +(?:(?:me|us) +)?{_WHICH})"
    rf"|do +(?:please +)?{_TELL}|have +an? +(?:\w+ +)?(?:look|guess|try|go)\b"
    rf"|was +(?:{'|'.join(_GERMAN)})\b",
    re.IGNORECASE,
)
# "..., and if so, in which lobe?", "...: where?", "...? Describe it.", but not "the patient, who has had one, ..."
_GOES_ON_ASKING = re.compile(
    r"(?:[?:;]|\s[-\u2013\u2014]|\b(?:and|then|also|if (?:so|yes|any|present))\b)\W{0,3}"
    r"(?:(?:and|then|also|if|so|yes|any|present|in|at|on|of|to|from|with|by|for)\W{1,3}){0,4}"
    rf"{_WHICH}|\?\s+(?:please,? +)?{_TELL}"
    rf"|[,(]\W{{0,3}}(?:what|why|how|(?:where|when) +(?:{'|'.join(_AUXILIARY)}))\b",
    re.IGNORECASE,
)
_ASKS_FOR_YES_OR_NO = re.compile(r"\byes\s*(?:/|or)\s*no\b", re.IGNORECASE)
# "A or B", "A vs B", "Is it A/B?" (but not "Is/Are there A/B?", "near/in it", and "5 mg/dl"), "A, B?"
_OFFERS_A_CHOICE = re.compile(
    r"\bor\b(?!\s+not\b)|\b(?:vs|versus)\b|,\s*(?!please|thanks|too|right|yes|no|again|\w+ly\b)[\w'-]+\W*$"
    r"|^(?!\S+ +there\b).*(?<!\d )\b[^\W\d]\w+\s*/\s*[^\W\d][\w-]+\W*$",
    re.IGNORECASE,
)
_LEAD_IN = re.compile(r"^(?:in|on|at|for|from|with|based on|according to|given|please|so|and|also)\b[^,]*,\s*", re.I)
# What may stand before a question: quotes, the mark of a list or its number, "Q:".
_MARKS = re.compile(r"^(?:[^\w(]+|\d+[.)]\s|q(?:uestion)?\s*\d*\s*[:.)])+", re.IGNORECASE)


@dataclass(frozen=True)
class Question:
    """What is asked of one image. ``text`` is what the user wrote; a caption has none.

    ``options`` are the answers to choose from, none where the answer is free; ``schema`` is the JSON schema that a free
    answer must obey; ``system`` goes before the text, in the user's turn; ``earlier`` are the turns of the conversation
    before it, each what was asked and what was answered.
    """

    kind: QuestionKind
    text: str | None
    options: tuple[str, ...] = ()
    schema: str | None = None
    system: str | None = None
    earlier: tuple[tuple[str, str], ...] = ()

    @property
    def instruction(self) -> str:
        return CAPTION_INSTRUCTION if self.text is None else self.text


@dataclass(frozen=True)
class Form:
    """What form the answers have; ``kind`` None leaves it to the form of each question."""

    kind: Literal["yesno", "options", "scale", "open"] | None = None
    options: tuple[str, ...] = ()
    schema: str | None = None


_FREE = Form()


def as_question(text: str, form: Form = _FREE, system: str | None = None) -> Question:
    """A question as the user wrote it, with its kind."""
    kind = form.kind or ("yesno" if is_yes_no(text) else "open")
    return Question(kind, text, YES_NO if kind == "yesno" else form.options, form.schema, system)


def caption_question() -> Question:
    return Question("caption", None)


def is_yes_no(text: str) -> bool:
    """Whether the form of ``text`` asks for yes or no and nothing more; where in doubt, it does not.

    "Is it A or B?", "Can you tell me where it is?" and "Is there a mass, and if so, where?" do not.
    """
    if _ASKS_FOR_YES_OR_NO.search(text):
        return True
    visible = "".join(letter for letter in text if unicodedata.category(letter) != "Cf").replace("\u2019", "'")
    last = re.split(r"(?<=[.!])\s+", _MARKS.sub("", visible).strip())[-1]
    sentence = _LEAD_IN.sub("", _MARKS.sub("", last))
    wants_more = _OFFERS_A_CHOICE.search(sentence) or _ASKS_TO_TELL.match(sentence) or _GOES_ON_ASKING.search(sentence)
    return bool(_STARTS_WITH_AUXILIARY.match(sentence)) and not wants_more


def check_rule(questions: list[Question], rule: Aggregate) -> None:
    """Raises UsageError where the answers to a question cannot become one by this rule."""
    typed = [question for question in questions if question.options]
    if rule is Aggregate.synthesise and typed:
        raise UsageError(
            f'--aggregate synthesise is for free answers, and "{typed[0].text}" is answered by probabilities',
            "leave --aggregate out, or ask for a free answer with --type open",
        )


def doubts_about(kind: QuestionKind, option_mass: float | None) -> list[str]:
    """A sentence for the record where the options hold little of the probability."""
    if option_mass is None or option_mass >= DOUBTFUL_OPTION_MASS:
        return []
    what = "yes or no is" if kind == "yesno" else "the options are"
    return [f"{what} a poor fit for this question: together they hold {option_mass:.0%} of the probability"]
