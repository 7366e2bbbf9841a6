"""Which model answers, where, and how its answers are drawn: the options that every answering command shares."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AnswerSettings:
    """The values of ``--model``, ``--device``, ``--max-tokens``, ``--temperature`` and ``--seed``."""

    model: str
    device: str
    max_tokens: int
    temperature: float
    seed: int
