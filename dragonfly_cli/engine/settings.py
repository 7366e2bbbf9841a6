"""Which model answers, where, and how its answers are drawn: the options that every answering command shares."""

from dataclasses import dataclass

from dragonfly_cli.options import Attention, Quant


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
