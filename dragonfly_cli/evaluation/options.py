"""The options of ``eval`` alone. Nothing heavy is imported."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dragonfly_cli.batch.options import WorkOptions
from dragonfly_cli.options import AnswerOptions, FormOptions, JsonOption, LookOptions, OpenOptions


class Metric(StrEnum):
    """What each of them is, and of which questions, is defined in ``metrics``."""

    accuracy = "accuracy"
    balanced_accuracy = "balanced_accuracy"
    majority = "majority"
    sensitivity = "sensitivity"
    specificity = "specificity"
    auroc = "auroc"
    brier = "brier"
    calibration_error = "calibration_error"
    token_recall = "token_recall"
    token_f1 = "token_f1"
    rouge_l = "rouge_l"


class SplitChoice(StrEnum):
    """Which rows of the data."""

    auto = "auto"
    held_out = "held-out"
    train = "train"
    all = "all"


@dataclass(frozen=True)
class ScoreOptions:
    """What is scored, and what is kept."""

    metric: Annotated[
        list[Metric] | None, typer.Option("--metric", help="Only this metric; may be repeated.", show_default=False)
    ] = None
    split: Annotated[
        SplitChoice, typer.Option("--split", help="auto: the held-out rows where a column split says which, else all.")
    ] = SplitChoice.auto
    answers: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Keep the answers in this table; the same command goes on with it."),
    ] = None
    json: JsonOption = False
    max_errors: Annotated[
        int, typer.Option("--max-errors", min=0, help="Leave out up to N rows that cannot be used.")
    ] = 10


@dataclass(frozen=True)
class EvalOptions:
    """All options of one evaluation."""

    scoring: ScoreOptions
    form: FormOptions
    opening: OpenOptions
    looking: LookOptions
    answering: AnswerOptions
    working: WorkOptions
