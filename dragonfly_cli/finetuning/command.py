"""``finetune``: what can be checked without the network is checked first; then it is trained and written."""

import hashlib
import json
import logging
import shlex
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dragonfly_cli.datasets.data_file import read_data
from dragonfly_cli.engine.checkpoints import Checkpoint, find_checkpoint
from dragonfly_cli.errors import ModelError, UsageError
from dragonfly_cli.finetuning.folder import RunFolder
from dragonfly_cli.finetuning.hashes import data_hashes
from dragonfly_cli.finetuning.options import RecipeName, TuneOptions
from dragonfly_cli.finetuning.processes import process_count, say_once
from dragonfly_cli.finetuning.splits import split_rows
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.output.notices import NOTICE
from dragonfly_cli.output.record import versions_used

SCHEMA_VERSION = 1

_INSTALL = 'run: pip install "dragonfly-cli[finetune]"'
_PACKAGES_THAT_TRAIN = ("accelerate", "peft", "numpy")


def finetune(data_file: Path, output: Path, tuning: TuneOptions, opening: OpenOptions) -> None:
    """Trains on the rows of ``data_file`` and writes a checkpoint folder; goes on with a run that was interrupted.

    Raises DragonflyError, and then nothing has been written but what such a run needs to go on.
    """
    tuning.check()
    _check_packages(tuning.recipe)
    folder = RunFolder(output)
    folder.refuse_foreign()
    checkpoint = find_checkpoint(tuning.model)
    data = read_data(data_file)
    folder.refuse_within({row.picture.path for row in data.rows})
    hashes = data_hashes(data)
    data.refuse_too_many_bad(tuning.max_errors)
    split = split_rows(data_file, data.rows, tuning.hold_out, tuning.seed)
    record = _record(tuning, opening, checkpoint, hashes)
    earlier = folder.earlier(record["settings"])
    if earlier and earlier["status"] == "finished":
        folder.clear()  # a kill may have left a part of it
        say_once(f"note: {output} was finished by an earlier run with the same settings; nothing was changed")
        return
    say_once(f"note: {NOTICE}")
    if earlier:
        say_once(f"note: continuing {output}")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # remarks on a CPU, which nobody can do anything about
    try:
        with folder.at_work(record):
            from dragonfly_cli.finetuning.training import train_rows

            train_rows(folder, record, checkpoint, data, split, tuning, opening)
    except (KeyboardInterrupt, SystemExit):  # the latter where it is terminated
        say_once("note: interrupted; the same command goes on")
        raise
    say_once(f'note: written to {output}; ask it with: dragonfly ask IMAGE "..." --model {_as_model(output)}')


def _as_model(output: Path) -> str:
    """What to type after --model: a name like ``demo`` would mean another one."""
    means_it = find_checkpoint(str(output)).folder == output
    return shlex.quote(str(output) if means_it else f"./{output}")


def _check_packages(recipe: RecipeName) -> None:
    needed = ["accelerate", *(["peft"] if recipe.has_adapters else [])]
    for package in needed:
        if find_spec(package) is None:
            raise UsageError(f"finetune needs the package {package}, which is not installed", _INSTALL)
    if recipe is RecipeName.qlora and find_spec("bitsandbytes") is None:
        raise ModelError("--recipe qlora needs bitsandbytes, which is not installed", "run: pip install bitsandbytes")


def _record(
    tuning: TuneOptions, opening: OpenOptions, checkpoint: Checkpoint, hashes: dict[str, Any]
) -> dict[str, Any]:
    settings = {**asdict(tuning), "opening": _without_uid(opening), "data": hashes}
    settings["base"] = {"id": checkpoint.id, "sha256": checkpoint.sha256(however_large=True)}
    settings["processes"] = process_count()  # how many share the pictures of a step
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "running",
        "settings": json.loads(json.dumps(settings, default=str)),  # as it will be read back
        "versions": versions_used(*_PACKAGES_THAT_TRAIN),
        "notice": NOTICE,
    }


def _without_uid(opening: OpenOptions) -> dict[str, Any]:
    """The options, with a hash in place of a series UID, by which a patient is found."""
    series = opening.series
    is_uid = series is not None and "." in series
    return asdict(opening) | ({"series": hashlib.sha256(str(series).encode()).hexdigest()} if is_uid else {})
