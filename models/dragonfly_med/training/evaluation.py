"""How well a network answers questions whose answers are known, from one pass over them.

Exact match needs no generation: greedy decoding gives the known answer exactly if every id of it, and the <|eot_id|>
after it, is the likeliest one given those before it. Yes and no are compared as the program reads them, by the
probabilities of the first answer id.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from dragonfly_med.processing import DragonflyProcessor
from dragonfly_med.training.learner import Learner
from dragonfly_med.training.sequences import END_OF_TURN, NO_ANSWER

_ENDINGS = ("", ".")


@dataclass(frozen=True)
class YesNo:
    """Ids that mean yes and no as a first answer id, and the whole answers (ids) that say nothing else."""

    first_ids: tuple[list[int], list[int]]
    answers: dict[tuple[int, ...], int]  # 0 is yes, 1 is no


def yes_no_of(processor: DragonflyProcessor) -> YesNo:
    """What yes and no look like in this vocabulary; an empty one where they are no single tokens."""
    first_ids: tuple[list[int], list[int]] = [], []
    answers = {}
    for option, word in enumerate(("yes", "no")):
        for spelling in (word, word.capitalize(), word.upper()):
            for ending in _ENDINGS:
                ids = processor.tokenizer.encode(spelling + ending + END_OF_TURN, add_special_tokens=False)
                answers[tuple(ids)] = option
            for text in (spelling, f" {spelling}"):
                ids = processor.tokenizer.encode(text, add_special_tokens=False)
                if len(ids) == 1:
                    first_ids[option].append(ids[0])
    return YesNo(first_ids, answers)


@dataclass
class Scores:
    """Sums over answers; ``+`` joins those of parts of the data."""

    loss: float = 0.0
    weight: float = 0.0
    answers: int = 0
    exact: int = 0
    yes: int = 0  # answers that are yes
    yes_right: int = 0
    no: int = 0
    no_right: int = 0

    def __add__(self, other: "Scores") -> "Scores":
        return Scores(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))

    def summary(self) -> dict[str, float | int | None]:
        """``None`` is a rate of nothing."""
        sensitivity, specificity = _rate(self.yes_right, self.yes), _rate(self.no_right, self.no)
        balanced = None if sensitivity is None or specificity is None else (sensitivity + specificity) / 2
        return {
            "loss": _rate(self.loss, self.weight),
            "answers": self.answers,
            "exact_match": _rate(self.exact, self.answers),
            "yes_no_answers": self.yes + self.no,
            "yes_no_accuracy": _rate(self.yes_right + self.no_right, self.yes + self.no),
            "yes_no_balanced_accuracy": balanced,
        }


@torch.no_grad()
def score(learner: Learner, batches: Iterable[dict[str, torch.Tensor]], yes_no: YesNo) -> Scores:
    """The scores of all batches, on the learner's device; the learner's mode is as before when it returns."""
    was_training = learner.training
    learner.eval()
    device = learner.image_ids.device
    total = Scores()
    for batch in batches:
        total += _score_batch(learner, {name: tensor.to(device) for name, tensor in batch.items()}, yes_no)
    learner.train(was_training)
    return total


def _score_batch(learner: Learner, batch: dict[str, torch.Tensor], yes_no: YesNo) -> Scores:
    losses, states = learner.predict(**batch)
    weights = batch["weights"][:, 1:]
    learnt = weights > 0
    scores = Scores(float((losses * weights[learnt]).sum()), float(weights[learnt].sum()))
    # answers are numbered within their sequence
    sequence = torch.arange(len(weights), device=weights.device)[:, None].expand_as(weights)[learnt]
    number, target = batch["answers"][:, 1:][learnt], batch["ids"][:, 1:][learnt]
    inside = number != NO_ANSWER
    pairs = torch.stack([sequence, number], dim=1)[inside]
    lengths = torch.unique_consecutive(pairs, dim=0, return_counts=True)[1].tolist()
    logits = learner.logits(states[inside])
    for answer_logits, ids in zip(logits.split(lengths), target[inside].split(lengths), strict=True):
        scores += _score_answer(answer_logits, ids, yes_no)
    return scores


def _score_answer(logits: torch.Tensor, ids: torch.Tensor, yes_no: YesNo) -> Scores:
    scores = Scores(answers=1, exact=int(bool((logits.argmax(-1) == ids).all())))
    option = yes_no.answers.get(tuple(ids.tolist()))
    if option is None or not all(yes_no.first_ids):
        return scores
    yes, no = (float(logits[0, options].logsumexp(0)) for options in yes_no.first_ids)
    right = int((yes >= no) == (option == 0))
    return scores + (Scores(yes=1, yes_right=right) if option == 0 else Scores(no=1, no_right=right))


def _rate(part: float, whole: float) -> float | None:
    return part / whole if whole else None
