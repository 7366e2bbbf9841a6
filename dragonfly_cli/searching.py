"""Where search and model meet: a slide's fields are chosen for each question, looked at, and answered.

What a glance at a part of the slide is worth comes from ``engine.glance``; how glances lead to fields is decided in
``fields.search``.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

import torch

from dragonfly_cli.engine.answering import FieldAnswer, OnText, say_nothing
from dragonfly_cli.engine.desk import Desk
from dragonfly_cli.engine.glance import contrast, glance, likeness, oddity, p_yes, parts
from dragonfly_cli.engine.model import Model
from dragonfly_cli.engine.placement import memory_errors
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.fields import Field, LookPlan
from dragonfly_cli.fields.grid import Area
from dragonfly_cli.fields.search import ZoomSearch
from dragonfly_cli.fields.slide_plan import second_looks, zoom_fields
from dragonfly_cli.geometry import Box
from dragonfly_cli.option_values import Aggregate, Rank
from dragonfly_cli.pipeline import Inquiry, ReadAhead, Request, inquire
from dragonfly_cli.readers import Source

KEPT_BYTES = 256 * 2**20  # of glances; the built-in model's take 38 KB each, the published v2's 5 MB


def answer_planned(
    model: Model,
    source: Source,
    plan: LookPlan,
    request: Request,
    on_text: OnText = say_nothing,
    read: ReadAhead | None = None,
) -> Iterator[dict[str, Any]]:
    """``answer_source`` on the fields of a plan, after its search, if there is one, has chosen them."""
    for inquiry in inquiries(Desk(model, request.sampling), source, plan, request, read):
        yield from inquiry.records(on_text)


def inquiries(
    desk: Desk, source: Source, plan: LookPlan, request: Request, read: ReadAhead | None = None
) -> Iterator[Inquiry]:
    """All questions about the fields of a plan; after a search, those that share their fields, group by group."""
    plan = plan.begun()
    if plan.search is None:
        yield inquire(desk, source, plan.fields, replace(request, deadline=plan.deadline), read)
        return
    chooser = Chooser(desk.model, source, plan.certain, plan.search, request.rule)
    _warn_of_the_rest(source, plan.search, {chooser.search_for(question).places for question in request.questions})
    for fields, questions in chooser.groups(request.questions, plan.search.rank):
        again = partial(chooser.second_looks, questions[0])
        asking = replace(request, questions=questions, deadline=plan.deadline, second_looks=again)
        yield inquire(desk, source, fields, asking, read)


def _warn_of_the_rest(source: Source, search: ZoomSearch, chosen: set[int]) -> None:
    every = len(search.grid.cells())
    if min(chosen) < every:
        counts = " or ".join(str(min(count, every)) for count in sorted(chosen))
        source.warnings.append(
            f"{counts} of {every} fields with tissue were chosen; --budget looks at more, --region at others"
        )


def reasons(model: Model, rank: Rank, question: Question) -> tuple[Rank, ...]:
    """What chooses the fields for a question, in turns; nothing does where they are spread evenly.

    P(yes) at a glance needs a question that asks for yes or no, and single tokens for them; by default the fields that
    look unlike the rest take turns with it, the best way in ``benchmarks/slide_search.py``. Other questions take
    likeness, the network's own selection rule one scale up, and share their fields.
    """
    if rank is Rank.spread:
        return ()
    if rank not in (Rank.auto, Rank.yes):
        return (rank,)
    if question.kind != "yesno" or not all(model.option_ids.values()):
        return (Rank.likeness,)
    return (Rank.yes,) if rank is Rank.yes else (Rank.yes, Rank.odd)


class Chooser:
    """Chooses the fields of one slide; what was glanced at once is kept for the other questions."""

    def __init__(
        self,
        model: Model,
        source: Source,
        first: list[Field],
        search: ZoomSearch,
        rule: Aggregate = Aggregate.auto,
    ) -> None:
        """``first`` are the overview or the regions, looked at in any case; ``rule`` makes one answer of many."""
        self._model = model
        self._source = source
        self._first = first
        self._search = search
        self._rule = rule
        self._seen = SeenAtAGlance(model, source)

    @property
    def glances(self) -> int:
        """Crops encoded for choosing."""
        return self._seen.crops

    def search_for(self, question: Question) -> ZoomSearch:
        """Where yes is to be confirmed, one with room for second looks."""
        return self._search.confirming if self._confirms(question) else self._search

    def groups(self, questions: list[Question], rank: Rank) -> Iterator[tuple[list[Field], list[Question]]]:
        """The questions, and the fields to answer them from; neighbours that share their fields come together."""

        def sharing(question: Question) -> tuple[bool, Question | None]:
            own = Rank.yes in reasons(self._model, rank, question)
            return self._confirms(question), question if own else None

        for _, some in groupby(questions, key=sharing):
            group = list(some)
            yield self.fields(group[0], rank), group

    def fields(self, question: Question, rank: Rank) -> list[Field]:
        """What to look at for a question: the overview or regions, then the fields that were zoomed in on."""
        why, search = reasons(self._model, rank, question), self.search_for(question)
        with memory_errors(str(self._model.device)):
            if why:
                boxes = search.best(
                    Impressions(self._model, self._seen, question, why, self._first[0].box, search.grid.area)
                )
            else:
                boxes = search.even()
        return [*self._first, *zoom_fields(self._source, boxes, len(self._first))]

    def second_looks(self, question: Question, seen: list[FieldAnswer]) -> list[Field]:
        """At the fields that said yes most strongly, where yes is to be confirmed."""
        if not self._confirms(question):  # nor need its answers be yes and no
            return []
        zooms = [each for each in seen if each.field.role == "zoom"]
        strongest = sorted(zooms, key=_p_yes, reverse=True)[: self.search_for(question).second_looks]
        return second_looks(self._source, [each.field for each in strongest], 1 + max(each.field.id for each in seen))

    def _confirms(self, question: Question) -> bool:
        return question.kind == "yesno" and self._rule is Aggregate.confirmed


def _p_yes(answered: FieldAnswer) -> float:
    return answered.probabilities["yes"] if answered.probabilities else 0.0


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


class Impressions:
    """What glances say to one question, by the reasons that are asked for; ``fields.search.Glances``."""

    def __init__(
        self,
        model: Model,
        seen: SeenAtAGlance,
        question: Question,
        why: tuple[Rank, ...],
        overview: Box,
        tissue: Area,
    ) -> None:
        self._model = model
        self._seen = seen
        self._question = question
        self._why = why
        self._overview = overview
        self._tissue = tissue
        self._means: dict[Box, torch.Tensor] = {}  # [width] each
        self._parts: dict[Box, torch.Tensor] = {}  # [parts, width] each
        self._yes: dict[Box, float] = {}

    def take(self, boxes: list[Box]) -> None:
        seen = self._seen.features(boxes)
        self._means |= zip(boxes, seen.mean(dim=1), strict=True)
        if Rank.odd in self._why:
            self._parts |= zip(boxes, parts(seen), strict=True)
        if Rank.yes in self._why:
            self._yes |= zip(boxes, p_yes(self._model, seen, self._question), strict=True)

    def worths(self, boxes: list[Box]) -> list[list[float]]:
        return [self._worths(reason, boxes) for reason in self._why]

    def _worths(self, reason: Rank, boxes: list[Box]) -> list[float]:
        if reason is Rank.yes:
            return [self._yes[box] for box in boxes]
        if reason is Rank.odd:
            return self._of_tissue(oddity(torch.stack([self._parts[box] for box in boxes])), boxes)
        means = torch.stack([self._means[box] for box in boxes])
        overview = self._seen.features([self._overview])[0].mean(dim=0)
        if reason is Rank.likeness:
            return likeness(means, overview)
        return self._of_tissue(contrast(means, overview), boxes)

    def _of_tissue(self, differences: list[float], boxes: list[Box]) -> list[float]:
        """Weighted by how much of each box is tissue: at its edge a box is unlike the rest because of the glass."""
        return [difference * self._tissue.share(box) for difference, box in zip(differences, boxes, strict=True)]
