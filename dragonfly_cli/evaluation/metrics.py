"""The metrics by name. Each is a number that a set of scored answers has, from 0 to 1; NaN where it has none.

Texts are compared whole, without regard to case, to spaces and to the punctuation at their ends: "No" is not found
inside "normal". Where a question was answered by probabilities, the answer is the likeliest option.

    accuracy           share of answers that are the reference's
    balanced_accuracy  mean, over the different reference answers, of the share of their questions answered so
    majority           accuracy of always giving a question's commonest reference answer: what an answer must beat
    sensitivity        of the questions whose reference is yes, the share answered yes
    specificity        of those whose reference is no, the share answered no
    auroc              area under the ROC curve of P(yes): how often a yes has the higher one of a yes and a no
    brier              mean squared distance of P(yes) from 1 or 0 (Brier 1950); less is better
    calibration_error  expected calibration error, as ``calibrate`` has it; less is better
    token_recall       of the reference's words, the share in the answer (multisets)
    token_f1           harmonic mean of that and of the share of the answer's words in the reference
    rouge_l            ROUGE-L (Lin 2004): the same F1, of the longest common subsequence of words

The last three are those of free answers, the five before them of yes/no questions. An answer of ``uncertain`` counts in
auroc, brier and calibration_error alone.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from dragonfly_cli.calibration.fitting import calibration_error
from dragonfly_cli.evaluation.options import Metric

Kind = Literal["yesno", "options", "open"]

_WORD = re.compile(r"\w+")
_ENDS = string.punctuation + string.whitespace


@dataclass(frozen=True)
class Scored:
    """An answered question. ``p_yes`` is there for one of yes or no; ``group`` is its patient, slide or image."""

    kind: Kind
    question: str
    reference: str
    answer: str
    p_yes: float | None
    abstained: bool
    group: str


def as_compared(text: str) -> str:
    """The text as it is compared."""
    return " ".join(text.lower().strip(_ENDS).split())


@dataclass(frozen=True)
class Columns:
    """Scored answers as arrays [answers], to be drawn from many times."""

    decided: np.ndarray  # bool: not abstained
    right: np.ndarray
    label: np.ndarray  # number of the reference answer
    usual: np.ndarray  # the commonest reference answer of the question is right
    p_yes: np.ndarray  # NaN where there is none
    is_yes: np.ndarray  # the reference
    recall: np.ndarray
    f1: np.ndarray
    rouge: np.ndarray

    @classmethod
    def of(cls, scored: Sequence[Scored]) -> Self:
        references = [as_compared(each.reference) for each in scored]
        numbers = {text: number for number, text in enumerate(dict.fromkeys(references))}
        commonest = _commonest(scored)
        overlaps = [_overlap(each.reference, each.answer) for each in scored]
        return cls(
            decided=np.array([not each.abstained for each in scored], bool),
            right=np.array([as_compared(each.answer) == as_compared(each.reference) for each in scored], float),
            label=np.array([numbers[text] for text in references], int),
            usual=np.array(
                [commonest[each.question] == text for each, text in zip(scored, references, strict=True)], float
            ),
            p_yes=np.array([np.nan if each.p_yes is None else each.p_yes for each in scored], float),
            is_yes=np.array([text == "yes" for text in references], bool),
            recall=np.array([recall for recall, _, _ in overlaps], float),
            f1=np.array([f1 for _, f1, _ in overlaps], float),
            rouge=np.array([rouge for _, _, rouge in overlaps], float),
        )

    def take(self, rows: np.ndarray) -> Self:
        return type(self)(**{name: column[rows] for name, column in vars(self).items()})


def metrics_of(kind: Kind) -> list[Metric]:
    """Those that answers of this kind have, in the order in which they are told."""
    closed = [Metric.accuracy, Metric.balanced_accuracy, Metric.majority]
    if kind == "yesno":
        own = [Metric.sensitivity, Metric.specificity, Metric.auroc, Metric.brier, Metric.calibration_error]
        return closed + own
    return closed + ([Metric.token_recall, Metric.token_f1, Metric.rouge_l] if kind == "open" else [])


def value(metric: Metric, columns: Columns) -> float:
    return _FUNCTIONS[metric](columns)


def _commonest(scored: Sequence[Scored]) -> dict[str, str]:
    by_question: dict[str, Counter[str]] = {}
    for each in scored:
        by_question.setdefault(each.question, Counter())[as_compared(each.reference)] += 1
    return {question: counts.most_common(1)[0][0] for question, counts in by_question.items()}


def _overlap(reference: str, answer: str) -> tuple[float, float, float]:
    """Token recall, token F1 and ROUGE-L."""
    wanted, given = (_WORD.findall(text.lower()) for text in (reference, answer))
    shared = (Counter(wanted) & Counter(given)).total()
    recall = shared / len(wanted) if wanted else 0.0
    return recall, _f1(shared, wanted, given), _f1(_common_subsequence(wanted, given), wanted, given)


def _f1(shared: int, wanted: list[str], given: list[str]) -> float:
    return 2 * shared / (len(wanted) + len(given)) if shared else 0.0


def _common_subsequence(one: list[str], other: list[str]) -> int:
    """Length of the longest."""
    lengths = [0] * (len(other) + 1)
    for word in one:
        before = lengths[:]
        for place, its in enumerate(other):
            lengths[place + 1] = before[place] + 1 if word == its else max(before[place + 1], lengths[place])
    return lengths[-1]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _balanced_accuracy(columns: Columns) -> float:
    label, right = columns.label[columns.decided], columns.right[columns.decided]
    counts = np.bincount(label)
    hits = np.bincount(label, right)
    return _mean(hits[counts > 0] / counts[counts > 0])


def _auroc(columns: Columns) -> float:
    """By ranks, ties counted half (Mann and Whitney)."""
    yes, no = columns.p_yes[columns.is_yes], np.sort(columns.p_yes[~columns.is_yes])
    if not len(yes) or not len(no):
        return float("nan")
    below, up_to = (np.searchsorted(no, yes, side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(no)))


_FUNCTIONS: dict[Metric, Callable[[Columns], float]] = {
    Metric.accuracy: lambda each: _mean(each.right[each.decided]),
    Metric.balanced_accuracy: _balanced_accuracy,
    Metric.majority: lambda each: _mean(each.usual),
    Metric.sensitivity: lambda each: _mean(each.right[each.decided & each.is_yes]),
    Metric.specificity: lambda each: _mean(each.right[each.decided & ~each.is_yes]),
    Metric.auroc: _auroc,
    Metric.brier: lambda each: _mean((each.p_yes - each.is_yes) ** 2),
    Metric.calibration_error: lambda each: calibration_error(each.p_yes, each.is_yes),
    Metric.token_recall: lambda each: _mean(each.recall),
    Metric.token_f1: lambda each: _mean(each.f1),
    Metric.rouge_l: lambda each: _mean(each.rouge),
}
