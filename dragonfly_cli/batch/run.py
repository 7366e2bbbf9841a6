"""The loop of a folder run: find images, answer, append rows; one bad file is one failed row per question."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from dragonfly_cli import __version__
from dragonfly_cli.batch.ledger import Key, Ledger
from dragonfly_cli.engine.checkpoints import Checkpoint, find_checkpoint
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.errors import DragonflyError, NoInputError, UsageError
from dragonfly_cli.fields import arranged, check_looking, plan_looks, spread
from dragonfly_cli.options import AnswerOptions, Control, LookOptions, OpenOptions
from dragonfly_cli.output.files import storable
from dragonfly_cli.output.notices import HARDLY
from dragonfly_cli.output.table import answer_row, failure_row
from dragonfly_cli.output.terminal import say, say_notices
from dragonfly_cli.readers.inputs import Input, list_inputs

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
    control_sample: int | None = None,
) -> int:
    """Answers every question about every image below ``sources``; returns the number of failed rows.

    Continues the run that ``output`` holds, if it was made with the same settings. With ``control_sample`` only so many
    images, spread evenly over the run, are asked about a second time with nothing to be seen.

    Raises:
        NoInputError: there is no image.
        OutputError: the CSV cannot be written, or belongs to another run.
    """
    check_looking(looking)
    if opening.series is not None:
        raise UsageError("--series chooses one series, and batch goes through all", "leave it out")
    images = find_images(sources)
    checkpoint = find_checkpoint(answering.model)
    options = asdict(opening) | asdict(looking) | asdict(answering) | {"control_sample": control_sample}
    book = Ledger(output, _run_settings(sources, questions, options, checkpoint))
    book.refuse_other_run()  # told before the model is loaded
    from dragonfly_cli.pipeline import prepare

    model, request = prepare(checkpoint, questions, answering, asdict(opening) | asdict(looking))
    say_notices(checkpoint)
    requests = _requests(images, request, control_sample)
    distances: list[float] = []
    with book as ledger:
        left = [image for image in images if any(_key(image, q) not in ledger.finished.keys for q in questions)]
        if len(left) < len(images):
            say(f"note: continuing {output}: {len(images) - len(left)} of {len(images)} images are done")
        for image in _with_progress(left):
            for rows in _image_rows(model, image, requests[image], opening, looking, ledger.finished.keys):
                ledger.add(rows)
                distances += [float(row["control_distance"]) for row in rows if row["control_distance"]]
        failed = ledger.close_with_failures()
    counts = f"images: {len(images)}, questions: {len(questions)}, failed rows: {failed}"
    say(f"note: {counts}; answers are in {output}")
    if distances:
        say(f"note: {control_summary(distances)}")
    return failed


def find_images(sources: list[Path]) -> list[Input]:
    """Every image below the sources, each once, in the order of the sources and of paths within them."""
    images = list({image.name: image for source in sources for image in list_inputs(source)}.values())
    if not images:
        raise NoInputError(f"no image below {', '.join(map(str, sources))}", "check the folders")
    return images


def control_summary(distances: list[float]) -> str:
    """What is to be known of the answers that were asked for again with nothing to be seen."""
    hardly = sum(distance < HARDLY for distance in distances)
    return (
        f"control: without the picture {len(distances)} answers are {fmean(distances):.2f} apart on average (0 is the "
        f"same, 1 the farthest); {hardly} of them hardly change"
    )


def _requests(images: list[Input], request: "Request", control_sample: int | None) -> dict[Input, "Request"]:
    """What is asked of each image: with a sample, only of some of them again with nothing to be seen."""
    if control_sample is None:
        return dict.fromkeys(images, request)
    kind = Control.blank if request.control is Control.none else request.control
    sampled = {images[place] for place in spread(len(images), control_sample)}
    return {image: replace(request, control=kind if image in sampled else Control.none) for image in images}


def _image_rows(
    model: "Model",
    image: Input,
    request: "Request",
    opening: OpenOptions,
    looking: LookOptions,
    finished: frozenset[Key],
) -> Iterator[list[dict[str, str]]]:
    """Yields the rows of one image as they are answered, leaving out those that an earlier run has finished.

    All questions are asked again, so that the rows are those of a run that was not cut off, to the last digit.
    """
    from dragonfly_cli.searching import answer_planned

    left = [question for question in request.questions if _key(image, question) not in finished]
    try:
        with closing(arranged(image.open(opening), looking)) as source:
            plan = plan_looks(source, looking, model.canvas_wh)
            records = answer_planned(model, source, plan, looking.rank, request)
            for question, record in zip(request.questions, records, strict=True):
                if question in left:
                    yield [answer_row(record | {"image": image.name})]
                    left.remove(question)
    except DragonflyError as error:
        yield _failed(image, left, error.exit_code, error.message)
    except Exception as error:  # a bug met in one image must not cost the night; the error code tells it
        why = f"{image.name}: this is a bug in dragonfly ({type(error).__name__}); ask about this image with --debug"
        yield _failed(image, left, _BUG_CODE, why)


def _failed(image: Input, questions: list[Question], code: int, why: str) -> list[dict[str, str]]:
    say(f"error: {why}")
    return [failure_row(image.name, question.text, code, why) for question in questions]


def _key(image: Input, question: Question) -> Key:
    return storable(image.name), storable(question.text or "")


def _run_settings(
    sources: list[Path], questions: list[Question], options: dict[str, Any], checkpoint: Checkpoint
) -> dict[str, Any]:
    return {
        "sources": [str(source) for source in sources],
        "questions": [question.text for question in questions],
        "forms": [[question.kind, list(question.options), question.schema, question.system] for question in questions],
        **options,
        "model": checkpoint.id,
        "model_sha256": checkpoint.sha256(),
        "versions": {"dragonfly-cli": __version__},
    }


def _with_progress(images: list[Input]) -> Iterable[Input]:
    """The images, with a progress bar on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        return images
    from rich.console import Console
    from rich.progress import track

    return track(images, description="images", console=Console(stderr=True), transient=True)
