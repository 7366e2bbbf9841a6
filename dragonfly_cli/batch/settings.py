"""The settings of a run, as ``run.json`` keeps them: a run is continued only with the same."""

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dragonfly_cli.batch.companions import CALIBRATION, OUTLINES, SERIES
from dragonfly_cli.batch.items import Item, Shard, digest
from dragonfly_cli.batch.options import BatchOptions
from dragonfly_cli.calibration.store import calibrations_of
from dragonfly_cli.engine.checkpoints import Checkpoint
from dragonfly_cli.engine.forms import as_form
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.errors import InputError
from dragonfly_cli.output.record import versions_used
from dragonfly_cli.readers.fingerprint import fingerprint
from dragonfly_cli.templates import find_template

_NUMBERED = re.compile(r"#\d+$")


def selecting_settings(sources: list[Path], questions: list[Question], options: BatchOptions) -> dict[str, Any]:
    """What decides which rows there are, and what is written beside them."""
    return {
        "sources": [str(source) for source in sources],
        "questions": [question.text for question in questions],
        **asdict(options.selecting),
        "evidence": options.files.evidence,
        "versions": versions_used(),
    }


def deciding_settings(questions: list[Question], options: BatchOptions, checkpoint: Checkpoint) -> dict[str, Any]:
    """What decides what the rows say."""
    template = find_template(options.form.template) if options.form.template else None
    return {
        "form": asdict(as_form(options.form)) | {"system": template and template.system},  # of a row's own question
        "forms": [[question.kind, list(question.options), question.schema, question.system] for question in questions],
        **asdict(options.opening),
        **asdict(options.looking),
        **asdict(options.answering),
        "model": checkpoint.id,
        "model_sha256": checkpoint.sha256(),
        **({"together": options.working.together} if options.working.together > 1 else {}),
    }


def numbering_settings(every: list[Item]) -> dict[str, Any]:
    """The name of the first file of each ``PATH#N``: with more series in the folder a number may be another one's."""
    first = {item.image: item.input.files[0].name for item in every if item.input.files}
    numbered = {image: name for image, name in first.items() if _NUMBERED.search(image.removesuffix(name))}
    return {SERIES: numbered}


def outline_settings(every: list[Item]) -> dict[str, Any]:
    """Hashes of the files with outlines, which are read anew for every image; of one that is not there none."""
    hashes: dict[str, Any] = {}
    for file in dict.fromkeys(item.looking.roi for item in every if item.looking.roi):
        with suppress(InputError):
            hashes[str(file)] = fingerprint(file)
    return {OUTLINES: hashes}


def calibration_settings(every: list[Item], checkpoint: Checkpoint) -> dict[str, Any]:
    """A hash of the calibrations of what is asked, where there are any: rows before and after one do not mix."""
    asked = {question.text for item in every for question in item.questions}
    fits = [calibrations_of(copy.sha256()) for copy in checkpoint.copies]
    used = [
        (bits, text, asdict(fit))
        for of_copy in fits
        for bits, of_bits in of_copy.items()
        for text, fit in of_bits.items()
        if text in asked
    ]
    return {CALIBRATION: hash_of(used)} if used else {}


def sharing_settings(shard: Shard, every: list[Item]) -> dict[str, Any]:
    """What the shards of one run have in common, and which of them it is."""
    keys = (key for item in every for key in item.keys)
    return {"shard": str(shard), "images": len(every), "images_sha256": digest(keys)}


def hash_of(settings: Any) -> str:
    return hashlib.sha256(json.dumps(settings, default=str, sort_keys=True).encode()).hexdigest()
