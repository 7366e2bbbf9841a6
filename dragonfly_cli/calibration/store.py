"""Where calibrations are kept: one JSON file per model, named by the hash of its weights, below the program's data.

A calibration belongs to the weights and the bits that answered; other weights have none. ``DRAGONFLY_CALIBRATIONS``
names another folder.
"""

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dragonfly_cli.calibration.fitting import Fit
from dragonfly_cli.errors import InputError, OutputError
from dragonfly_cli.option_values import Aggregate
from dragonfly_cli.output.files import write_text
from dragonfly_cli.output.json_text import json_text
from dragonfly_cli.user_folders import data_folder, expanded

VARIABLE = "DRAGONFLY_CALIBRATIONS"
SCHEMA_VERSION = 1


def calibrations_folder() -> Path:
    if chosen := os.environ.get(VARIABLE):
        return expanded(chosen)
    return data_folder() / "calibrations"


def read_calibration(sha256: str | None, quantization: str) -> dict[str, Fit]:
    """The fit of every calibrated question of a model; empty if there is none, or if the model's hash is unknown.

    Raises InputError for a file that is damaged: an answer without its calibration would not be noticed.
    """
    if sha256 is None:
        return {}
    file = _file(sha256, quantization)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {question: _as_fit(**numbers) for question, numbers in content["questions"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise InputError(f"cannot read the calibration {file}", "delete it, and calibrate again") from None


def calibrations_of(sha256: str | None) -> dict[str, dict[str, Fit]]:
    """The fits of a model by the bits that answered; raises as ``read_calibration``."""
    files = sorted(calibrations_folder().glob(f"{sha256}-*.json")) if sha256 else []
    bits = (file.stem.removeprefix(f"{sha256}-") for file in files)
    return {each: read_calibration(sha256, each) for each in bits}


def store_calibration(sha256: str, quantization: str, fits: dict[str, Fit]) -> Path:
    """Adds the fits to those of the model, in place of earlier ones of the same questions; returns the file."""
    together = read_calibration(sha256, quantization) | fits
    content = {
        "schema_version": SCHEMA_VERSION,
        "model_sha256": sha256,
        "quantization": quantization,
        "questions": {question: asdict(fit) for question, fit in together.items()},
    }
    file = _file(sha256, quantization)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write {file}: {error.strerror}", f"set {VARIABLE} to a folder that you may write to"
        ) from error
    write_text(file, json_text(content))
    return file


def _as_fit(aggregate: str | None = None, **numbers: Any) -> Fit:
    """Raises ValueError, TypeError or OverflowError for what is no fit."""
    if not all(math.isfinite(number) for name, number in numbers.items() if name != "method"):
        raise ValueError("a number is not finite")
    return Fit(**numbers, aggregate=None if aggregate is None else Aggregate(aggregate))


def _file(sha256: str, quantization: str) -> Path:
    return calibrations_folder() / f"{sha256}-{quantization}.json"
