"""Where models live on this machine, and what every step of keeping them needs: locks, disk space, hashes.

Layout: ``<models>/<name>/manifest.json``, ``full/`` and ``nf4/``. Work in progress has other names (``*.part``,
``original``) and is continued or thrown away by the next call.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dragonfly_cli.errors import ModelError, OutputError
from dragonfly_cli.output.files import flush_folder, move_whole
from dragonfly_cli.user_folders import data_folder, expanded

VARIABLE = "DRAGONFLY_MODELS"

# All that may lie in a model's folder. ``DRAGONFLY_MODELS`` can be set to any folder, so whatever else is there is
# somebody's own: it is neither listed nor deleted.
_OURS = ("manifest.json", ".manifest.json.part", "full", "full.part", "nf4", ".nf4.*", "original", "import.part")
_MARKS = ("manifest.json", "full.part", "full/config.json", "nf4/config.json", "original/listing.json", "import.part")
# A disk that is filled to the last byte fails elsewhere.
_SPARE_BYTES = 64 * 2**20


def models_folder() -> Path:
    """``DRAGONFLY_MODELS``, else the place where the platform keeps data of programs."""
    if chosen := os.environ.get(VARIABLE):
        return expanded(chosen)
    return data_folder() / "models"


def model_folder(model_id: str) -> Path:
    return models_folder() / model_id.replace("/", "--")


def model_in(folder: Path) -> str:
    """The name of the model that belongs in a folder of the store."""
    return folder.name.replace("--", "/")


def model_folders() -> list[Path]:
    """Every folder with a model, whole or begun, in the order of their names; raises ModelError if none are shown."""
    place = models_folder()
    try:
        return sorted(path for path in place.iterdir() if not path.name.startswith(".") and parts_of_model(path))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ModelError(
            f"cannot read {place}: {error.strerror}", f"set {VARIABLE} to a folder that you may read"
        ) from error


def parts_of_model(folder: Path) -> list[Path]:
    """What belongs to a model in a folder, which may hold other things too or none of a model."""
    marks = [mark for mark in _MARKS if (folder / mark).exists()]
    if not marks or (marks == ["manifest.json"] and _is_other_manifest(folder / "manifest.json")):
        return []
    return [part for pattern in _OURS for part in folder.glob(pattern)]


def _is_other_manifest(file: Path) -> bool:
    """Whether it is another program's, as many have one; a damaged one may be ours."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return not (isinstance(content, dict) and "manifest_version" in content)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a second process from working on the same model; raises ModelError if one is."""
    from filelock import FileLock, Timeout

    with disk_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.parent / f".{folder.name}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise ModelError(
                f"model {model_in(folder)}: another dragonfly is working on it", "wait until that one has finished"
            ) from None
    try:
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()  # of one that has come to nothing; any other is not empty
        lock.release()


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turns an error of the disk into an OutputError that names the file."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot work in {place}: {error.strerror or 'the disk refused'}",
            f"check its permissions and free space, or set {VARIABLE} to another folder",
        ) from error


def check_space(
    place: Path, needed_bytes: int, what: str, hint: str = f"make room, or set {VARIABLE} to a folder on a larger disk"
) -> None:
    """Raises OutputError if the disk of ``place`` has no room for ``needed_bytes`` more."""
    there = place
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed_bytes + _SPARE_BYTES:
        raise OutputError(
            f"not enough disk space for {what}: {size_in_words(needed_bytes)} needed and "
            f"{size_in_words(_SPARE_BYTES)} to spare, {size_in_words(free)} free in {there}",
            hint,
        )


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Replaces a small file of a locked folder in one step, which is then durable; raises OSError."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8", newline="")
    move_whole(part, path)
    flush_folder(path.parent)


def size_in_words(size_bytes: int) -> str:
    """``16.2 GB``: powers of ten, as disks and hubs count."""
    size = float(size_bytes)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
