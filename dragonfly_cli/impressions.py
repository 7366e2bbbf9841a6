"""What glances at a slide say to one question: the ``Glances`` of ``fields.search``, as the network has them.

What a glance is worth comes from ``engine.glance``; here it is kept by the boxes that were glanced at.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from dragonfly_cli.engine.glance import contrast, glance, likeness, mean_features, oddity, p_yes, parts
from dragonfly_cli.engine.model import Model
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.fields.grid import Area
from dragonfly_cli.geometry import Box
from dragonfly_cli.readers import Source

KEPT_BYTES = 256 * 2**20  # of glances; the built-in model's take 38 KB each, the published v2's 5 MB


class SeenAtAGlance:
    """Features of the boxes of a slide that were glanced at, as many as memory is spent for."""

    def __init__(self, model: Model, source: Source) -> None:
        self._model = model
        self._source = source
        self._kept: dict[Box, torch.Tensor] = {}  # [tokens, width] each
        self.crops = 0  # encoded so far

    def features(self, boxes: list[Box]) -> torch.Tensor:
        """[boxes, tokens, width]; only boxes that are not kept are read and encoded."""
        new = [box for box in boxes if box not in self._kept]
        fresh = dict(zip(new, glance(self._model, self._source, new), strict=True)) if new else {}
        self.crops += len(new)
        seen = torch.stack([fresh[box] if box in fresh else self._kept[box] for box in boxes])
        if (len(self._kept) + len(new)) * seen[0].numel() * seen.element_size() <= KEPT_BYTES:
            self._kept |= fresh
        return seen


@dataclass(frozen=True)
class Reason:
    """Why to look closer: what is kept of each glance, and what that is worth beside the others of its scale."""

    kept_of: Callable[[torch.Tensor], Iterable[Any]]  # of features [boxes, tokens, width], one for each box
    worths: Callable[[list[Any]], list[float]]
    area: Area | None = None  # by how much of a box belongs to it its worth is weighted


def says_yes(model: Model, question: Question) -> Reason:
    return Reason(lambda seen: p_yes(model, seen, question), list)


def looks_odd(area: Area) -> Reason:
    """Weighted, as a box at the edge of the tissue is unlike the rest because of the glass."""
    return Reason(parts, lambda kept: oddity(torch.stack(kept)), area)


def looks_like(overview: Callable[[], torch.Tensor]) -> Reason:
    """Like the mean features [width] of the overview, which are asked for when something is there to compare."""
    return Reason(mean_features, lambda kept: likeness(torch.stack(kept), overview()))


def looks_unlike(overview: Callable[[], torch.Tensor], area: Area) -> Reason:
    """Unlike them; weighted for the same reason as ``looks_odd``."""
    return Reason(mean_features, lambda kept: contrast(torch.stack(kept), overview()), area)


class Impressions:
    """What every reason keeps of the boxes that were taken."""

    def __init__(self, seen: SeenAtAGlance, reasons: Iterable[Reason]) -> None:
        self._seen = seen
        self._kept: list[tuple[Reason, dict[Box, Any]]] = [(reason, {}) for reason in reasons]

    def take(self, boxes: list[Box]) -> None:
        seen = self._seen.features(boxes)
        for reason, kept in self._kept:
            kept.update(zip(boxes, reason.kept_of(seen), strict=True))

    def worths(self, boxes: list[Box]) -> list[list[float]]:
        return [_weighted(reason, reason.worths([kept[box] for box in boxes]), boxes) for reason, kept in self._kept]


def _weighted(reason: Reason, worths: list[float], boxes: list[Box]) -> list[float]:
    if reason.area is None:
        return worths
    return [worth * reason.area.share(box) for worth, box in zip(worths, boxes, strict=True)]
