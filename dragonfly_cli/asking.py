"""``ask`` and ``caption``: one image, some questions, answers printed as they come or written as records."""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from dragonfly_cli.engine.checkpoints import Checkpoint, find_checkpoint
from dragonfly_cli.engine.questions import Question, as_question
from dragonfly_cli.errors import InputError, NoInputError, UsageError
from dragonfly_cli.fields import Field, plan_fields
from dragonfly_cli.options import AnswerOptions, Format, LookOptions, OpenOptions, PrintOptions
from dragonfly_cli.output.files import check_writable, storable, write_text
from dragonfly_cli.output.notices import DEMO_WARNING
from dragonfly_cli.output.terminal import certainty, say, say_notices, show, where_it_looked
from dragonfly_cli.readers import Source, open_source

STDOUT = Path("-")


def gather_questions(asked: list[str], file: Path | None) -> list[Question]:
    """The questions of the command line, then those of a file, one a line; raises UsageError if there is none."""
    texts = [*asked, *(_read_questions(file) if file else [])]
    if not texts:
        raise UsageError("there is no question", 'write one after the image, in quotes: "Is there necrosis?"')
    if not all(text.strip() for text in texts):
        raise UsageError("a question is empty", "write it in quotes")
    return [as_question(text) for text in texts]


def ask_image(
    image: Path,
    questions: list[Question],
    opening: OpenOptions,
    looking: LookOptions,
    answering: AnswerOptions,
    printing: PrintOptions,
) -> None:
    """Answers the questions about one image, on stdout or into ``printing.output``."""
    output = None if printing.output in (None, STDOUT) else printing.output
    if output:
        check_writable(output)
    checkpoint = find_checkpoint(answering.model)
    with closing(open_source(image, opening)) as source:  # before torch is imported: a bad path is told at once
        fields = plan_fields(source, looking)
        if printing.format is Format.text and output is None:
            _print_text(_answers(source, fields, checkpoint, questions, answering, show), printing.verbose)
            return
        text = _formatted(list(_answers(source, fields, checkpoint, questions, answering)), printing.format)
    if output:
        write_text(output, text)
    else:
        sys.stdout.write(storable(text))


def _answers(
    source: Source,
    fields: list[Field],
    checkpoint: Checkpoint,
    questions: list[Question],
    answering: AnswerOptions,
    on_text: Callable[[str], None] = lambda piece: None,
) -> Iterator[dict[str, Any]]:
    from dragonfly_cli.pipeline import answer_source, prepare

    model, request = prepare(checkpoint, questions, answering)
    say_notices(checkpoint)
    said = {DEMO_WARNING}
    for record in answer_source(model, source, fields, request, on_text):
        yield record
        for warning in record["warnings"]:
            if warning not in said:
                say(f"warning: {warning}")
        said.update(record["warnings"])


def _print_text(records: Iterator[dict[str, Any]], verbose: bool) -> None:
    """The answers have been streamed already; what follows each is how sure it is."""
    for record in records:
        show(certainty(record) + "\n")
        if verbose:
            for line in where_it_looked(record):
                say(line)


def _formatted(records: list[dict[str, Any]], output_format: Format) -> str:
    from dragonfly_cli.output.record import as_json, as_json_lines
    from dragonfly_cli.output.table import answer_row, as_csv

    if output_format is Format.json:
        return as_json(records)
    if output_format is Format.jsonl:
        return as_json_lines(records)
    if output_format is Format.csv:
        return as_csv([answer_row(record) for record in records], header=True)
    return "".join(f"{record['answer']}{certainty(record)}\n" for record in records)


def _read_questions(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise NoInputError(f"no questions file {file}", "check the path given to --questions") from None
    except (OSError, UnicodeDecodeError):
        raise InputError(f"cannot read questions from {file}", "it must be a UTF-8 text file") from None
    return [line.strip() for line in lines if line.strip()]
