"""Where search and model meet: a slide's fields are chosen for each question, looked at, and answered.

What a glance at a part of the slide is worth comes from ``engine.glance``; how glances lead to fields is decided in
``fields.search``.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch

from dragonfly_cli.engine.glance import contrast, glance, likeness, p_yes
from dragonfly_cli.engine.model import Model
from dragonfly_cli.engine.placement import memory_errors
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.fields import Field, LookPlan
from dragonfly_cli.fields.search import Worth, ZoomSearch
from dragonfly_cli.fields.slide_plan import zoom_fields
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import Rank
from dragonfly_cli.pipeline import ReadAhead, Request, answer_source
from dragonfly_cli.readers import Source
from dragonfly_cli.readers.ahead import SourceAhead

KEPT_BYTES = 256 * 2**20  # of glances; the built-in model's take 38 KB each, the published v2's 5 MB


def answer_planned(
    model: Model,
    source: Source,
    plan: LookPlan,
    request: Request,
    on_text: Callable[[str], None] = lambda piece: None,
    read: ReadAhead | None = None,
) -> Iterator[dict[str, Any]]:
    """``answer_source`` on the fields of a plan, after its search, if there is one, has chosen them."""
    if plan.search is None:
        yield from answer_source(model, source, plan.fields, request, on_text, read)
        return
    request = replace(request, deadline=plan.search.deadline)
    every = len(plan.search.grid.cells())
    if plan.search.fields < every:
        source.warnings.append(
            f"{plan.search.fields} of {every} fields with tissue were chosen; --budget takes more, --region others"
        )
    chooser = Chooser(model, source, plan.certain, plan.search)
    for fields, questions in chooser.groups(request.questions, plan.search.rank):
        boxes = [field.box for field in fields]
        with closing(SourceAhead(source, boxes, lambda size_wh: model.processor.plan(size_wh).canvas_sizes)) as ahead:
            yield from answer_source(model, ahead, fields, replace(request, questions=questions), on_text, read)


def ranking(model: Model, rank: Rank, question: Question) -> Rank:
    """What ranks the fields for a question: by default P(yes) at a glance, the best in ``benchmarks/slide_search.py``.

    It needs a question that asks for yes or no, and single tokens for them. Other questions take likeness, the
    network's own selection rule one scale up, and share their fields.
    """
    can_say_yes = question.kind == "yesno" and all(model.option_ids.values())
    if rank not in (Rank.auto, Rank.yes):
        return rank
    return Rank.yes if can_say_yes else Rank.likeness


class Chooser:
    """Chooses the fields of one slide; what was glanced at once is kept for the other questions."""

    def __init__(self, model: Model, source: Source, first: list[Field], search: ZoomSearch) -> None:
        """``first`` are the overview or the regions, which are looked at in any case."""
        self._model = model
        self._source = source
        self._first = first
        self._search = search
        self._seen: dict[Box, torch.Tensor] = {}  # [tokens, width] each
        self.glances = 0  # crops encoded for choosing

    def groups(self, questions: list[Question], rank: Rank) -> Iterator[tuple[list[Field], list[Question]]]:
        """The questions, and the fields to answer them from; neighbours that share their fields come together."""
        waiting: list[Question] = []
        for question in questions:
            if waiting and Rank.yes in (ranking(self._model, rank, each) for each in (question, waiting[-1])):
                yield self.fields(waiting[-1], rank), waiting
                waiting = []
            waiting.append(question)
        if waiting:
            yield self.fields(waiting[-1], rank), waiting

    def fields(self, question: Question, rank: Rank) -> list[Field]:
        """What to look at for a question: the overview or regions, then the fields that were zoomed in on."""
        chosen = ranking(self._model, rank, question)
        with memory_errors(str(self._model.device)):
            boxes = self._search.even() if chosen is Rank.spread else self._search.best(self._worth(chosen, question))
        return [*self._first, *zoom_fields(self._source, boxes, len(self._first))]

    def _worth(self, rank: Rank, question: Question) -> Worth:
        if rank is Rank.yes:
            return lambda boxes: p_yes(self._model, self._glance(boxes), question)
        overview = self._glance([self._first[0].box])
        compare = likeness if rank is Rank.likeness else contrast
        return lambda boxes: compare(self._glance(boxes), overview)

    def _glance(self, boxes: list[Box]) -> torch.Tensor:
        """[boxes, tokens, width]"""
        new = [box for box in boxes if box not in self._seen]
        if new:
            fresh = dict(zip(new, glance(self._model, self._source, new), strict=True))
            self.glances += len(new)
            if self._fits(len(new), fresh[new[0]]):
                self._seen |= fresh
            return torch.stack([fresh[box] if box in fresh else self._seen[box] for box in boxes])
        return torch.stack([self._seen[box] for box in boxes])

    def _fits(self, count: int, one: torch.Tensor) -> bool:
        return (len(self._seen) + count) * one.numel() * one.element_size() <= KEPT_BYTES
