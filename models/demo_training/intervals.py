"""Balanced accuracy with an interval that respects groups: pictures of one patient or tissue are no new evidence."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 1000


@dataclass(frozen=True)
class Verdict:
    """One answer: what was right, whether it was given, and whose picture it was about."""

    label: str
    right: bool
    group: str


@dataclass(frozen=True)
class Score:
    """Mean recall over the labels, and the middle 95 % of it when groups are drawn again."""

    value: float
    low: float
    high: float
    count: int
    groups: int

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}-{self.high:.2f})"


def balanced_accuracy(verdicts: Sequence[Verdict]) -> float:
    by_label: dict[str, list[bool]] = defaultdict(list)
    for verdict in verdicts:
        by_label[verdict.label].append(verdict.right)
    return float(np.mean([np.mean(hits) for hits in by_label.values()]))


def score(verdicts: Sequence[Verdict], seed: int = 0) -> Score:
    """Bootstrap over groups, drawn within each label so that none of them goes missing.

    A patient whose pictures have several labels counts as a group in each.
    """
    rng = np.random.default_rng(seed)
    by_label: dict[str, dict[str, list[Verdict]]] = defaultdict(lambda: defaultdict(list))
    for verdict in verdicts:
        by_label[verdict.label][verdict.group].append(verdict)
    values = []
    for _ in range(DRAWS):
        drawn: list[Verdict] = []
        for groups in by_label.values():
            members = list(groups.values())
            drawn += [verdict for i in rng.integers(len(members), size=len(members)) for verdict in members[i]]
        values.append(balanced_accuracy(drawn))
    low, high = np.percentile(values, (2.5, 97.5))
    groups_in_all = len({verdict.group for verdict in verdicts})
    return Score(balanced_accuracy(verdicts), float(low), float(high), len(verdicts), groups_in_all)
