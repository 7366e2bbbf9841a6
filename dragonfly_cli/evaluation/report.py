"""The scores of an evaluation, of all answers of a kind and of every question that was asked often, as text or JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dragonfly_cli.evaluation.intervals import Estimate, estimates
from dragonfly_cli.evaluation.metrics import Kind, Scored, metrics_of
from dragonfly_cli.evaluation.options import Metric
from dragonfly_cli.output.json_text import json_text
from dragonfly_cli.output.notices import NOTICE

SCHEMA_VERSION = 1
FEWEST_OF_ONE_QUESTION = 10  # answers; a figure of fewer says little

_KINDS: dict[Kind, str] = {"yesno": "yes/no questions", "options": "questions with options", "open": "free answers"}


@dataclass(frozen=True)
class Block:
    """The metrics of some answers of one kind: those to one question, or with ``question`` None to all."""

    kind: Kind
    question: str | None
    answers: int
    groups: int
    uncertain: int
    metrics: dict[Metric, Estimate]


@dataclass(frozen=True)
class Report:
    """``unanswered`` questions, of images that could not be read say, are in no figure.

    ``about`` says what answered what: data set, model, and hashes of both.
    """

    blocks: list[Block]
    unanswered: int
    about: dict[str, Any]


def blocks_of(scored: Sequence[Scored], wanted: Sequence[Metric] | None) -> list[Block]:
    """Of the ``wanted`` metrics, or all."""
    blocks = []
    for kind in _KINDS:
        of_kind = [each for each in scored if each.kind == kind]
        questions = dict.fromkeys(each.question for each in of_kind)
        if of_kind:
            blocks.append(_block(kind, None if len(questions) > 1 else next(iter(questions)), of_kind, wanted))
        if len(questions) > 1:
            by_question = ([each for each in of_kind if each.question == question] for question in questions)
            often = (some for some in by_question if len(some) >= FEWEST_OF_ONE_QUESTION)
            blocks += [_block(kind, some[0].question, some, wanted) for some in often]
    return blocks


def _block(kind: Kind, question: str | None, scored: list[Scored], wanted: Sequence[Metric] | None) -> Block:
    metrics = [metric for metric in metrics_of(kind) if wanted is None or metric in wanted]
    groups = len({each.group for each in scored})
    uncertain = sum(each.abstained for each in scored)
    return Block(kind, question, len(scored), groups, uncertain, estimates(scored, metrics))


def as_text(report: Report) -> str:
    """A paragraph for every block; intervals are of 95 %."""
    paragraphs = ["".join(f"{line}\n" for line in _lines(block)) for block in report.blocks]
    if report.unanswered:
        paragraphs.append(f"questions without an answer, which are in no figure: {report.unanswered}\n")
    return "\n".join(paragraphs)


def as_report(report: Report) -> str:
    blocks = [
        {**asdict(block), "metrics": {name: asdict(each) for name, each in block.metrics.items()}}
        for block in report.blocks
    ]
    return json_text(
        {
            "schema_version": SCHEMA_VERSION,
            **report.about,
            "scores": blocks,
            "unanswered": report.unanswered,
            "notice": NOTICE,
        }
    )


def _lines(block: Block) -> Iterable[str]:
    counts = f"{block.answers} answers, {block.groups} groups"
    uncertain = f", {block.uncertain} uncertain" if block.uncertain else ""
    yield f"{block.question or f'all {_KINDS[block.kind]}'} ({counts}{uncertain})"
    width = max(map(len, block.metrics), default=0)
    for name, each in block.metrics.items():
        interval = "" if each.low is None else f" ({each.low:.2f}-{each.high:.2f})"
        yield f"  {name:<{width}} {each.value:.2f}{interval}"
