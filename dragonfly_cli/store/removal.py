"""``model rm``: deletes a model and what interrupted calls have left of it, nothing else; its manifest goes first."""

import shutil
from pathlib import Path

from dragonfly_cli.errors import ModelError
from dragonfly_cli.store.catalog import stored_id
from dragonfly_cli.store.folder import disk_errors, locked, model_folder, parts_of_model


def remove_model(name: str) -> int:
    """Deletes the model and returns the bytes that were freed; raises ModelError if there is nothing of it."""
    place = model_folder(stored_id(name))
    with disk_errors(place):
        if not parts_of_model(place):
            raise ModelError(f"model {name}: it is not on this machine", "dragonfly model list shows those that are")
    with locked(place), disk_errors(place):
        freed = sum(map(_remove, parts_of_model(place)))  # without its manifest it does not exist, even if interrupted
        if place.is_symlink() and not any(place.iterdir()):  # to where there was more room
            place.resolve().rmdir()
            place.unlink()
    return freed


def _remove(part: Path) -> int:
    files = [path for path in (part, *part.rglob("*")) if path.is_file() and not path.is_symlink()]
    freed = sum(file.stat().st_size for file in files)
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part)
    else:
        part.unlink()
    return freed
