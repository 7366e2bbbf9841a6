"""What options that are one of a few words may be; apart from ``options``, since the engine knows these words too."""

from enum import StrEnum


class Format(StrEnum):
    """How answers are printed."""

    text = "text"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


class Picture(StrEnum):
    """What ``view`` draws."""

    crops = "crops"
    display = "display"
    fields = "fields"


class Quant(StrEnum):
    """In how many bits the language model's weights are held; ``auto`` is 4 for a large one on a GPU."""

    auto = "auto"
    four_bit = "4bit"
    none = "none"


class Attention(StrEnum):
    """Which attention kernel runs; ``auto`` is FlashAttention where it can be used, else PyTorch's own (SDPA)."""

    auto = "auto"
    sdpa = "sdpa"
    flash = "flash"
    eager = "eager"


class Aggregate(StrEnum):
    """How the answers about several fields become one."""

    auto = "auto"
    any = "any"
    max = "max"
    mean = "mean"
    top3_mean = "top3-mean"
    vote = "vote"
    confirmed = "confirmed"
    synthesise = "synthesise"


class Rank(StrEnum):
    """How a slide's fields are chosen: evenly, or by what a glance at them tells.

    That is its likeness or contrast to the overview, how odd it looks beside the rest, or its P(yes).
    """

    auto = "auto"
    spread = "spread"
    likeness = "likeness"
    contrast = "contrast"
    odd = "odd"
    yes = "yes"


class AnswerType(StrEnum):
    """What form an answer takes; ``auto`` is told by the form of the question."""

    auto = "auto"
    yesno = "yesno"
    options = "options"
    scale = "scale"
    open = "open"


class Control(StrEnum):
    """What the picture is replaced by when everything is asked again, to see whether it mattered."""

    none = "none"
    blank = "blank"
    shuffle = "shuffle"


class Keep(StrEnum):
    """Which copies of a model are stored: as published, in 4 bit, or both."""

    full = "full"
    nf4 = "nf4"
    both = "both"
