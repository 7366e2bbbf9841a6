"""The options that mean the same in every command, each with its environment variable. Nothing heavy is imported.

Options that belong together form a group, a frozen dataclass, which is also what the code behind a command is given.
"""

import os
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dragonfly_cli.errors import UsageError
from dragonfly_cli.funnel import DEBUG_KEY
from dragonfly_cli.option_lines import LINES
from dragonfly_cli.option_values import Aggregate, AnswerType, Attention, Control, Format, Picture, Quant, Rank

if TYPE_CHECKING:
    from dragonfly_cli.readers.dicom.choices import DicomChoices

_THINKABLE_MPP = (1e-4, 1e4)  # from an electron microscope's to a centimetre
_SEEDS = range(-(2**63), 2**64)  # what PyTorch's generator takes


def _remember_debug(context: typer.Context, value: bool) -> bool:
    context.meta[DEBUG_KEY] = value
    return value


def _open_no_connection(value: bool) -> bool:
    """Told to huggingface_hub, the only one that opens any, before it is imported; worker processes hear it too."""
    if value:
        os.environ["HF_HUB_OFFLINE"] = "1"
    return value


ImageArgument = Annotated[
    Path, typer.Argument(metavar="IMAGE", help="A slide, a picture, or DICOM (file, folder or archive).")
]
ModelOption = Annotated[str, typer.Option("--model", "-m", help="auto, demo, the name of a stored model, or a folder.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.", show_default=True)]
QuantOption = Annotated[
    Quant, typer.Option("--quant", help="4bit saves memory. auto: 4bit for a large model on a GPU.")
]
AttentionOption = Annotated[
    Attention,
    typer.Option("--attn", help="The attention kernel. auto: FlashAttention where it is installed, else SDPA."),
]
PictureOption = Annotated[Picture, typer.Option("--what", help="What to draw.")]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file; - is stdout.")]
FormatOption = Annotated[
    Format | None,
    typer.Option("--format", "-f", help="The format of the answers. Default: by the suffix of -o, or text."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
QuestionOption = Annotated[
    list[str] | None, typer.Option("--question", "-q", click_type=LINES, help="A question; may be repeated.")
]
QuestionsFileOption = Annotated[Path | None, typer.Option("--questions", help="A text file with one question a line.")]
MaxTokensOption = Annotated[int, typer.Option("--max-tokens", min=1, help="The longest answer, in tokens.")]
TemperatureOption = Annotated[float, typer.Option("--temperature", min=0.0, help="0 gives the same answer every time.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of everything drawn at random.")]
FrameOption = Annotated[int | None, typer.Option("--frame", min=0, help="Which frame of several, counted from 0.")]
SliceOption = Annotated[
    str | None, typer.Option("--slice", help="Slices in spatial order, counted from 0: N or FIRST:LAST:STEP.")
]
MontageOption = Annotated[
    str | None, typer.Option("--montage", help="Show several slices as one picture: COLUMNSxROWS, such as 4x3.")
]
WindowOption = Annotated[
    str | None,
    typer.Option(
        "--window",
        help="DICOM grey levels: lung, brain, bone, soft, liver, mediastinum, stroke, rgb3; WIDTH,LEVEL; "
        "or N for the N-th window in the file.",
    ),
]
SeriesOption = Annotated[
    str | None, typer.Option("--series", help="Which DICOM series: its number in `dragonfly info`, or its UID.")
]
SlideMppOption = Annotated[
    float | None, typer.Option("--slide-mpp", help="Microns per pixel, when the file does not say.")
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say on stderr where the model looked, and what it said of each field.")
]
DebugOption = Annotated[
    bool, typer.Option("--debug", callback=_remember_debug, is_eager=True, help="Show the traceback of an error.")
]
OfflineOption = Annotated[
    bool,
    typer.Option(
        "--offline",
        callback=_open_no_connection,
        is_eager=True,
        help="Open no connection, as no command but `model pull` does anyway.",
    ),
]
BudgetOption = Annotated[
    int | None,
    typer.Option(
        "--budget",
        min=1,
        help="Look at N fields of view or frames at most (default: 8). Named regions are all looked at.",
    ),
]
AggregateOption = Annotated[
    Aggregate, typer.Option("--aggregate", help="How the answers about several fields become one.")
]
TemplateOption = Annotated[str | None, typer.Option("--template", "-t", help="A prompt that `template list` shows.")]
TypeOption = Annotated[
    AnswerType, typer.Option("--type", help="What kind of answer; auto goes by the form of the question.")
]
OptionsOption = Annotated[
    str | None, typer.Option("--options", help="The answers to choose from, such as benign,malignant.")
]
ScaleOption = Annotated[str | None, typer.Option("--scale", help="Answer with a whole number, such as 1-5.")]
SchemaOption = Annotated[
    Path | None, typer.Option("--schema", help="Answer with JSON that obeys the JSON schema in this file.")
]
AbstainOption = Annotated[
    float,
    typer.Option(
        "--abstain",
        min=0.0,
        max=1.0,
        help="Answer 'uncertain' when the probabilities of the two likeliest answers are less than this apart.",
    ),
]
ControlOption = Annotated[
    Control,
    typer.Option("--control", help="Ask again with the picture blanked or shuffled, to see whether it mattered."),
]
RegionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--region",
        click_type=LINES,
        metavar="X,Y,W,H",
        help="Look at this box, in level-0 pixels or with units (500um, 25%); may be repeated.",
    ),
]
CenterOption = Annotated[
    str | None, typer.Option("--center", metavar="X,Y", help="Look at the field around this point.")
]
FovOption = Annotated[
    str | None,
    typer.Option("--fov", metavar="W,H", help="Width and height of the field at --center; one number stands for both."),
]
RoiOption = Annotated[
    Path | None, typer.Option("--roi", help="Look within the outlines of this GeoJSON file, as QuPath exports them.")
]
RoiClassOption = Annotated[
    list[str] | None,
    typer.Option("--roi-class", click_type=LINES, help="Only outlines of this class; may be repeated."),
]
BoundsOffsetOption = Annotated[
    bool,
    typer.Option(
        "--bounds-offset/--no-bounds-offset", help="Count GeoJSON from the scanned part of the slide, as QuPath does."
    ),
]
MppOption = Annotated[
    float | None, typer.Option("--mpp", help="The scale to look at, in microns per pixel (default: 0.5).")
]
LevelOption = Annotated[
    int | None, typer.Option("--level", min=0, help="The scale to look at, as a level of the slide.")
]
TimeLimitOption = Annotated[
    float | None, typer.Option("--time-limit", help="Stop looking at a slide after this many seconds.")
]
RankOption = Annotated[
    Rank,
    typer.Option(
        "--rank",
        help="How fields of a slide are chosen. auto: yes and odd in turns for yes/no questions, else likeness.",
    ),
]
GeojsonOption = Annotated[
    Path | None, typer.Option("--geojson", help="Write the fields looked at as GeoJSON, for QuPath.")
]
OverlayOption = Annotated[Path | None, typer.Option("--overlay", help="Draw the fields looked at into a PNG.")]


@dataclass(frozen=True)
class OpenOptions:
    """How the image is opened."""

    slide_mpp: SlideMppOption = None
    window: WindowOption = None
    series: SeriesOption = None

    def __post_init__(self) -> None:
        """What can never be right is told before any file is opened. Raises UsageError."""
        self.dicom  # noqa: B018 - raises for a window or series that cannot be understood
        least, most = _THINKABLE_MPP
        if self.slide_mpp is not None and not least <= self.slide_mpp <= most:
            raise UsageError(
                f"--slide-mpp {self.slide_mpp:g}: no image has so many microns per pixel",
                "a slide has about 0.25 or 0.5; give microns, not nanometres",
            )

    @property
    def dicom(self) -> "DicomChoices":
        """Window and series, parsed. Raises UsageError."""
        from dragonfly_cli.readers.dicom.choices import parse_choices

        return parse_choices(self.window, self.series)


@dataclass(frozen=True)
class LookOptions:
    """Where the model looks."""

    frame: FrameOption = None
    slices: SliceOption = None
    montage: MontageOption = None
    budget: BudgetOption = None
    region: RegionOption = None
    center: CenterOption = None
    fov: FovOption = None
    roi: RoiOption = None
    roi_class: RoiClassOption = None
    mpp: MppOption = None
    level: LevelOption = None
    rank: RankOption = Rank.auto
    time_limit: TimeLimitOption = None
    bounds_offset: BoundsOffsetOption = True


@dataclass(frozen=True)
class AnswerOptions:
    """Which model answers, and how."""

    model: ModelOption = "auto"
    device: DeviceOption = "auto"
    max_tokens: MaxTokensOption = 256
    temperature: TemperatureOption = 0.0
    seed: SeedOption = 0
    quant: QuantOption = Quant.auto
    attn: AttentionOption = Attention.auto
    aggregate: AggregateOption = Aggregate.auto
    abstain: AbstainOption = 0.0
    control: ControlOption = Control.none

    def __post_init__(self) -> None:
        """Numbers that no answer can be drawn with. Raises UsageError."""

        for name, value in (("--temperature", self.temperature), ("--abstain", self.abstain)):
            if not isfinite(value):
                raise UsageError(f"{name} {value}: this is not a number to answer with", "give one such as 0.2")
        if not _SEEDS.start <= self.seed < _SEEDS.stop:
            raise UsageError(f"--seed {self.seed}: it does not fit into 64 bits", "give a smaller one")


@dataclass(frozen=True)
class ViewOptions:
    """What ``view`` draws, and for which model."""

    what: PictureOption = Picture.crops
    model: ModelOption = "auto"
    device: DeviceOption = "auto"
    quant: QuantOption = Quant.auto
    attn: AttentionOption = Attention.auto
    aggregate: AggregateOption = Aggregate.auto


@dataclass(frozen=True)
class FormOptions:
    """What form questions and answers have."""

    template: TemplateOption = None
    type: TypeOption = AnswerType.auto
    options: OptionsOption = None
    scale: ScaleOption = None
    schema: SchemaOption = None

    @cached_property
    def schema_content(self) -> bytes | None:
        """What the file holds, which may be a pipe: it is read once."""
        return None if self.schema is None else self.schema.read_bytes()


@dataclass(frozen=True)
class PrintOptions:
    """How answers are printed."""

    output: OutputOption = None
    output_format: FormatOption = None
    json: JsonOption = False
    verbose: VerboseOption = False

    def __post_init__(self) -> None:
        """Raises UsageError where two formats are asked for."""
        if self.json and self.output_format not in (None, Format.json):
            raise UsageError(f"--json and --format {self.output_format} are two formats", "leave one of them out")

    @property
    def format(self) -> Format:
        """What was asked for, or what the output's name promises."""
        if self.json:
            return Format.json
        suffix = self.output.suffix.lower().removeprefix(".") if self.output else ""
        return self.output_format or (Format(suffix) if suffix in set(Format) else Format.text)


@dataclass(frozen=True)
class EvidenceOptions:
    """Files that show where the model looked."""

    geojson: GeojsonOption = None
    overlay: OverlayOption = None
