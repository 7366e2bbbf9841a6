"""The metrics by name. Each is a number that a set of scored answers has, from 0 to 1; NaN where it has none.

Texts are compared whole: "No" is not found inside "normal". No difference is made by case and spaces, by the quotes,
brackets and marks of a sentence around the text, or by how Unicode writes a letter, a quote or a dash. Signs make one
(2+ is not 2), and so does how a number is written (1.0 is not 1). Where a question was answered by probabilities, the
answer is the likeliest option.

    accuracy           share of answers that are the reference's
    balanced_accuracy  mean, over the different reference answers, of the share of their questions answered so
    majority           accuracy of always giving a question's commonest reference answer: what an answer must beat;
                       questions that were asked fewer than ten times are taken for one
    sensitivity        of the questions whose reference is yes, the share answered yes
    specificity        of those whose reference is no, the share answered no
    auroc              area under the ROC curve of P(yes): how often a yes has the higher one of a yes and a no
    brier              mean squared distance of P(yes) from 1 or 0 (Brier 1950); less is better
    calibration_error  expected calibration error, as ``calibrate`` has it; less is better
    token_recall       of the reference's words, the share in the answer (multisets)
    token_f1           harmonic mean of that and of the share of the answer's words in the reference
    rouge_l            ROUGE-L (Lin 2004): the same F1, of the longest common subsequence of words

The last three are those of free answers, the five before them of yes/no questions. An answer of ``uncertain`` counts in
auroc, brier and calibration_error alone. P(yes) has the six decimals of a table; equal ones count half in auroc. A word
is a run of letters and digits, or a number with its decimals.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from dragonfly_cli.calibration.fitting import calibration_error
from dragonfly_cli.evaluation.options import Metric

Kind = Literal["yesno", "options", "open"]

FEWEST_OF_ONE_QUESTION = 10  # answers; a figure of fewer says little

_WORD = re.compile(r"\d+(?:[.,]\d+)+|\w+")
_POWER = re.compile("(?<=[0-9])(?=[\u00b2\u00b3\u00b9\u2070-\u207b])")  # 10 to the 5th is not 105
_ALIKE = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b\u2032", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"')
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-")
)  # what programs that typeset make of quotes, hyphens and minus
_BEFORE = "\"'`*([{\u00a1\u00bf"
_AFTER = "\"'`*)]}.,;:!?\u3001\u3002"


@dataclass(frozen=True)
class Scored:
    """An answered question. ``p_yes`` is there for one of yes or no; ``group`` tells what it is independent of."""

    kind: Kind
    question: str
    reference: str
    answer: str
    p_yes: float | None
    abstained: bool
    group: int


def as_compared(text: str) -> str:
    """The text as it is compared."""
    words = " ".join(_folded(text).split())
    return words.lstrip(_BEFORE + " ").rstrip(_AFTER + " ")


@dataclass(frozen=True)
class Columns:
    """Scored answers of one kind as arrays [answers]."""

    decided: np.ndarray  # bool: not abstained
    right: np.ndarray
    label: np.ndarray  # number of the reference answer
    usual: np.ndarray  # the commonest reference answer is right
    p_yes: np.ndarray  # NaN where there is none
    rank: np.ndarray  # of P(yes), the same for equal ones
    is_yes: np.ndarray  # the reference
    recall: np.ndarray
    f1: np.ndarray
    rouge: np.ndarray

    @classmethod
    def of(cls, scored: Sequence[Scored]) -> Self:
        references = [as_compared(each.reference) for each in scored]
        answers = [as_compared(each.answer) for each in scored]
        numbers = {text: number for number, text in enumerate(dict.fromkeys(references))}
        decided = np.array([not each.abstained for each in scored], bool)
        overlaps = [_overlap(each.reference, each.answer) for each in scored]
        p_yes = np.array([np.nan if each.p_yes is None else each.p_yes for each in scored], float)
        return cls(
            decided=decided,
            right=np.array([answer == text for answer, text in zip(answers, references, strict=True)], bool),
            label=np.array([numbers[text] for text in references], int),
            usual=_is_commonest([each.question for each in scored], references, decided),
            p_yes=p_yes,
            rank=np.unique(p_yes, return_inverse=True)[1],
            is_yes=np.array([text == "yes" for text in references], bool),
            recall=np.array([recall for recall, _, _ in overlaps], float),
            f1=np.array([f1 for _, f1, _ in overlaps], float),
            rouge=np.array([rouge for _, _, rouge in overlaps], float),
        )

    def take(self, rows: Sequence[int]) -> Self:
        return type(self)(**{name: column[rows] for name, column in vars(self).items()})


def metrics_of(kind: Kind) -> list[Metric]:
    """Those that answers of this kind have, in the order in which they are told."""
    closed = [Metric.accuracy, Metric.balanced_accuracy, Metric.majority]
    if kind == "yesno":
        own = [Metric.sensitivity, Metric.specificity, Metric.auroc, Metric.brier, Metric.calibration_error]
        return closed + own
    return closed + ([Metric.token_recall, Metric.token_f1, Metric.rouge_l] if kind == "open" else [])


def value(metric: Metric, columns: Columns, times: np.ndarray) -> float:
    """Of these answers, each counted so many ``times``."""
    return _FUNCTIONS[metric](columns, times)


def _folded(text: str) -> str:
    powers = _POWER.sub("^", text.translate(_ALIKE))
    return unicodedata.normalize("NFKC", powers).casefold()


def _is_commonest(questions: list[str], references: list[str], decided: np.ndarray) -> np.ndarray:
    """Of each row, whether its reference is that of most decided rows of its question."""
    asked = Counter(questions)
    pools = [question if asked[question] >= FEWEST_OF_ONE_QUESTION else None for question in questions]
    counts: dict[str | None, Counter[str]] = {}
    for pool, reference, counts_in in zip(pools, references, decided, strict=True):
        counts.setdefault(pool, Counter())[reference] += int(counts_in)
    commonest = {pool: each.most_common(1)[0][0] for pool, each in counts.items()}
    return np.array([commonest[pool] == text for pool, text in zip(pools, references, strict=True)], bool)


def _overlap(reference: str, answer: str) -> tuple[float, float, float]:
    """Token recall, token F1 and ROUGE-L."""
    wanted, given = (_WORD.findall(_folded(text)) for text in (reference, answer))
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


def _mean(values: np.ndarray, times: np.ndarray) -> float:
    count = times.sum()
    return float((values * times).sum() / count) if count else float("nan")


def _balanced_accuracy(columns: Columns, times: np.ndarray) -> float:
    counts = np.bincount(columns.label, times * columns.decided)
    hits = np.bincount(columns.label, times * columns.decided * columns.right)
    asked = counts > 0
    return float((hits[asked] / counts[asked]).mean()) if asked.any() else float("nan")


def _auroc(columns: Columns, times: np.ndarray) -> float:
    """The share of pairs in which the yes has the higher P(yes), ties counted half (Mann and Whitney)."""
    yes, no = (np.bincount(columns.rank, times * are) for are in (columns.is_yes, ~columns.is_yes))
    pairs = yes.sum() * no.sum()
    return float((yes * (no.cumsum() - no / 2)).sum() / pairs) if pairs else float("nan")


_FUNCTIONS: dict[Metric, Callable[[Columns, np.ndarray], float]] = {
    Metric.accuracy: lambda each, times: _mean(each.right, times * each.decided),
    Metric.balanced_accuracy: _balanced_accuracy,
    Metric.majority: lambda each, times: _mean(each.usual, times * each.decided),
    Metric.sensitivity: lambda each, times: _mean(each.right, times * each.decided * each.is_yes),
    Metric.specificity: lambda each, times: _mean(each.right, times * each.decided * ~each.is_yes),
    Metric.auroc: _auroc,
    Metric.brier: lambda each, times: _mean((each.p_yes - each.is_yes) ** 2, times),
    Metric.calibration_error: lambda each, times: calibration_error(each.p_yes, each.is_yes, times),
    Metric.token_recall: lambda each, times: _mean(each.recall, times),
    Metric.token_f1: lambda each, times: _mean(each.f1, times),
    Metric.rouge_l: lambda each, times: _mean(each.rouge, times),
}
