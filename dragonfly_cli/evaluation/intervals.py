"""How far a metric would lie elsewhere by chance: patients, slides or images are drawn again, with all their answers.

Answers about one patient are no independent evidence, so it is these groups that are drawn (the cluster bootstrap of
Davison and Hinkley 1997), and the interval is the middle 95 % of what the draws give.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dragonfly_cli.evaluation.metrics import Columns, Scored, value
from dragonfly_cli.evaluation.options import Metric

DRAWS = 1000
FEWEST_GROUPS = 2  # of one there is nothing to draw

_MIDDLE = (2.5, 97.5)
_SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A metric, and the interval around it; without one where there is a single group."""

    value: float
    low: float | None = None
    high: float | None = None


def estimates(scored: Sequence[Scored], metrics: Sequence[Metric]) -> dict[Metric, Estimate]:
    """Of every metric that these answers have: sensitivity, for one, needs a question whose reference is yes."""
    columns = Columns.of(scored)
    values = {metric: value(metric, columns) for metric in metrics}
    known = [metric for metric in metrics if not np.isnan(values[metric])]
    drawn = _drawn(scored, columns, known)
    return {metric: Estimate(values[metric], *drawn.get(metric, ())) for metric in known}


def _drawn(scored: Sequence[Scored], columns: Columns, metrics: Sequence[Metric]) -> dict[Metric, tuple[float, float]]:
    members: dict[str, list[int]] = {}
    for row, each in enumerate(scored):
        members.setdefault(each.group, []).append(row)
    groups = [np.array(rows) for rows in members.values()]
    if len(groups) < FEWEST_GROUPS:
        return {}
    rng = np.random.default_rng(_SEED)
    values = np.empty((DRAWS, len(metrics)))
    for draw in values:
        chosen = columns.take(np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))]))
        draw[:] = [value(metric, chosen) for metric in metrics]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a draw may lack what a metric needs
        low, high = np.nanpercentile(values, _MIDDLE, axis=0)
    return {metric: (float(low[i]), float(high[i])) for i, metric in enumerate(metrics)}
