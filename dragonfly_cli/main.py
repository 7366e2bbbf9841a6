"""The command line: thin commands that check options, call, and print.

Nothing heavy is imported here; every command imports what it needs in its body, so that ``--help`` stays instant.
"""

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dragonfly_cli import __version__
from dragonfly_cli.funnel import ErrorFunnel
from dragonfly_cli.model_commands import model_app
from dragonfly_cli.option_groups import takes_option_groups
from dragonfly_cli.options import (
    AnswerOptions,
    Attention,
    AttentionOption,
    DebugOption,
    DeviceOption,
    ImageArgument,
    JsonOption,
    LookOptions,
    ModelOption,
    OpenOptions,
    Picture,
    PrintOptions,
    Quant,
    QuantOption,
    QuestionOption,
    QuestionsFileOption,
)

app = typer.Typer(
    cls=ErrorFunnel,
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Ask questions about biomedical images, on your own machine. Research use only, not a medical device.",
)
app.add_typer(model_app, name="model")


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
    """Ask questions about biomedical images, on your own machine. Research use only, not a medical device."""


@app.command()
@takes_option_groups
def ask(
    image: ImageArgument,
    question: Annotated[list[str] | None, typer.Argument(metavar="QUESTION...", show_default=False)] = None,
    more: QuestionOption = None,
    questions_file: QuestionsFileOption = None,
    *,
    opening: OpenOptions,
    looking: LookOptions,
    answering: AnswerOptions,
    printing: PrintOptions,
    debug: DebugOption = False,
) -> None:
    """Answer one or more questions about one image."""
    from dragonfly_cli.asking import ask_image, gather_questions

    questions = gather_questions([*(question or []), *(more or [])], questions_file)
    ask_image(image, questions, opening, looking, answering, printing)


@app.command()
@takes_option_groups
def caption(
    image: ImageArgument,
    *,
    opening: OpenOptions,
    looking: LookOptions,
    answering: AnswerOptions,
    printing: PrintOptions,
    debug: DebugOption = False,
) -> None:
    """Describe an image."""
    from dragonfly_cli.asking import ask_image
    from dragonfly_cli.engine.questions import caption_question

    ask_image(image, [caption_question()], opening, looking, answering, printing)


@app.command()
@takes_option_groups
def batch(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="Images, or folders of images.")],
    output: Annotated[Path, typer.Option("--output", "-o", envvar="DRAGONFLY_OUTPUT", help="The CSV to write.")],
    question: QuestionOption = None,
    questions_file: QuestionsFileOption = None,
    *,
    opening: OpenOptions,
    looking: LookOptions,
    answering: AnswerOptions,
    debug: DebugOption = False,
) -> None:
    """Ask every question about every image below the sources; without a question, caption them."""
    from dragonfly_cli.asking import gather_questions
    from dragonfly_cli.batch import run_batch
    from dragonfly_cli.engine.questions import caption_question

    asked = [*(question or [])]
    questions = gather_questions(asked, questions_file) if asked or questions_file else [caption_question()]
    if run_batch(sources, questions, output, opening, looking, answering):
        raise typer.Exit(8)


@app.command()
@takes_option_groups
def info(image: ImageArgument, json: JsonOption = False, *, opening: OpenOptions, debug: DebugOption = False) -> None:
    """Show format, size, frames, levels, microns per pixel and window; no patient data."""
    from dragonfly_cli.output.record import as_json, source_info
    from dragonfly_cli.output.terminal import info_text, show
    from dragonfly_cli.readers import open_source

    source = open_source(image, opening)
    facts = source_info(source)
    source.close()
    show(as_json([facts]) if json else info_text(facts))


@app.command()
@takes_option_groups
def view(
    image: ImageArgument,
    output: Annotated[Path, typer.Option("--output", "-o", envvar="DRAGONFLY_OUTPUT", help="The PNG to write.")],
    what: Annotated[Picture, typer.Option("--what", envvar="DRAGONFLY_WHAT", help="What to draw.")] = Picture.crops,
    model: ModelOption = "auto",
    *,
    opening: OpenOptions,
    looking: LookOptions,
    debug: DebugOption = False,
) -> None:
    """Draw exactly what the model will see; no weights are loaded."""
    from dragonfly_cli.viewing import draw_view

    draw_view(image, output, what, model, opening, looking)


@app.command()
def doctor(
    model: ModelOption = "auto",
    device: DeviceOption = "auto",
    quant: QuantOption = Quant.auto,
    attn: AttentionOption = Attention.auto,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check the installation, the GPU, the decoders and that the model sees; exit code 9 if there is a problem."""
    from dragonfly_cli.doctor.examination import as_line, as_report, examine, worst
    from dragonfly_cli.doctor.finding import DoctorSettings, Status
    from dragonfly_cli.output.terminal import show

    findings = []
    for finding in examine(DoctorSettings(model, device, quant, attn)):
        findings.append(finding)
        if not json:
            show(as_line(finding))
    if json:
        show(as_report(findings))
    if worst(findings) is Status.problem:
        raise typer.Exit(9)


def _terminate(*_: Any) -> None:
    sys.exit(128 + signal.SIGTERM)


def main() -> None:
    """The console script. SIGTERM unwinds like an interrupt, so that what was finished is kept."""
    signal.signal(signal.SIGTERM, _terminate)
    app()


if __name__ == "__main__":
    main()
