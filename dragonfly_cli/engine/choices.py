"""Questions with given answers: the probability of each, read from the network's logits.

The probability of an option is that of an answer which begins with it: of its whole token sequence, summed over its
spellings. Yes and no are looked for in the whole vocabulary, and where both are single tokens, one pass tells all.

The published networks were trained to answer freely, so options stand in the prompt. Because a network prefers places
in a list, they are presented in several orders and probabilities are averaged over them. The orders are rotations of
the sorted list - all of them up to four options, so that each option stands once in every place - and do not depend on
the order in which the user gives the options. A scale is presented upwards and downwards.
"""

from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

import torch

from dragonfly_cli.engine.questions import YES_NO, Question
from dragonfly_med import DragonflyProcessor
from dragonfly_med.generation import Reading

TokenIds = tuple[int, ...]
Spellings = dict[str, list[TokenIds]]

_MOST_ORDERS = 4
_LONGEST_YES_NO_TOKEN = 6  # characters, with the one that stands for a space or a line end


@dataclass(frozen=True)
class Choice:
    """Probabilities of the options, which sum to 1, and how much of all probability the options hold together."""

    probabilities: dict[str, float]
    option_mass: float


class Tokenizer(Protocol):
    def encode(self, text: str, add_special_tokens: bool = ...) -> list[int]: ...

    def decode(self, token_ids: list[int]) -> str: ...

    def get_vocab(self) -> dict[str, int]: ...


def presentations(question: Question) -> list[str]:
    """The question as it is put to the network, once for each order of its options."""
    if question.kind == "scale":
        first, last = question.options[0], question.options[-1]
        return [
            f"{question.instruction} Answer with a number from {one} to {other}."
            for one, other in ((first, last), (last, first))
        ]
    if question.kind == "options":
        return [f"{question.instruction} Answer with one of: {', '.join(each)}." for each in _orders(question.options)]
    return [question.instruction]


def read_choice(reading: Reading, prompts: list[list[int]], spellings: Spellings) -> Choice:
    """The probability that an answer begins with each option, the mean over all ``prompts`` (token ids with BOS)."""
    each = [_probabilities(reading, prompt, spellings) for prompt in prompts]
    mean = {option: fmean(one[option] for one in each) for option in spellings}
    total = sum(mean.values())
    if total == 0:  # not even float64 can tell them apart
        return Choice(dict.fromkeys(mean, 1 / len(mean)), 0.0)
    return Choice({option: part / total for option, part in mean.items()}, min(total, 1.0))  # rounding may exceed it


def spellings_of(processor: DragonflyProcessor, question: Question, yes_no: dict[str, list[int]]) -> Spellings:
    """Token sequences that mean each option; of yes and no the single tokens ``yes_no``, if there are any of both."""
    if question.kind == "yesno" and all(yes_no.values()):
        return {option: [(token,) for token in yes_no[option]] for option in YES_NO}
    return {option: _spellings(processor.tokenizer, option) for option in question.options}


def yes_no_token_ids(tokenizer: Tokenizer) -> dict[str, list[int]]:
    """For "yes" and "no" the ids of every spelling that is a single token of the vocabulary, upper or lower case."""
    found: dict[str, list[int]] = {option: [] for option in YES_NO}
    candidates = (
        token_id
        for token, token_id in tokenizer.get_vocab().items()
        if len(token) <= _LONGEST_YES_NO_TOKEN and any(option in token.lower() for option in YES_NO)
    )
    for token_id in sorted(candidates):
        text = tokenizer.decode([token_id]).strip().lower()
        if text in found:
            found[text].append(token_id)
    return found


def _orders(options: tuple[str, ...]) -> list[list[str]]:
    listed = sorted(options)
    count = min(len(listed), _MOST_ORDERS)
    starts = [number * len(listed) // count for number in range(count)]
    return [listed[start:] + listed[:start] for start in starts]


def _spellings(tokenizer: Tokenizer, option: str) -> list[TokenIds]:
    """As it was written, and with a small or capital initial."""
    initial, rest = option[0], option[1:]
    written = dict.fromkeys((option, initial.upper() + rest, initial.lower() + rest))
    return [tuple(tokenizer.encode(text, add_special_tokens=False)) for text in written]


def _probabilities(reading: Reading, prompt: list[int], spellings: Spellings) -> dict[str, float]:
    sequences = sorted({ids for each in spellings.values() for ids in each})
    first = _log_probabilities(reading.logits(prompt))
    begins = {ids: _begins_with(ids, reading, prompt, first) for ids in sequences}
    return {option: sum(_no_longer(ids, begins) for ids in each) for option, each in spellings.items()}


def _begins_with(ids: TokenIds, reading: Reading, prompt: list[int], first: torch.Tensor) -> float:
    """The probability that the answer begins with these tokens; ``first`` are the log-probabilities of the first."""
    rows = first
    if len(ids) > 1:
        later = _log_probabilities(reading.logits([*prompt, *ids[:-1]], last=len(ids) - 1))
        rows = torch.cat([first, later])
    return float(rows[range(len(ids)), ids].sum().exp())


def _no_longer(ids: TokenIds, begins: dict[TokenIds, float]) -> float:
    """Without the answers that go on to another option, as 10 does after 1."""
    longer = (begins[other] for other in begins if len(other) > len(ids) and other[: len(ids)] == ids)
    return max(0.0, begins[ids] - sum(longer))


def _log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(logits.double(), dim=-1)
