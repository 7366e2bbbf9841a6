"""``ask`` and ``caption``: one image, some questions, answers printed as they come or written as records."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dragonfly_cli.engine.checkpoints import Checkpoint, canvas_of, find_checkpoint
from dragonfly_cli.engine.forms import as_form
from dragonfly_cli.engine.questions import Form, Question, as_question, caption_question, check_rule
from dragonfly_cli.errors import InputError, NoInputError, UsageError
from dragonfly_cli.fields import LookPlan, arranged, check_looking, plan_looks
from dragonfly_cli.option_values import Format
from dragonfly_cli.options import (
    AnswerOptions,
    EvidenceOptions,
    FormOptions,
    LookOptions,
    OpenOptions,
    PrintOptions,
)
from dragonfly_cli.output.control_characters import harmless_rows
from dragonfly_cli.output.evidence import check_evidence, write_evidence
from dragonfly_cli.output.files import STDOUT, check_unread, is_text, storable, write_text
from dragonfly_cli.output.notices import DEMO_WARNING
from dragonfly_cli.output.streams import write_result
from dragonfly_cli.output.terminal import (
    say,
    say_notices,
    say_warnings,
    show,
    where_it_looked,
    without_the_picture,
)
from dragonfly_cli.output.votes import certainty
from dragonfly_cli.readers import Source, exists, open_source
from dragonfly_cli.readers.source import files_of
from dragonfly_cli.templates import find_template, own_file
from dragonfly_cli.unused_options import unused_options


def gather_questions(asked: list[str], file: Path | None, wanted: FormOptions) -> list[Question]:
    """The questions of the command line, then those of a file, one a line; if none were given, those of the template.

    Raises UsageError if there is no question at all.
    """
    questions = _given(asked, file, wanted)
    if not questions:
        where = f" in {file}" if file else f": template {wanted.template} has none" if wanted.template else ""
        raise UsageError(f"there is no question{where}", 'give one: -q "Is there necrosis?"')
    return questions


def refuse_bare_words(questions: list[str]) -> None:
    """Raises UsageError for a question without quotes, each word of which would be answered as one."""
    are_words = not any(" " in question.strip() for question in questions)
    if len(questions) > 1 and are_words and not all(question.endswith(("?", "\uff1f")) for question in questions):
        raise UsageError(
            "the question is given as several words, each of which would be a question",
            f'put it in quotes: dragonfly ask IMAGE "{" ".join(questions)}"',
        )


def questions_about_each(asked: list[str], file: Path | None, wanted: FormOptions) -> list[Question]:
    """What is asked about every image that has no question of its own: if nothing is given, to describe it.

    Empty where there are only a template without questions, or a form that no description has; raises what
    ``gather_questions`` raises.
    """
    if asked or file:
        return gather_questions(asked, file, wanted)
    is_free = as_form(wanted) in (Form(), Form("open"))
    return [caption_question()] if is_free and not wanted.template else _given([], None, wanted)


def check_questions_kept(outputs: Iterable[Path | None], wanted: FormOptions, file: Path | None = None) -> None:
    """Raises UsageError for an output that is a file from which questions or their form are read."""
    check_unread(outputs, (file, wanted.schema, own_file() if wanted.template else None))


def _given(asked: list[str], file: Path | None, wanted: FormOptions) -> list[Question]:
    as_asked = question_maker(wanted)
    texts = [*asked, *(_read_questions(file) if file else [])]
    if not texts and wanted.template and not file:
        texts = list(find_template(wanted.template).questions)
    return [as_asked(text) for text in texts]


def question_maker(wanted: FormOptions) -> Callable[[str], Question]:
    """Makes questions of this form and template, and raises UsageError for a text that is none.

    Raises UsageError itself for options that contradict each other, or a template that does not exist.
    """
    form = as_form(wanted)
    system = find_template(wanted.template).system if wanted.template else None

    def as_asked(text: str) -> Question:
        if not text.strip():
            raise UsageError("a question is empty", "write it in quotes")
        if not is_text(text):
            raise UsageError("a question is not valid UTF-8", "write it again")
        return as_question(text, form, system)

    return as_asked


def ask_image(
    image: Path,
    questions: list[Question],
    opening: OpenOptions,
    looking: LookOptions,
    answering: AnswerOptions,
    printing: PrintOptions,
    evidence: EvidenceOptions,
) -> None:
    """Answers the questions about one image, on stdout or into ``printing.output``; shows where it looked."""
    output = None if printing.output in (None, STDOUT) else printing.output
    _check_order(image, questions)
    check_evidence(evidence, output)
    check_looking(looking)
    check_rule(questions, answering.aggregate)
    checkpoint = find_checkpoint(answering.model)
    settings = asdict(opening) | asdict(looking)
    opened = arranged(open_source(image, opening), looking)  # before torch is imported: a bad path is told at once
    with closing(opened) as source:
        check_unread((output, evidence.geojson, evidence.overlay), (*files_of(source), looking.roi))
        plan = plan_looks(source, looking, canvas_of(checkpoint))
        if unused := unused_options(looking, answering, evidence, plan, questions):
            say(f"note: {', '.join(unused)} will not be used: nothing that is looked at or asked here depends on it")
        if printing.format is Format.text and output is None:
            answers = _answers(source, plan, checkpoint, questions, answering, settings, aloud=True)
            write_evidence(evidence, looking, source, plan, _print_text(answers, printing.verbose))
            return
        records = list(_answers(source, plan, checkpoint, questions, answering, settings))
        if printing.format is Format.text:  # the others hold it
            _say_controls(records)
        if printing.verbose:
            _say_where(records)
        text = _formatted(records, printing.format)
        if output:
            write_text(output, text)
        else:
            write_result(storable(harmless_rows(text)))
        write_evidence(evidence, looking, source, plan, records)  # last: an answer is not lost where this fails


def _check_order(image: Path, questions: list[Question]) -> None:
    """Raises UsageError where image and question were given in the wrong order."""
    files = [question.text for question in questions if question.text and exists(Path(question.text))]
    if files and not exists(image):
        raise UsageError(
            f"there is no such image, but the question {files[0]} is a file",
            f'the image comes first: dragonfly ask {files[0]} "Is there necrosis?"',
        )


def _answers(
    source: Source,
    plan: LookPlan,
    checkpoint: Checkpoint,
    questions: list[Question],
    answering: AnswerOptions,
    settings: dict[str, Any],
    aloud: bool = False,
) -> Iterator[dict[str, Any]]:
    """The records, in the order of the questions; ``aloud`` shows the answers as they come."""
    from dragonfly_cli.engine.answering import say_nothing
    from dragonfly_cli.pipeline import prepare
    from dragonfly_cli.searching import answer_planned

    model, request = prepare(checkpoint, questions, answering, settings)
    say_notices(checkpoint)
    said = {DEMO_WARNING}
    records = answer_planned(model, source, plan, request, show if aloud else say_nothing)
    for _, record in zip(_named(questions, aloud), records, strict=True):
        yield record
        say_warnings(record, said, shown=aloud)
        said.update(source.warnings)  # of the others, each is about its own question


def _named(questions: list[Question], aloud: bool) -> Iterator[Question]:
    """The questions; of several, each is named before its answer, since those of a template or file are not in view."""
    for question in questions:
        if aloud and len(questions) > 1:
            say(f"question: {question.text}")
        yield question


def _print_text(records: Iterator[dict[str, Any]], verbose: bool) -> list[dict[str, Any]]:
    """The answers have been streamed already; after each this shows how sure it is. Returns the records."""
    printed = []
    for record in records:
        printed.append(record)
        show(certainty(record) + "\n")
        _say_controls([record])
        if verbose:
            _say_where([record])
    return printed


def _say_controls(records: list[dict[str, Any]]) -> None:
    for record in records:
        for line in without_the_picture(record):
            say(line)


def _say_where(records: list[dict[str, Any]]) -> None:
    for record in records:
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
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise NoInputError(f"no questions file {file}", "check the path given to --questions") from None
    except (OSError, UnicodeDecodeError):
        text = None
    if text is None or "\0" in text:  # as UTF-16 has beside every letter
        raise InputError(f"cannot read questions from {file}", "it must be a UTF-8 text file")
    return [line.strip() for line in text.split("\n") if line.strip()]  # a question may hold other line ends
