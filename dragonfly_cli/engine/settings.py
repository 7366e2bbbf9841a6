"""Which model answers, where, and how its answers are drawn: the options that every answering command shares."""

from dataclasses import dataclass
from enum import StrEnum


class Quant(StrEnum):
    """In how many bits the language model's weights are held; ``auto`` is 4 on a GPU, on a CPU as they are stored."""

    auto = "auto"
    four_bit = "4bit"
    none = "none"


class Attention(StrEnum):
    """Which attention kernel runs; ``auto`` is FlashAttention where it can be used, else PyTorch's own (SDPA)."""

    auto = "auto"
    sdpa = "sdpa"
    flash = "flash"
    eager = "eager"


@dataclass(frozen=True)
class AnswerSettings:
    """The values of the options of the same names (``seed``: ``--seed``)."""

    model: str
    device: str
    max_tokens: int
    temperature: float
    seed: int
    quant: Quant = Quant.auto
    attn: Attention = Attention.auto
