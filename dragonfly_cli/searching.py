"""Where search and model meet: a slide's fields are chosen for each question, looked at, and answered.

What glances at parts of the slide say comes from ``impressions``; how they lead to fields is decided in
``fields.search``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby
from time import perf_counter
from typing import Any

import torch

from dragonfly_cli.engine.answering import FieldAnswer, OnText, say_nothing
from dragonfly_cli.engine.desk import Desk
from dragonfly_cli.engine.glance import mean_features
from dragonfly_cli.engine.model import Model
from dragonfly_cli.engine.placement import device_errors
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.fields import Field, LookPlan
from dragonfly_cli.fields.search import ZoomSearch
from dragonfly_cli.fields.slide_plan import second_looks, zoom_fields
from dragonfly_cli.impressions import (
    Impressions,
    Reason,
    SeenAtAGlance,
    looks_like,
    looks_odd,
    looks_unlike,
    says_yes,
)
from dragonfly_cli.option_values import Aggregate, Rank
from dragonfly_cli.pipeline import Inquiry, ReadAhead, Request, inquire
from dragonfly_cli.readers import Source


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
    desk: Desk, source: Source, plan: LookPlan, request: Request, read: ReadAhead | None
) -> Iterator[Inquiry]:
    """All questions about the fields of a plan; after a search, those that share their fields, group by group."""
    plan = plan.begun()
    if plan.search is None:
        yield inquire(desk, source, plan.fields, replace(request, deadline=plan.deadline), read)
        return
    chooser = Chooser(desk.model, source, plan.certain, plan.search, request.rule)
    _warn_of_the_rest(source, plan.search, {chooser.search_for(question).places for question in request.questions})
    started = perf_counter()
    for fields, questions in chooser.groups(request.questions, plan.search.rank):
        again, search_s = partial(chooser.second_looks, questions[0]), perf_counter() - started
        asking = replace(request, questions=questions, deadline=plan.deadline, second_looks=again, search_s=search_s)
        yield inquire(desk, source, fields, asking, read)
        started = perf_counter()


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


@dataclass(frozen=True, eq=False)
class Chooser:
    """Chooses the fields of one slide; what was glanced at once is kept for the other questions.

    ``first`` are the overview or the regions, looked at in any case; ``rule`` makes one answer of many.
    """

    model: Model
    source: Source
    first: list[Field]
    search: ZoomSearch
    rule: Aggregate = Aggregate.auto

    @cached_property
    def _seen(self) -> SeenAtAGlance:
        return SeenAtAGlance(self.model, self.source)

    @property
    def glances(self) -> int:
        """Crops encoded for choosing."""
        return self._seen.crops

    def search_for(self, question: Question) -> ZoomSearch:
        """Where yes is to be confirmed, one with room for second looks."""
        return self.search.confirming if self._confirms(question) else self.search

    def groups(self, questions: list[Question], rank: Rank) -> Iterator[tuple[list[Field], list[Question]]]:
        """The questions, and the fields to answer them from; neighbours that share their fields come together."""

        def sharing(question: Question) -> tuple[bool, Question | None]:
            own = Rank.yes in reasons(self.model, rank, question)
            return self._confirms(question), question if own else None

        for _, some in groupby(questions, key=sharing):
            group = list(some)
            yield self.fields(group[0], rank), group

    def fields(self, question: Question, rank: Rank) -> list[Field]:
        """What to look at for a question: the overview or regions, then the fields that were zoomed in on."""
        why, search = reasons(self.model, rank, question), self.search_for(question)
        with device_errors(str(self.model.device)):
            boxes = search.best(self._impressions(question, why)) if why else search.even()
        return [*self.first, *zoom_fields(self.source, search.grid, boxes, len(self.first))]

    def second_looks(self, question: Question, seen: list[FieldAnswer]) -> list[Field]:
        """At the fields that said yes most strongly, where yes is to be confirmed."""
        if not self._confirms(question):  # nor need its answers be yes and no
            return []
        zooms = [each for each in seen if each.field.role == "zoom"]
        strongest = sorted(zooms, key=_p_yes, reverse=True)[: self.search_for(question).second_looks]
        return second_looks(self.source, [each.field for each in strongest], 1 + max(each.field.id for each in seen))

    def _impressions(self, question: Question, why: tuple[Rank, ...]) -> Impressions:
        return Impressions(self._seen, [self._reason(each, question) for each in why])

    def _reason(self, why: Rank, question: Question) -> Reason:
        area = self.search.grid.area
        if why is Rank.yes:
            return says_yes(self.model, question)
        if why is Rank.odd:
            return looks_odd(area)
        return looks_like(self._overview) if why is Rank.likeness else looks_unlike(self._overview, area)

    def _overview(self) -> torch.Tensor:
        """Its mean features at a glance, [width]."""
        return mean_features(self._seen.features([self.first[0].box]))[0]

    def _confirms(self, question: Question) -> bool:
        return question.kind == "yesno" and self.rule is Aggregate.confirmed


def _p_yes(answered: FieldAnswer) -> float:
    return answered.probabilities["yes"] if answered.probabilities else 0.0
