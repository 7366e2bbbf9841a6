"""A map from P(yes) as the model says it to how often yes is true, fitted to reviewed answers.

Either temperature scaling, one number (Guo et al., "On Calibration of Modern Neural Networks", 2017), or Platt's
sigmoid, two numbers (Platt, "Probabilistic Outputs for Support Vector Machines", 1999), on the logit of P(yes). Which
one, or none, is decided by cross-validation, and so is the error that is reported. A higher P(yes) never becomes a
lower one.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dragonfly_cli.option_values import Aggregate

Method = Literal["none", "temperature", "platt"]

_NUMBERS: dict[Method, int] = {"none": 0, "temperature": 1, "platt": 2}  # how many each fits

FOLDS = 5
BINS = 10

_CLIP = 1e-6
_STEPS = 100
_STEP_TO_END = 1e-9
# Pulls weakly towards leaving probabilities as they are, so that few or separable rows give a finite answer.
_PULL = 0.1


@dataclass(frozen=True)
class Fit:
    """calibrated P(yes) = sigmoid(slope * logit(P(yes)) + intercept); the errors are expected calibration errors.

    ``error_after`` is that of images which the fit has not seen. ``aggregate`` is the rule by which the probabilities
    of several fields had become one, None where that is not known.
    """

    method: Method
    slope: float
    intercept: float
    rows: int
    error_before: float
    error_after: float
    aggregate: Aggregate | None = None

    def apply(self, p_yes: float) -> float:
        return float(_mapped(np.array([p_yes]), np.array([self.slope, self.intercept]))[0])


def fit(p_yes: list[float], truth: list[bool], images: list[str] | None = None) -> Fit:
    """At least two images of each truth are needed; each row is about one of its own where ``images`` are not given."""
    p, true = np.array(p_yes), np.array(truth, float)
    folds = _folds(true, [str(row) for row in range(len(p))] if images is None else images)
    unseen = {method: _out_of_fold(p, true, folds, method) for method in _NUMBERS}
    method = min(_NUMBERS, key=lambda each: _loss(unseen[each], true))
    slope, intercept = _fitted(p, true, method)
    return Fit(
        method=method,
        slope=float(slope),
        intercept=float(intercept),
        rows=len(p),
        error_before=calibration_error(p, true),
        error_after=calibration_error(unseen[method], true),
    )


def calibration_error(p: np.ndarray, true: np.ndarray, times: np.ndarray | None = None) -> float:
    """Expected calibration error: |mean P(yes) - share of yes| in ten equal bins of P(yes), weighted by their rows.

    Each row counts once, or so many ``times``.
    """
    times = np.ones(len(p)) if times is None else times
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = np.abs(np.bincount(bins, (p - true) * times))
    return float(gaps.sum() / times.sum())


def _folds(true: np.ndarray, images: list[str]) -> np.ndarray:
    """A fold for every row, the same for all about one image, whose answers are alike; there may be fewer folds.

    Images are dealt in the order of their share of yes, so that each fold has its part of those with either truth.
    """
    _, image, rows = np.unique(images, return_inverse=True, return_counts=True)
    order = np.argsort(np.bincount(image, true) / rows, kind="stable")
    fold_of = np.empty(len(rows), int)
    fold_of[order] = np.arange(len(rows)) % FOLDS
    return fold_of[image]


def _out_of_fold(p: np.ndarray, true: np.ndarray, folds: np.ndarray, method: Method) -> np.ndarray:
    unseen = p.copy()
    for fold in np.unique(folds):
        here = folds == fold
        unseen[here] = _mapped(p[here], _fitted(p[~here], true[~here], method))
    return unseen


def _fitted(p: np.ndarray, true: np.ndarray, method: Method) -> np.ndarray:
    """(slope, intercept) of the largest penalised likelihood among maps that do not fall: none turns answers round."""
    numbers = _NUMBERS[method]
    found = np.array([1.0, 0.0])
    inputs = np.stack([_logit(p), np.ones_like(p)], axis=1)  # [rows, numbers]
    found[:numbers] = _minimum(inputs[:, :numbers], true, found[:numbers])
    if found[0] < 0:  # the loss is convex, so the best of those that do not fall is level
        found[:numbers] = 0.0
        found[1:numbers] = _minimum(inputs[:, 1:numbers], true, found[1:numbers])
    return found


def _minimum(inputs: np.ndarray, true: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Where the penalised loss is least, by Newton's method; ``inputs`` is [rows, numbers]."""
    here = start.copy()
    for _ in range(_STEPS if len(start) else 0):
        said = _sigmoid(inputs @ here)
        slope_of_loss = inputs.T @ (said - true) + _PULL * (here - start)
        curvature = (inputs * (said * (1 - said))[:, None]).T @ inputs + _PULL * np.eye(len(start))
        step = np.linalg.solve(curvature, slope_of_loss)
        now = _penalised_loss(inputs, true, here, start)
        # A whole step may overshoot where the curve is flat; a shorter one keeps its direction, which always descends.
        while np.abs(step).max() > _STEP_TO_END and _penalised_loss(inputs, true, here - step, start) > now:
            step /= 2
        here = here - step
        if np.abs(step).max() <= _STEP_TO_END:
            break
    return here


def _penalised_loss(inputs: np.ndarray, true: np.ndarray, numbers: np.ndarray, start: np.ndarray) -> float:
    logits = inputs @ numbers
    return float(np.logaddexp(0, logits).sum() - true @ logits + _PULL / 2 * ((numbers - start) ** 2).sum())


def _mapped(p: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    slope, intercept = numbers
    return _sigmoid(slope * _logit(p) + intercept)


def _loss(p: np.ndarray, true: np.ndarray) -> float:
    p = np.clip(p, _CLIP, 1 - _CLIP)
    return float(-(true * np.log(p) + (1 - true) * np.log(1 - p)).mean())


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, _CLIP, 1 - _CLIP)
    return np.log(p) - np.log1p(-p)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -50, 50)))
