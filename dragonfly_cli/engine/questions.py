"""What kind of question is asked, and what the model's answer to it is read from.

A yes/no question is recognised by its form. Its answer is never parsed from text: it is read from the probabilities
of the first answer token, over every spelling of yes and no that is one token of the vocabulary.
"""

import re
from dataclasses import dataclass
from typing import Literal, Protocol

QuestionKind = Literal["yesno", "open", "caption"]

# Dragonfly's own caption instruction (Together AI, Dragonfly's data recipe).
CAPTION_INSTRUCTION = "Provide a brief description of the given image."

# Below this the model would mostly have said something other than one of the options.
DOUBTFUL_OPTION_MASS = 0.5

_AUXILIARY = (
    "is are was were am be do does did has have had can could will would shall should may might must "
    "isn't aren't wasn't weren't don't doesn't didn't hasn't haven't hadn't can't couldn't won't wouldn't shouldn't"
).split()
_STARTS_WITH_AUXILIARY = re.compile(rf"(?:{'|'.join(_AUXILIARY)})\b", re.IGNORECASE)
_ASKS_FOR_YES_OR_NO = re.compile(r"\byes\s*(?:/|or)\s*no\b", re.IGNORECASE)
_OFFERS_A_CHOICE = re.compile(r"\bor\b(?!\s+not\b)", re.IGNORECASE)
_LEAD_IN = re.compile(r"^(?:in|on|at|for|from|with|based on|according to|given|please|so|and|also)\b[^,]*,\s*", re.I)

_SPELLINGS = {
    "yes": ("Yes", "yes", "YES", " Yes", " yes", " YES"),
    "no": ("No", "no", "NO", " No", " no", " NO"),
}


@dataclass(frozen=True)
class Question:
    """What is asked of one image. ``text`` is what the user wrote; a caption has none."""

    kind: QuestionKind
    text: str | None

    @property
    def instruction(self) -> str:
        return CAPTION_INSTRUCTION if self.text is None else self.text


def as_question(text: str) -> Question:
    """A question as the user wrote it, with its kind."""
    return Question("yesno" if is_yes_no(text) else "open", text)


def caption_question() -> Question:
    return Question("caption", None)


def is_yes_no(text: str) -> bool:
    """Whether the form of ``text`` asks for yes or no: "Is it ...?" does, "Is it A or B?" does not."""
    if _ASKS_FOR_YES_OR_NO.search(text):
        return True
    sentence = _LEAD_IN.sub("", re.split(r"(?<=[.!])\s+", text.strip())[-1])
    return bool(_STARTS_WITH_AUXILIARY.match(sentence)) and not _OFFERS_A_CHOICE.search(sentence)


def doubts_about(option_mass: float | None) -> list[str]:
    """A sentence for the record where the options hold little of the probability."""
    if option_mass is None or option_mass >= DOUBTFUL_OPTION_MASS:
        return []
    return [f"yes or no is a poor fit for this question: together they hold {option_mass:.0%} of the probability"]


class Tokenizer(Protocol):
    def encode(self, text: str, add_special_tokens: bool = ...) -> list[int]: ...


def yes_no_token_ids(tokenizer: Tokenizer) -> dict[str, list[int]]:
    """For "yes" and "no" the ids of every spelling that is a single token."""
    encoded = {
        option: [tokenizer.encode(spelling, add_special_tokens=False) for spelling in spellings]
        for option, spellings in _SPELLINGS.items()
    }
    return {option: sorted({ids[0] for ids in rows if len(ids) == 1}) for option, rows in encoded.items()}
