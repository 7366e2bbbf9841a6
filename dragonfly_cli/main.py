"""The command line: thin commands that check options, call, and print.

Nothing heavy is imported here; every command imports what it needs in its body, and what annotates its options when it
is used, so that ``--help`` stays instant.
"""

from __future__ import annotations

import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dragonfly_cli import __version__
from dragonfly_cli.app import App
from dragonfly_cli.errors import SOME_FAILED_CODE, ProblemError
from dragonfly_cli.model_commands import model_app
from dragonfly_cli.option_values import Attention, Quant
from dragonfly_cli.output.streams import occupy_closed, settle
from dragonfly_cli.process import begin_process
from dragonfly_cli.template_commands import template_app

if TYPE_CHECKING:
    from dragonfly_cli.batch.options import (
        FileOptions,
        SelectOptions,
        StopOptions,
        TableOptions,
        WorkOptions,
    )
    from dragonfly_cli.evaluation.options import ScoreOptions
    from dragonfly_cli.finetuning.options import TuneOptions
    from dragonfly_cli.options import (
        AnswerOptions,
        AttentionOption,
        DebugOption,
        DeviceOption,
        EvidenceOptions,
        FormOptions,
        ImageArgument,
        JsonOption,
        LookOptions,
        ModelOption,
        OpenOptions,
        PrintOptions,
        QuantOption,
        QuestionOption,
        QuestionsFileOption,
        ViewOptions,
    )

app = App(
    "Ask questions about biomedical images, on your own machine. Research use only, not a medical device.",
    options=(
        "dragonfly_cli.options",
        "dragonfly_cli.batch.options",
        "dragonfly_cli.evaluation.options",
        "dragonfly_cli.finetuning.options",
    ),
)
app.add_typer(model_app, name="model")
app.add_typer(template_app, name="template")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"dragonfly {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """What is asked of the program itself, without a command."""


@app.command()
def ask(
    image: ImageArgument,
    question: Annotated[
        list[str] | None, typer.Argument(metavar="QUESTION...", show_default=False, help="What to ask, in quotes.")
    ] = None,
    more: QuestionOption = None,
    questions_file: QuestionsFileOption = None,
    *,
    form: FormOptions,
    opening: OpenOptions,
    looking: LookOptions,
    answering: AnswerOptions,
    printing: PrintOptions,
    evidence: EvidenceOptions,
    debug: DebugOption = False,
) -> None:
    """Answer one or more questions about one image.

    Example: dragonfly ask slide.svs "Is there necrosis?"
    """
    from dragonfly_cli.asking import ask_image, check_questions_kept, gather_questions, refuse_bare_words

    refuse_bare_words(question or [])
    check_questions_kept((printing.output, evidence.geojson, evidence.overlay), form, questions_file)
    questions = gather_questions([*(question or []), *(more or [])], questions_file, form)
    ask_image(image, questions, opening, looking, answering, printing, evidence)


@app.command()
def caption(
    image: ImageArgument,
    *,
    opening: OpenOptions,
    looking: LookOptions,
    answering: AnswerOptions,
    printing: PrintOptions,
    evidence: EvidenceOptions,
    debug: DebugOption = False,
) -> None:
    """Describe an image."""
    from dragonfly_cli.asking import ask_image
    from dragonfly_cli.engine.questions import caption_question

    ask_image(image, [caption_question()], opening, looking, answering, printing, evidence)


@app.command()
def chat(
    image: ImageArgument,
    *,
    opening: OpenOptions,
    looking: LookOptions,
    answering: AnswerOptions,
    debug: DebugOption = False,
) -> None:
    """Talk about one image; /help shows the commands. Lines may also be piped in."""
    from dragonfly_cli.chat import run_chat

    run_chat(image, opening, looking, answering)


@app.command()
def batch(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE...", help="Images, folders, globs, manifests; - for paths on stdin.")
    ],
    question: QuestionOption = None,
    questions_file: QuestionsFileOption = None,
    *,
    form: FormOptions,
    files: FileOptions,
    opening: OpenOptions,
    looking: LookOptions,
    answering: AnswerOptions,
    selecting: SelectOptions,
    stopping: StopOptions,
    working: WorkOptions,
    debug: DebugOption = False,
) -> None:
    """Ask every question about every image in the sources. Without a question, each image is described.

    Example: dragonfly batch FOLDER -q "Is there necrosis?" -o answers.csv
    """
    from dragonfly_cli.asking import questions_about_each
    from dragonfly_cli.batch.options import BatchOptions
    from dragonfly_cli.batch.run import run_batch

    questions = questions_about_each(question or [], questions_file, form)
    options = BatchOptions(files, form, opening, looking, answering, selecting, stopping, working)
    raise typer.Exit(run_batch(sources, questions, options))


@app.command()
def merge(
    parts: Annotated[list[Path], typer.Argument(metavar="PART...", help="The tables of all shards of one run.")],
    *,
    table: TableOptions,
    debug: DebugOption = False,
) -> None:
    """Join the tables that `batch --shard` has written into one."""
    from dragonfly_cli.batch.merge import merge_parts

    if merge_parts(parts, table):
        raise typer.Exit(SOME_FAILED_CODE)


@app.command()
def verify(
    record: Annotated[
        Path, typer.Argument(metavar="RECORD.json", help="A file that `ask --json` or `batch --records` wrote.")
    ],
    image: Annotated[
        Path | None,
        typer.Option("--image", help="Where the image is now, if it has moved; for records about one image."),
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Ask the questions of a record again. Exit code 9 if answers, probabilities, boxes, scales or prompt differ."""
    from dragonfly_cli.output.terminal import show
    from dragonfly_cli.recorded import read_records
    from dragonfly_cli.verifying import as_line, as_report, compare_all, refuse_drift

    compared = []
    records = read_records(record)
    for each in compare_all(records, image):
        compared.append(each)
        if not json:
            show(as_line(each, names_image=records.are_of_several_images))
    if json:
        show(as_report(compared))
    refuse_drift(compared, record, records.torn)


@app.command()
def calibrate(
    reviewed: Annotated[
        Path, typer.Argument(metavar="REVIEWED.csv", help="The CSV of a batch, with a column `truth` added.")
    ],
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Calibrate the probability of yes on reviewed answers. From then on, ask shows it beside the model's own."""
    from dragonfly_cli.calibrating import as_report, as_text
    from dragonfly_cli.calibrating import calibrate as fit_and_store
    from dragonfly_cli.output.terminal import say, show

    fits, file = fit_and_store(reviewed)
    show(as_report(fits) if json else as_text(fits))
    say(f"note: stored in {file}")


@app.command("eval")
def evaluate(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="JSONL or Parquet rows of image, question, answer.")],
    *,
    scoring: ScoreOptions,
    form: FormOptions,
    opening: OpenOptions,
    looking: LookOptions,
    answering: AnswerOptions,
    working: WorkOptions,
    debug: DebugOption = False,
) -> None:
    """Score a model on questions with known answers. The scores have 95 % intervals.

    Example: dragonfly eval rows.jsonl --model my-model
    """
    from dragonfly_cli.evaluation.evaluating import evaluate as ask_and_score
    from dragonfly_cli.evaluation.options import EvalOptions
    from dragonfly_cli.evaluation.report import as_report, as_text
    from dragonfly_cli.output.terminal import show

    code, report = ask_and_score(data, EvalOptions(scoring, form, opening, looking, answering, working))
    if report:
        show(as_report(report) if scoring.json else as_text(report))
    raise typer.Exit(code)


@app.command()
def info(image: ImageArgument, json: JsonOption = False, *, opening: OpenOptions, debug: DebugOption = False) -> None:
    """Show format, size, frames, levels, scale and window. No patient data is shown."""
    from dragonfly_cli.output.record import as_json, source_info
    from dragonfly_cli.output.terminal import info_text, show
    from dragonfly_cli.readers import open_source

    with closing(open_source(image, opening)) as source:
        facts = source_info(source)
    show(as_json([facts]) if json else info_text(facts))


@app.command()
def view(
    image: ImageArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The PNG to write; - is stdout.")],
    question: QuestionOption = None,
    *,
    form: FormOptions,
    viewing: ViewOptions,
    opening: OpenOptions,
    looking: LookOptions,
    debug: DebugOption = False,
) -> None:
    """Draw exactly what the model will see. Weights are loaded only to search a slide, or for a question."""
    from dragonfly_cli.asking import check_questions_kept, gather_questions
    from dragonfly_cli.viewing import draw_view

    check_questions_kept((output,), form)
    questions = gather_questions(question or [], None, form) if question or form.template else []
    draw_view(image, output, questions, viewing, opening, looking)


@app.command()
def doctor(
    model: ModelOption = "auto",
    device: DeviceOption = "auto",
    quant: QuantOption = Quant.auto,
    attn: AttentionOption = Attention.auto,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check libraries, GPU and decoders, and that the model sees. Exit code 9 if there is a problem."""
    from dragonfly_cli.doctor.examination import as_line, as_report, as_summary, examine, worst
    from dragonfly_cli.doctor.finding import DoctorSettings, Status
    from dragonfly_cli.output.terminal import say, show

    findings = []
    for finding in examine(DoctorSettings(model, device, quant, attn)):
        findings.append(finding)
        if not json:
            show(as_line(finding))
    if json:
        show(as_report(findings))
    else:
        say(f"note: {as_summary(findings)}")
    if worst(findings) is Status.problem:
        raise typer.Exit(ProblemError.exit_code)


@app.command()
def finetune(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="JSONL or Parquet rows of image, question, answer.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    *,
    tuning: TuneOptions,
    opening: OpenOptions,
    debug: DebugOption = False,
) -> None:
    """Adapt a model to questions and answers about your own images. The result is a folder for --model."""
    from dragonfly_cli.finetuning.command import finetune as run

    run(data, output, tuning, opening)


def main() -> None:
    """The console script. SIGTERM and a closed terminal unwind like an interrupt, so that what was finished is kept."""
    ended_by: list[int] = []

    def terminate(number: int, *_: Any) -> None:
        ended_by.append(number)
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, terminate)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, terminate)
    occupy_closed()
    settle()
    begin_process()
    try:
        app()
    finally:
        if ended_by:  # Ray makes it another exit code
            sys.exit(128 + ended_by[0])


if __name__ == "__main__":
    main()
