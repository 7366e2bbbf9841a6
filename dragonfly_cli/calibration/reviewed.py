"""The CSV of a batch with one more column, ``truth``, in which a reviewer has written yes or no."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragonfly_cli.engine.questions import WORDS_OF_YES_NO
from dragonfly_cli.errors import InputError, NoInputError
from dragonfly_cli.output.table import delimiter_of, unguarded

TRUTH = "truth"
FEWEST_ROWS = 10
FEWEST_IMAGES = 5  # one for every fold of the cross-validation
FEWEST_OF_EACH = 2  # images

_NEEDED = ("image", "question", "p_yes", "model", "quantization", TRUTH)
_QUANTIZATIONS = ("none", "nf4")  # of models, as a table has them
_HINT = f'review a CSV that dragonfly batch has written: add a column "{TRUTH}" with yes or no in it'


@dataclass(frozen=True)
class Reviewed:
    """One question: of which image, P(yes) as the model said it, and what was true, in the order of the file."""

    question: str
    images: list[str]
    p_yes: list[float]
    truth: list[bool]


@dataclass(frozen=True)
class Review:
    """All reviewed yes/no answers of one model."""

    model: str
    quantization: str
    questions: list[Reviewed]


def read_review(file: Path) -> Review:
    """Rows without a truth, without a probability, that failed, or whose yes was one of --options, are left out.

    So are those that ``eval`` asked with a system prompt.

    Raises InputError if nothing is left, a cell is not understood, several models answered, or a question has too few
    rows, images, or images of one truth.
    """
    rows = [row for row in _rows(file) if row[TRUTH].strip() and row["p_yes"].strip() and _is_of_question_alone(row)]
    if not rows:
        raise InputError(f"{file}: no row has both a probability of yes and a {TRUTH}", _HINT)
    models = {(row["model"], row["quantization"]) for row in rows}
    if len(models) > 1:
        raise InputError(f"{file}: its rows were answered by several models", "calibrate each model with its own rows")
    (model,) = models
    if model[1] not in _QUANTIZATIONS:
        raise InputError(
            f"{file}: {model[1]!r} is no quantization", "leave the column quantization as dragonfly batch wrote it"
        )
    questions: dict[str, Reviewed] = {}
    for row in rows:
        text = unguarded(row["question"])
        reviewed = questions.setdefault(text, Reviewed(text, [], [], []))
        reviewed.images.append(row["image"])
        reviewed.p_yes.append(_probability(file, row["p_yes"]))
        reviewed.truth.append(_truth(file, row[TRUTH]))
    for reviewed in questions.values():
        _refuse_too_little(file, reviewed)
    return Review(*model, list(questions.values()))


def _rows(file: Path) -> Iterable[dict[str, str]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            header = text.readline()
            text.seek(0)
            reader = csv.DictReader(text, restval="", delimiter=delimiter_of(header), strict=True)
            names = [name for name in reader.fieldnames or [] if name]
            if len(set(names)) < len(names):
                raise InputError(f"{file}: two columns have the same name", "rename one of them")
            missing = [name for name in _NEEDED if name not in (reader.fieldnames or [])]
            if missing:
                raise InputError(f"{file} has no column {missing[0]}", _HINT)
            rows = list(reader)
    except FileNotFoundError:
        raise NoInputError(f"no file {file}", "check the path") from None
    except (OSError, UnicodeDecodeError, csv.Error):
        raise InputError(f"cannot read {file} as a CSV", "it must be a table in UTF-8") from None
    for number, row in enumerate(rows, start=1):
        beyond: Any = row.pop(None, [])
        if any(beyond):
            raise InputError(f"{file}, row {number}: it has more cells than the header", "put commas in quotes")
    return rows


def _is_of_question_alone(row: Mapping[str, str]) -> bool:
    return not row.get("probabilities") and "system=" not in row.get("row_options", "")


def _probability(file: Path, cell: str) -> float:
    try:
        p = float(cell.replace(",", "."))  # as a spreadsheet may have written it
    except ValueError:
        p = -1.0
    if not 0 <= p <= 1:
        raise InputError(f"{file}: {cell} is not a probability", "leave the column p_yes as dragonfly batch wrote it")
    return p


def _truth(file: Path, cell: str) -> bool:
    known = WORDS_OF_YES_NO.get(cell.strip().lower())
    if known is None:
        raise InputError(f"{file}: the {TRUTH} {cell} is not understood", f"write yes or no in the column {TRUTH}")
    return known == "yes"


def _refuse_too_little(file: Path, reviewed: Reviewed) -> None:
    count, yes = len(reviewed.truth), sum(reviewed.truth)
    if not FEWEST_OF_EACH <= yes <= count - FEWEST_OF_EACH:
        raise InputError(
            f"{file}: of {count} rows of {reviewed.question!r} {yes} are yes and {count - yes} no",
            f"review images of both kinds, at least {FEWEST_OF_EACH} of each, or take the question out",
        )
    if count < FEWEST_ROWS:
        raise InputError(
            f"{file}: {reviewed.question!r} has only {count} reviewed rows",
            f"review at least {FEWEST_ROWS}, better 100, or take the question out",
        )
    images = len(set(reviewed.images))
    if images < FEWEST_IMAGES:
        raise InputError(
            f"{file}: the rows of {reviewed.question!r} are about only {images} image{'s' * (images > 1)}",
            f"review at least {FEWEST_IMAGES} images, better 100, or take the question out",
        )
    having = {kind: len(_images_with(reviewed, kind)) for kind in (True, False)}
    if min(having.values()) < FEWEST_OF_EACH:
        raise InputError(
            f"{file}: of the {images} images of {reviewed.question!r} {having[True]} have a yes and "
            f"{having[False]} a no",
            f"review images of both kinds, at least {FEWEST_OF_EACH} of each, or take the question out",
        )


def _images_with(reviewed: Reviewed, kind: bool) -> set[str]:
    return {image for image, true in zip(reviewed.images, reviewed.truth, strict=True) if true is kind}
