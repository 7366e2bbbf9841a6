"""One answer as JSON, with its whole provenance, so that it can be repeated.

The keys are a contract with users' scripts: fields may be added, and ``SCHEMA_VERSION`` changes if one is renamed.
Absent knowledge is null, never a guess. No patient data: an input is named by its path and hashes alone.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragonfly_cli import __version__
from dragonfly_cli.fields import field_mpp
from dragonfly_cli.geometry import Box
from dragonfly_cli.output.control_characters import escaped
from dragonfly_cli.output.json_text import json_text
from dragonfly_cli.output.notices import DEMO_CANNOT_SYNTHESISE, DEMO_WARNING, NOTICE
from dragonfly_cli.readers.fingerprint import fingerprint, fingerprint_of_many
from dragonfly_cli.readers.source import Source, files_of
from dragonfly_cli.store.catalog import DEMO

if TYPE_CHECKING:  # most of these import torch, and `info` needs none
    from dragonfly_cli.engine.aggregation import Answer
    from dragonfly_cli.engine.answering import FieldAnswer
    from dragonfly_cli.engine.model import ModelIdentity
    from dragonfly_cli.engine.questions import Question

SCHEMA_VERSION = 1

# Whose version may change a pixel or an answer, where they are installed.
_PACKAGES = ("torch", "transformers", "pillow", "pydicom", "imagecodecs", "openslide-python", "openslide-bin")


def source_record(source: Source) -> dict[str, Any]:
    """What an input is, but not whose it is."""
    return _shape(source) | (_slide_hashes(source) if source.kind == "slide" else _hashes(files_of(source)))


def _slide_hashes(source: Source) -> dict[str, str | None]:
    """Of the named file, which may be one of many: a ``quickhash`` of the whole slide stands beside its ``sha256``."""
    files = files_of(source)
    of_whole = source.details().get("quickhash") or (_hashes(files)["quickhash"] if len(files) > 1 else None)
    hashes = fingerprint(source.path)
    return hashes | {"quickhash": of_whole or hashes["quickhash"]}


def _hashes(files: list[Path]) -> dict[str, str | None]:
    return fingerprint(files[0]) if len(files) == 1 else fingerprint_of_many(files)


def source_info(source: Source) -> dict[str, Any]:
    """What ``dragonfly info`` shows: an allow-list of technical facts."""
    return {"image": str(source.path), **_shape(source), **source.details(), "warnings": source.warnings}


def storable_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Options as a record holds them."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}


def answer_record(
    source: Source,
    source_facts: dict[str, Any],
    answered: "Answer",
    model: "ModelIdentity",
    settings: dict[str, Any],
) -> dict[str, Any]:
    """The record of one answer; ``source_facts`` come from ``source_record``, once per image.

    ``settings`` are the options of the command; what the question itself asks for is put beside them, and together they
    repeat the answer.
    """
    question = answered.question
    demo = [DEMO_WARNING] if model.id == DEMO else []
    untaught = [DEMO_CANNOT_SYNTHESISE] if demo and answered.synthesis and answered.synthesis.prompt else []
    return {
        "schema_version": SCHEMA_VERSION,
        "image": str(source.path),
        "source": source_facts,
        "question": question.text,
        "answer": answered.text,
        "abstained": answered.abstained,
        "probabilities": answered.probabilities,
        "option_mass": answered.option_mass,
        "calibrated": answered.calibrated,
        "aggregate": answered.aggregate,
        "synthesis": None if answered.synthesis is None else asdict(answered.synthesis),
        "fields": [_field_record(source, each) for each in answered.fields],
        "control": None if answered.control is None else asdict(answered.control),
        "model": asdict(model),
        "prompt": answered.prompt,
        "seed": settings["seed"],
        "settings": settings | _series_setting(source, settings) | _question_settings(question),
        "versions": versions_used(*["bitsandbytes"] * (model.quantization != "none")),
        "timing": {name: round(seconds, 4) for name, seconds in asdict(answered.timing).items()},
        "warnings": [*demo, *source.warnings, *answered.warnings, *untaught],
        "notice": NOTICE,
    }


def _series_setting(source: Source, settings: dict[str, Any]) -> dict[str, Any]:
    """The number of the series that was looked at, in place of a UID that may stand in the options."""
    return {"series": str(source.details()["series_shown"])} if settings.get("series") else {}


def _question_settings(question: "Question") -> dict[str, Any]:
    schema = None if question.schema is None else json.loads(question.schema)
    asked = {"type": question.kind, "options": question.options, "schema": schema}
    return asked | {"system": question.system, "earlier": question.earlier}


def as_json(records: list[dict[str, Any]]) -> str:
    """One object for one answer, an array for several."""
    content = records[0] if len(records) == 1 else records
    return json_text(content)


def as_json_lines(records: Iterable[dict[str, Any]]) -> str:
    return "".join(escaped(json.dumps(record, ensure_ascii=False)) + "\n" for record in records)


def _shape(source: Source) -> dict[str, Any]:
    return {
        "kind": source.kind,
        "format": source.format,
        "width": source.size_wh[0],
        "height": source.size_wh[1],
        "frames": source.frames,
        "mpp": None if source.mpp is None else list(source.mpp),
        "mpp_source": source.mpp_source,
    }


def _field_record(source: Source, answered: "FieldAnswer") -> dict[str, Any]:
    field = answered.field
    return {
        "id": field.id,
        "role": field.role,
        "second_look_of": field.second_look_of,
        "frame": field.frame,
        "box": field.box.as_dict(),
        "box_um": _in_microns(source, field.box),
        "mpp": field_mpp(source, field, answered.plan.canvas_sizes[-1]),
        "answer": answered.text,
        "probabilities": answered.probabilities,
        "selected": [box.as_dict() for box in answered.selected],
        "selected_um": None if source.mpp is None else [_in_microns(source, box) for box in answered.selected],
    }


def _in_microns(source: Source, box: Box) -> dict[str, float] | None:
    if source.mpp is None:
        return None
    x, y = source.mpp
    return {
        "x": round(box.x * x, 3),
        "y": round(box.y * y, 3),
        "width": round(box.width * x, 3),
        "height": round(box.height * y, 3),
    }


@cache
def versions_used(*more: str) -> dict[str, str]:
    """Of the program, of the packages that every answer depends on, and of ``more``.

    Looked up once: reading a package's metadata takes as long as a small network's answer."""
    found = {"dragonfly-cli": __version__}
    for name in (*_PACKAGES, *more):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
