"""The options that mean the same in every command, each with its environment variable. Nothing heavy is imported.

Options that belong together form a group, a frozen dataclass, which is also what the code behind a command is given.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

DEBUG_KEY = "dragonfly.debug"


class Format(StrEnum):
    """How answers are printed."""

    text = "text"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


class Picture(StrEnum):
    """What ``view`` draws."""

    crops = "crops"
    display = "display"
    fields = "fields"


class Quant(StrEnum):
    """In how many bits the language model's weights are held; ``auto`` is 4 on a GPU, on a CPU as they are stored."""

    auto = "auto"
    four_bit = "4bit"
    none = "none"


class Attention(StrEnum):
    """Which attention kernel runs; ``auto`` is FlashAttention where it can be used, else PyTorch's own (SDPA)."""

    auto = "auto"
    sdpa = "sdpa"
    flash = "flash"
    eager = "eager"


class Aggregate(StrEnum):
    """How the answers about several fields become one."""

    auto = "auto"
    any = "any"
    max = "max"
    mean = "mean"
    top3_mean = "top3-mean"
    vote = "vote"


class Keep(StrEnum):
    """Which copies of a model are stored: as published, in 4 bit, or both."""

    full = "full"
    nf4 = "nf4"
    both = "both"


def _remember_debug(context: typer.Context, value: bool) -> bool:
    context.meta[DEBUG_KEY] = value
    return value


ImageArgument = Annotated[Path, typer.Argument(metavar="IMAGE", help="A slide, a DICOM file or a picture.")]
ModelOption = Annotated[
    str,
    typer.Option("--model", "-m", envvar="DRAGONFLY_MODEL", help="auto, demo, a stored model, or a folder."),
]
DeviceOption = Annotated[
    str, typer.Option("--device", envvar="DRAGONFLY_DEVICE", help="auto, cpu, cuda or cuda:N.", show_default=True)
]
QuantOption = Annotated[
    Quant, typer.Option("--quant", envvar="DRAGONFLY_QUANT", help="4bit saves memory; auto is 4bit on a GPU.")
]
AttentionOption = Annotated[
    Attention, typer.Option("--attn", envvar="DRAGONFLY_ATTN", help="auto takes FlashAttention where it is installed.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", envvar="DRAGONFLY_OUTPUT", help="Write to this file; - is stdout."),
]
FormatOption = Annotated[Format, typer.Option("--format", "-f", envvar="DRAGONFLY_FORMAT", help="How to print.")]
JsonOption = Annotated[bool, typer.Option("--json", envvar="DRAGONFLY_JSON", help="The same as --format json.")]
QuestionOption = Annotated[
    list[str] | None,
    typer.Option("--question", "-q", envvar="DRAGONFLY_QUESTION", help="A question; may be repeated."),
]
QuestionsFileOption = Annotated[
    Path | None,
    typer.Option("--questions", envvar="DRAGONFLY_QUESTIONS", help="A text file with one question a line."),
]
MaxTokensOption = Annotated[
    int, typer.Option("--max-tokens", envvar="DRAGONFLY_MAX_TOKENS", min=1, help="The longest answer, in tokens.")
]
TemperatureOption = Annotated[
    float,
    typer.Option("--temperature", envvar="DRAGONFLY_TEMPERATURE", min=0.0, help="0 gives the same answer each time."),
]
SeedOption = Annotated[int, typer.Option("--seed", envvar="DRAGONFLY_SEED", help="For temperatures above 0.")]
FrameOption = Annotated[
    int | None,
    typer.Option("--frame", envvar="DRAGONFLY_FRAME", min=0, help="Which frame of several, counted from 0."),
]
SlideMppOption = Annotated[
    float | None,
    typer.Option("--slide-mpp", envvar="DRAGONFLY_SLIDE_MPP", help="Microns per pixel, when the file does not say."),
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", envvar="DRAGONFLY_VERBOSE", help="Say on stderr where the model looked.")
]
DebugOption = Annotated[
    bool,
    typer.Option(
        "--debug", envvar="DRAGONFLY_DEBUG", callback=_remember_debug, is_eager=True, help="Tracebacks of errors."
    ),
]
BudgetOption = Annotated[
    int | None,
    typer.Option("--budget", envvar="DRAGONFLY_BUDGET", min=1, help="How many fields of view to look at, at most."),
]
AggregateOption = Annotated[
    Aggregate,
    typer.Option("--aggregate", envvar="DRAGONFLY_AGGREGATE", help="How the answers about several fields become one."),
]


@dataclass(frozen=True)
class OpenOptions:
    """How an input is opened."""

    slide_mpp: SlideMppOption = None


@dataclass(frozen=True)
class LookOptions:
    """Where in an input the model looks."""

    frame: FrameOption = None
    budget: BudgetOption = None


@dataclass(frozen=True)
class AnswerOptions:
    """Which model answers, on what, and how its answers are drawn and combined."""

    model: ModelOption = "auto"
    device: DeviceOption = "auto"
    max_tokens: MaxTokensOption = 256
    temperature: TemperatureOption = 0.0
    seed: SeedOption = 0
    quant: QuantOption = Quant.auto
    attn: AttentionOption = Attention.auto
    aggregate: AggregateOption = Aggregate.auto


@dataclass(frozen=True)
class PrintOptions:
    """How answers are printed, and where to."""

    output: OutputOption = None
    output_format: FormatOption = Format.text
    json: JsonOption = False
    verbose: VerboseOption = False

    @property
    def format(self) -> Format:
        return Format.json if self.json else self.output_format
