"""The loop of a folder run: find images, answer, append rows; one bad file is one failed row per question."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragonfly_cli import __version__
from dragonfly_cli.batch.ledger import Key, Ledger
from dragonfly_cli.engine.checkpoints import Checkpoint, find_checkpoint
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.errors import DragonflyError, NoInputError
from dragonfly_cli.fields import plan_fields
from dragonfly_cli.options import AnswerOptions, LookOptions, OpenOptions
from dragonfly_cli.output.files import storable
from dragonfly_cli.output.table import answer_row, failure_row
from dragonfly_cli.output.terminal import say, say_notices
from dragonfly_cli.readers import list_images, open_source

if TYPE_CHECKING:  # these import torch, which is not needed to tell that no image was found
    from dragonfly_cli.engine.model import Model
    from dragonfly_cli.pipeline import Request

_BUG_CODE = 1


def run_batch(
    sources: list[Path],
    questions: list[Question],
    output: Path,
    opening: OpenOptions,
    looking: LookOptions,
    answering: AnswerOptions,
) -> int:
    """Answers every question about every image below ``sources``; returns the number of failed rows.

    Continues the run that ``output`` holds, if it was made with the same settings.

    Raises:
        NoInputError: there is no image.
        OutputError: the CSV cannot be written, or belongs to another run.
    """
    images = find_images(sources)
    checkpoint = find_checkpoint(answering.model)
    options = asdict(opening) | asdict(looking) | asdict(answering)
    book = Ledger(output, _run_settings(sources, questions, options, checkpoint))
    book.refuse_other_run()  # told before the model is loaded
    from dragonfly_cli.pipeline import prepare

    model, request = prepare(checkpoint, questions, answering)
    say_notices(checkpoint)
    with book as ledger:
        left = [image for image in images if any(_key(image, q) not in ledger.finished.keys for q in questions)]
        if len(left) < len(images):
            say(f"note: continuing {output}: {len(images) - len(left)} of {len(images)} images are done")
        for image in _with_progress(left):
            for rows in _image_rows(model, image, request, opening, looking, ledger.finished.keys):
                ledger.add(rows)
        failed = ledger.close_with_failures()
    counts = f"images: {len(images)}, questions: {len(questions)}, failed rows: {failed}"
    say(f"note: {counts}; answers are in {output}")
    return failed


def find_images(sources: list[Path]) -> list[Path]:
    """Every image below the sources, each once, in the order of the sources and of paths within them."""
    images = list(dict.fromkeys(image for source in sources for image in list_images(source)))
    if not images:
        raise NoInputError(f"no image below {', '.join(map(str, sources))}", "check the folders")
    return images


def _image_rows(
    model: "Model",
    image: Path,
    request: "Request",
    opening: OpenOptions,
    looking: LookOptions,
    finished: frozenset[Key],
) -> Iterator[list[dict[str, str]]]:
    """Yields the rows of one image as they are answered, leaving out those that an earlier run has finished."""
    from dragonfly_cli.pipeline import answer_source

    left = [question for question in request.questions if _key(image, question) not in finished]
    answered = 0
    try:
        with closing(open_source(image, opening)) as source:
            fields = plan_fields(source, looking)
            for record in answer_source(model, source, fields, replace(request, questions=left)):
                answered += 1
                yield [answer_row(record)]
    except DragonflyError as error:
        yield _failed(image, left[answered:], error.exit_code, error.message)
    except Exception as error:  # a bug met in one image must not cost the night; the error code tells it
        why = f"{image}: this is a bug in dragonfly ({type(error).__name__}); ask about this image with --debug"
        yield _failed(image, left[answered:], _BUG_CODE, why)


def _failed(image: Path, questions: list[Question], code: int, why: str) -> list[dict[str, str]]:
    say(f"error: {why}")
    return [failure_row(str(image), question.text, code, why) for question in questions]


def _key(image: Path, question: Question) -> Key:
    return storable(str(image)), storable(question.text or "")


def _run_settings(
    sources: list[Path], questions: list[Question], options: dict[str, Any], checkpoint: Checkpoint
) -> dict[str, Any]:
    return {
        "sources": [str(source) for source in sources],
        "questions": [question.text for question in questions],
        **options,
        "model": checkpoint.id,
        "model_sha256": checkpoint.sha256(),
        "versions": {"dragonfly-cli": __version__},
    }


def _with_progress(images: list[Path]) -> Iterable[Path]:
    """The images, with a progress bar on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        return images
    from rich.console import Console
    from rich.progress import track

    return track(images, description="images", console=Console(stderr=True), transient=True)
