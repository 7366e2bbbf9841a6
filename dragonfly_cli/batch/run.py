"""The loop of a folder run: find images, answer, append rows; one bad file is one failed row per question."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragonfly_cli import __version__
from dragonfly_cli.batch.ledger import Key, Ledger
from dragonfly_cli.engine.checkpoints import Checkpoint, find_checkpoint
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.errors import DragonflyError, NoInputError
from dragonfly_cli.output.table import answer_row, failure_row
from dragonfly_cli.output.terminal import say
from dragonfly_cli.readers import list_images

if TYPE_CHECKING:  # these import torch, which is not needed to tell that no image was found
    from dragonfly_cli.engine.model import Model
    from dragonfly_cli.pipeline import Request

_BUG_CODE = 1


@dataclass(frozen=True)
class BatchSettings:
    """The options of ``batch``."""

    model: str
    device: str
    max_tokens: int
    temperature: float
    seed: int
    slide_mpp: float | None


def run_batch(sources: list[Path], questions: list[Question], output: Path, settings: BatchSettings) -> int:
    """Answers every question about every image below ``sources``; returns the number of failed rows.

    Continues the run that ``output`` holds, if it was made with the same settings.

    Raises:
        NoInputError: there is no image.
        OutputError: the CSV cannot be written, or belongs to another run.
    """
    images = find_images(sources)
    checkpoint = find_checkpoint(settings.model)
    book = Ledger(output, _run_settings(sources, questions, settings, checkpoint))
    book.refuse_other_run()  # told before the model is loaded
    model, request = _load(checkpoint, questions, settings)
    with book as ledger:
        left = [image for image in images if any(_key(image, q) not in ledger.finished.keys for q in questions)]
        if len(left) < len(images):
            say(f"note: continuing {output}: {len(images) - len(left)} of {len(images)} images are done")
        for image in _with_progress(left):
            for rows in _image_rows(model, image, request, ledger.finished.keys):
                ledger.add(rows)
        failed = ledger.close_with_failures()
    say(f"note: {len(images)} images, {len(questions)} questions, {failed} failed; answers are in {output}")
    return failed


def find_images(sources: list[Path]) -> list[Path]:
    """Every image below the sources, each once, in the order of the sources and of paths within them."""
    images = list(dict.fromkeys(image for source in sources for image in list_images(source)))
    if not images:
        raise NoInputError(f"no image below {', '.join(map(str, sources))}", "check the folders")
    return images


def _load(checkpoint: Checkpoint, questions: list[Question], settings: BatchSettings) -> "tuple[Model, Request]":
    from dragonfly_cli.engine.answering import check_question
    from dragonfly_cli.engine.model import load_model
    from dragonfly_cli.output.record import DEMO_WARNING, NOTICE
    from dragonfly_cli.pipeline import Request
    from dragonfly_med.generation import Sampling

    model = load_model(checkpoint, settings.device)
    for question in questions:
        check_question(model, question)
    say(f"note: {NOTICE}")
    if checkpoint.is_demo:
        say(f"note: {DEMO_WARNING}")
    sampling = Sampling(settings.max_tokens, settings.temperature, settings.seed)
    return model, Request(questions, sampling, slide_mpp=settings.slide_mpp)


def _image_rows(model: "Model", image: Path, request: "Request", finished: frozenset[Key]):
    """Yields the rows of one image as they are answered, leaving out those that an earlier run has finished."""
    from dataclasses import replace

    from dragonfly_cli.pipeline import answer_image

    open_questions = [question for question in request.questions if _key(image, question) not in finished]
    answered = 0
    try:
        for record in answer_image(model, image, replace(request, questions=open_questions)):
            answered += 1
            yield [answer_row(record)]
    except DragonflyError as error:
        yield _failed(image, open_questions[answered:], error.exit_code, error.message)
    except Exception as error:  # a bug met in one image must not cost the night; the error code tells it
        why = f"{image}: this is a bug in dragonfly ({type(error).__name__}); ask about this image with --debug"
        yield _failed(image, open_questions[answered:], _BUG_CODE, why)


def _failed(image: Path, questions: list[Question], code: int, why: str) -> list[dict[str, str]]:
    say(f"error: {why}")
    return [failure_row(str(image), question.text, code, why) for question in questions]


def _key(image: Path, question: Question) -> Key:
    return str(image), question.text or ""


def _run_settings(
    sources: list[Path], questions: list[Question], settings: BatchSettings, checkpoint: Checkpoint
) -> dict[str, Any]:
    return {
        "sources": [str(source) for source in sources],
        "questions": [question.text for question in questions],
        **asdict(settings),
        "model": checkpoint.id,
        "model_sha256": checkpoint.sha256(),
        "versions": {"dragonfly-cli": __version__},
    }


def _with_progress(images: list[Path]):
    """The images, with a progress bar on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        return images
    from rich.console import Console
    from rich.progress import track

    return track(images, description="images", console=Console(stderr=True), transient=True)
