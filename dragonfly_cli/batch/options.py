"""The options of ``batch`` alone. Nothing heavy is imported."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dragonfly_cli.options import AnswerOptions, ControlSampleOption, FormOptions, LookOptions, OpenOptions


class TableFormat(StrEnum):
    """What the rows of a run are written as."""

    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"


class Engine(StrEnum):
    """Who answers: this machine, or the machines of a Ray cluster."""

    local = "local"
    ray = "ray"


OutputFileOption = Annotated[Path, typer.Option("--output", "-o", help="The table to write, its format by suffix.")]
TableFormatOption = Annotated[
    TableFormat | None, typer.Option("--format", "-f", help="csv, jsonl or parquet, whatever the suffix says.")
]
RecordsOption = Annotated[
    Path | None, typer.Option("--records", help="Write the full records here too, one JSON a line.")
]
EvidenceOption = Annotated[
    Path | None, typer.Option("--evidence", help="A folder for a GeoJSON and an overlay per image.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N images.")]
SampleOption = Annotated[
    int | None, typer.Option("--sample", min=1, help="Only N images, drawn by chance with --seed.")
]
ShardOption = Annotated[
    str | None, typer.Option("--shard", help="I/N: the I-th of N parts; slurm: as SLURM_ARRAY_TASK_ID says.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would run; write nothing.")]
RetryFailedOption = Annotated[bool, typer.Option("--retry-failed", help="Ask again what an earlier run failed.")]
FailFastOption = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first image that fails.")]
MaxErrorsOption = Annotated[int | None, typer.Option("--max-errors", min=1, help="Stop when N images have failed.")]
EngineOption = Annotated[Engine, typer.Option("--engine", help="local, or ray for several machines.")]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="Processes that answer, one GPU each.")]
TogetherOption = Annotated[
    int,
    typer.Option(
        "--together",
        min=1,
        help="Write the free answers of N images together: on a GPU faster, but rows may depend on their neighbours.",
    ),
]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="The Ray cluster; without it one is started here.")
]


@dataclass(frozen=True)
class TableOptions:
    """The rows that are written, and where."""

    output: OutputFileOption
    table_format: TableFormatOption = None
    records: RecordsOption = None


@dataclass(frozen=True)
class FileOptions(TableOptions):
    """All that a run writes."""

    evidence: EvidenceOption = None


@dataclass(frozen=True)
class SelectOptions:
    """Which of the images below the sources are asked about, and which a second time with nothing to be seen."""

    limit: LimitOption = None
    sample: SampleOption = None
    shard: ShardOption = None
    control_sample: ControlSampleOption = None


@dataclass(frozen=True)
class StopOptions:
    """How far a run goes, and what it takes up again."""

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
