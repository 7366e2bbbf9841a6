"""``calibrate``: reads reviewed answers, fits each question, stores the fits with the hash of the model's weights."""

from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dragonfly_cli.batch.companions import companions_of, read_settings
from dragonfly_cli.calibration.fitting import Fit, fit
from dragonfly_cli.calibration.reviewed import Review, read_review
from dragonfly_cli.calibration.store import store_calibration
from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.errors import InputError, ModelError
from dragonfly_cli.option_values import Aggregate
from dragonfly_cli.output.json_text import json_text
from dragonfly_cli.output.terminal import say


def calibrate(file: Path) -> tuple[dict[str, Fit], Path]:
    """The fit of every question of a reviewed CSV, and where they are stored now.

    Raises:
        InputError: the CSV has too little in it, or cannot be understood.
        ModelError: the model that answered is not here, or was another one of that name.
    """
    review = read_review(file)
    run = _settings_of_run(file)
    if _had_system_text(run):
        raise InputError(
            f"{file}: its questions were asked with a template, which says something to the model before them",
            "a calibration is for questions asked as they are; review a batch without --template",
        )
    sha256 = _model_sha256(review, file, run.get("model_sha256"))
    rule = next((each for each in Aggregate if each == run.get("aggregate")), None)
    fits = {
        each.question: replace(fit(each.p_yes, each.truth, each.images), aggregate=rule) for each in review.questions
    }
    for question, found in fits.items():
        if found.slope == 0:
            say(
                f"warning: {question}: where P(yes) was higher, yes was no more often true, so that every answer is "
                "now given the same probability; see that the column truth says what the question asks"
            )
    return fits, store_calibration(sha256, review.quantization, fits)


def as_text(fits: dict[str, Fit]) -> str:
    """A line per question: what was fitted, and the expected calibration error before and after."""
    return "".join(
        f"{question}: {each.method}, {each.rows} rows, "
        f"expected calibration error {each.error_before:.3f} before, {each.error_after:.3f} after (cross-validated)\n"
        for question, each in fits.items()
    )


def as_report(fits: dict[str, Fit]) -> str:
    return json_text({question: asdict(each) for question, each in fits.items()})


def _had_system_text(run: dict[str, Any]) -> bool:
    try:
        form, forms = run.get("form", {}), run.get("forms", [])
        return bool(form.get("system") or any(system for *_, system in forms))
    except (AttributeError, TypeError, ValueError):
        return False  # another program's run.json


def _model_sha256(review: Review, file: Path, answered: str | None) -> str:
    checkpoint = find_checkpoint(review.model)
    # Of a model with two copies run.json has the hash of the first, whichever answered.
    known = {copy.sha256() for copy in checkpoint.copies}
    if review.quantization != "none" and checkpoint.in_4_bit:
        checkpoint = checkpoint.in_4_bit
    sha256 = checkpoint.sha256()
    if sha256 is None:
        raise ModelError(
            f"model {review.model}: its weights are too large to be hashed at every start",
            "bring it into the store with: dragonfly model convert, and answer with that",
        )
    if answered not in {None, *known}:
        raise ModelError(
            f"model {review.model}: its weights are not those that answered {file.name}", "run the batch again"
        )
    return sha256


def _settings_of_run(file: Path) -> dict[str, Any]:
    """How the CSV was made, by its own ``run.json`` or the only one beside it; of several no other is taken for its.

    Where it is not known, that is told: the calibration then holds for every rule.
    """
    own = companions_of(file, is_shard=False)
    runs = [own.run] if own else [*file.parent.glob("run.json"), *file.parent.glob("*.run.json")]
    settings: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        (run,) = runs
        settings = read_settings(run)
    if "aggregate" not in settings:
        say(
            f"note: it is not known how the answers in {file.name} were made: their calibration is used for every "
            "--aggregate (the run.json that names this table, or one alone, would tell)"
        )
    return settings
