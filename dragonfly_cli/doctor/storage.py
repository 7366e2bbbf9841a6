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
from dragonfly_cli.store.folder import models_folder
from dragonfly_cli.store.report import stored_models

# What a pull holds at its end: the published files, the same as safetensors, and the copy in 4 bit.
_ROOM_FOR_A_PULL_BYTES = 40e9


def disk(settings: DoctorSettings) -> Iterator[Finding]:
    """Free space where models are kept."""
    folder = _existing(models_folder())
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield problem("disk", f"{folder}: {error.strerror}", "set DRAGONFLY_MODELS to a folder that can be read")
        return
    detail = f"{free / 1e9:.0f} GB free in {folder}"
    if free < _ROOM_FOR_A_PULL_BYTES:
        yield warning(
            "disk", detail, "pulling a published model takes 40 GB: make room, or set DRAGONFLY_MODELS elsewhere"
        )
    else:
        yield ok("disk", detail)


def cache(settings: DoctorSettings) -> Iterator[Finding]:
    """Temporary files are written beside nothing of the user's; libraries keep compiled kernels in the cache."""
    folder = _existing(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"))
    for name, place in (("cache", folder), ("temporary files", Path(tempfile.gettempdir()))):
        if os.access(place, os.W_OK):
            yield ok(name, f"{place} is writable")
        else:
            yield warning(name, f"{place} is not writable", "make it writable, or set XDG_CACHE_HOME and TMPDIR")


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
