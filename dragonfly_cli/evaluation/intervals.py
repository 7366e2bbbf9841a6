"""How far a metric would lie elsewhere by chance: groups of answers, say of a patient, are drawn again as a whole.

Answers about one patient are no independent evidence, so it is these groups that are drawn (the cluster bootstrap of
Davison and Hinkley 1997), and the interval is the middle 95 % of what the draws give.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dragonfly_cli.evaluation.metrics import Columns, value
from dragonfly_cli.evaluation.options import Metric

DRAWS = 1000

_MIDDLE = (2.5, 97.5)
_SEED = 0
_NARROWEST = 1e-9  # less is rounding
# Every draw adds chance to the gaps it sums, so that its middle 95 % often lie above the value itself, and above 0.
_WITHOUT_INTERVAL = {Metric.calibration_error}


@dataclass(frozen=True)
class Estimate:
    """A metric, None where the answers have none: sensitivity, for one, needs a question whose reference is yes.

    ``low`` and ``high`` are the interval; None where all draws agree, as with one group or with answers that are all
    right, since nothing can be told from that, and for calibration_error.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


def estimates(columns: Columns, groups: Sequence[int], metrics: Sequence[Metric]) -> dict[Metric, Estimate]:
    """Of answers [answers] that belong to these groups, given by numbers."""
    once = np.ones(len(groups))
    values = {metric: value(metric, columns, once) for metric in metrics}
    found = {metric: Estimate(None) for metric in metrics}
    known = [metric for metric in metrics if not np.isnan(values[metric])]
    drawn = np.array([[value(metric, columns, times) for metric in known] for times in _draws(groups)])
    for place, metric in enumerate(known):
        interval = (None, None) if metric in _WITHOUT_INTERVAL else _interval(drawn[:, place])
        found[metric] = Estimate(values[metric], *interval)
    return found


def _draws(groups: Sequence[int]) -> Iterator[np.ndarray]:
    """How often each answer is in a draw."""
    numbers = np.unique(groups, return_inverse=True)[1]
    count = numbers.max() + 1
    rng = np.random.default_rng(_SEED)
    for _ in range(DRAWS):
        yield np.bincount(rng.integers(count, size=count), minlength=count)[numbers]


def _interval(drawn: np.ndarray) -> tuple[float | None, float | None]:
    """A draw may lack what the metric needs, and is NaN then; those left are as many as were drawn with it."""
    low, high = np.nanpercentile(drawn, _MIDDLE)
    return (float(low), float(high)) if high - low > _NARROWEST else (None, None)
