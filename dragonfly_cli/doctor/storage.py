"""Disk space, the cache, and which models are on this machine."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dragonfly_cli.doctor.finding import DoctorSettings, Finding, ok, problem, warning
from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.errors import ModelError
from dragonfly_cli.store.catalog import DEMO, PUBLISHED
from dragonfly_cli.store.folder import VARIABLE, models_folder
from dragonfly_cli.store.report import stored_models

# What a pull holds at its end: the published files, the same as safetensors, and the copy in 4 bit.
_ROOM_FOR_A_PULL_BYTES = 40e9
_ROOM_TO_WORK_BYTES = 100e6


def disk(settings: DoctorSettings) -> Iterator[Finding]:
    """Free space where models are kept."""
    folder = _existing(models_folder())
    if trouble := _trouble_with(folder):
        yield warning("disk", f"{trouble}, so no model can be stored", f"set {VARIABLE} to a folder that you may use")
        return
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1e9:.0f} GB free in {folder}"
    if free < _ROOM_FOR_A_PULL_BYTES:
        yield warning(
            "disk", detail, f"pulling a published model takes 40 GB: make room, or set {VARIABLE} to another folder"
        )
    else:
        yield ok("disk", detail)


def cache(settings: DoctorSettings) -> Iterator[Finding]:
    """Temporary files are written beside nothing of the user's; libraries keep compiled kernels in the cache."""
    folder = _existing(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"))
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError as error:  # which names those that it tried
        yield warning("temporary files", str(error.strerror), "set TMPDIR to a folder that you may write to")
        places = {"cache": folder}
    else:
        places = {"cache": folder, "temporary files": temporary}
    for name, place in places.items():
        if trouble := _trouble_with(place):
            yield warning(name, trouble, "make it writable, or set XDG_CACHE_HOME and TMPDIR to other folders")
        elif shutil.disk_usage(place).free < _ROOM_TO_WORK_BYTES:
            yield warning(name, f"the disk of {place} is full", "make room, or set XDG_CACHE_HOME and TMPDIR")
        else:
            yield ok(name, f"{place} is writable")


def _trouble_with(place: Path) -> str | None:
    if not place.is_dir():
        return f"{place} is not a folder"
    return None if os.access(place, os.W_OK | os.X_OK) else f"{place} is not writable"


def models(settings: DoctorSettings) -> Iterator[Finding]:
    """Which of the published models are here, which cannot be read, and what ``--model`` comes to."""
    try:
        damaged = [known.message for known in stored_models().values() if isinstance(known, ModelError)]
    except ModelError as error:
        yield problem("models", error.message, error.hint)
        return
    if damaged:
        yield warning("stored models", "; ".join(damaged), "remove with dragonfly model rm, and get again")
    stored = [name for name in PUBLISHED if _is_here(name)]
    try:
        chosen = find_checkpoint(settings.model)
    except ModelError as error:
        yield problem("models", error.message, error.hint)
        return
    detail = f"--model {settings.model} is {chosen.id}; published models here: {', '.join(stored) or 'none'}"
    if chosen.id == DEMO:
        yield warning(
            "models",
            detail,
            "the built-in demonstration answers; for Dragonfly-Med run: dragonfly model pull med-v2",
        )
    else:
        yield ok("models", detail)


def _is_here(name: str) -> bool:
    try:
        find_checkpoint(name)
    except ModelError:
        return False
    return True


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next((place for place in (folder, *folder.parents) if place.exists()), Path.cwd())
