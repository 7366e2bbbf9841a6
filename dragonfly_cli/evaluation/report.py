"""The scores of an evaluation, of all answers of a kind and of every question that was asked often, as text or JSON."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dragonfly_cli.evaluation.intervals import Estimate, estimates
from dragonfly_cli.evaluation.metrics import FEWEST_OF_ONE_QUESTION, Columns, Kind, Scored, metrics_of
from dragonfly_cli.evaluation.options import Metric
from dragonfly_cli.output.json_text import json_text
from dragonfly_cli.output.notices import NOTICE

SCHEMA_VERSION = 1

KIND_NAMES: dict[Kind, str] = {"yesno": "yes/no questions", "options": "questions with options", "open": "free answers"}


@dataclass(frozen=True)
class Block:
    """The metrics of some answers of one kind: those to one question, or with ``question`` None to several."""

    kind: Kind
    question: str | None
    answers: int
    groups: int
    uncertain: int
    metrics: dict[Metric, Estimate]


@dataclass(frozen=True)
class Report:
    """``unanswered`` questions, of images that could not be read say, are in no figure.

    ``about`` says what answered what, and how: data set, model, the hashes of both, settings.
    """

    blocks: list[Block]
    unanswered: int
    about: dict[str, Any]


def blocks_of(scored: Sequence[Scored], wanted: Sequence[Metric] | None) -> list[Block]:
    """Of the ``wanted`` metrics, or all."""
    blocks: list[Block] = []
    for kind in KIND_NAMES:
        metrics = [metric for metric in metrics_of(kind) if wanted is None or metric in wanted]
        of_kind = [each for each in scored if each.kind == kind]
        if of_kind and metrics:
            blocks += _blocks_of_kind(of_kind, metrics)
    return blocks


def _blocks_of_kind(scored: list[Scored], metrics: list[Metric]) -> Iterator[Block]:
    columns = Columns.of(scored)
    rows: dict[str, list[int]] = {}
    for row, each in enumerate(scored):
        rows.setdefault(each.question, []).append(row)
    yield _block(None if len(rows) > 1 else scored[0].question, scored, columns, metrics)
    for question, its in rows.items():
        if len(rows) > 1 and len(its) >= FEWEST_OF_ONE_QUESTION:
            yield _block(question, [scored[row] for row in its], columns.take(its), metrics)


def _block(question: str | None, scored: list[Scored], columns: Columns, metrics: list[Metric]) -> Block:
    groups = [each.group for each in scored]
    uncertain = sum(each.abstained for each in scored)
    found = estimates(columns, groups, metrics)
    return Block(scored[0].kind, question, len(scored), len(set(groups)), uncertain, found)


def as_text(report: Report) -> str:
    """A paragraph for every block; intervals are of 95 %."""
    kinds = Counter(block.question for block in report.blocks)
    paragraphs = [
        "".join(f"{line}\n" for line in _lines(block, names_kind=kinds[block.question] > 1)) for block in report.blocks
    ]
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


def _lines(block: Block, *, names_kind: bool) -> Iterable[str]:
    counts = f"answers: {block.answers}, groups: {block.groups}"
    uncertain = f", uncertain: {block.uncertain}" if block.uncertain else ""
    kind = KIND_NAMES[block.kind]
    title = f"all {kind}" if block.question is None else " ".join(block.question.split()) + f" [{kind}]" * names_kind
    yield f"{title} ({counts}{uncertain})"
    width = max(map(len, block.metrics))
    for name, each in block.metrics.items():
        number = "-" if each.value is None else f"{each.value:.2f}"
        interval = "" if each.low is None else f" ({each.low:.2f}-{each.high:.2f})"
        yield f"  {name:<{width}} {number}{interval}"
