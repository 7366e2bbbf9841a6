"""The options of ``batch`` alone. Nothing heavy is imported."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dragonfly_cli.options import AnswerOptions, FormOptions, LookOptions, OpenOptions


class TableFormat(StrEnum):
    """What the rows of a run are written as."""

    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"


class Engine(StrEnum):
    """Who answers: this machine, or the machines of a Ray cluster."""

    local = "local"
    ray = "ray"


OutputFileOption = Annotated[
    Path, typer.Option("--output", "-o", help="The table to write; its suffix says in which format.")
]
TableFormatOption = Annotated[
    TableFormat | None, typer.Option("--format", "-f", help="The format of the table, whatever its suffix.")
]
RecordsOption = Annotated[
    Path | None, typer.Option("--records", help="Also write the full records to this file, one JSON object a line.")
]
EvidenceOption = Annotated[
    Path | None, typer.Option("--evidence", help="A folder for a GeoJSON and an overlay of every image.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N images.")]
SampleOption = Annotated[
    int | None, typer.Option("--sample", min=1, help="Only N images, drawn at random with --seed.")
]
ShardOption = Annotated[
    str | None,
    typer.Option("--shard", help="I/N: only the I-th of N parts. slurm: the part of this task of a job array."),
]
ControlSampleOption = Annotated[
    int | None,
    typer.Option(
        "--control-sample",
        min=1,
        help="Ask again about N of the images only; their picture is blanked unless --control says otherwise.",
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done; write nothing.")]
RetryFailedOption = Annotated[bool, typer.Option("--retry-failed", help="Ask again what failed in an earlier run.")]
FailFastOption = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first image that fails.")]
MaxErrorsOption = Annotated[int | None, typer.Option("--max-errors", min=1, help="Stop when N images have failed.")]
EngineOption = Annotated[
    Engine, typer.Option("--engine", help="Where the work is done: on this machine, or on a Ray cluster.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Answer in N processes, each on a GPU of its own.")
]
TogetherOption = Annotated[
    int,
    typer.Option(
        "--together",
        min=1,
        help="Answer about N images at once: takes less time, but rows may depend on their neighbours.",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", help="The address of the Ray cluster; without it one is started on this machine."),
]


@dataclass(frozen=True)
class TableOptions:
    """The table that is written."""

    output: OutputFileOption
    table_format: TableFormatOption = None
    records: RecordsOption = None


@dataclass(frozen=True)
class FileOptions(TableOptions):
    """What a run writes."""

    evidence: EvidenceOption = None


@dataclass(frozen=True)
class SelectOptions:
    """Which images are asked about."""

    limit: LimitOption = None
    sample: SampleOption = None
    shard: ShardOption = None
    control_sample: ControlSampleOption = None


@dataclass(frozen=True)
class StopOptions:
    """How far a run goes."""

    dry_run: DryRunOption = False
    retry_failed: RetryFailedOption = False
    fail_fast: FailFastOption = False
    max_errors: MaxErrorsOption = None


@dataclass(frozen=True)
class WorkOptions:
    """Who answers, and how many images at a time."""

    engine: EngineOption = Engine.local
    workers: WorkersOption = None
    address: AddressOption = None
    together: TogetherOption = 1


@dataclass(frozen=True)
class BatchOptions:
    """All options of one run, as ``batch`` was given them."""

    files: FileOptions
    form: FormOptions
    opening: OpenOptions
    looking: LookOptions
    answering: AnswerOptions
    selecting: SelectOptions
    stopping: StopOptions
    working: WorkOptions
