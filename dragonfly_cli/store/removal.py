"""``model rm``: deletes a model and what interrupted calls have left of it; the manifest goes first."""

import shutil

from dragonfly_cli.errors import ModelError
from dragonfly_cli.store.catalog import stored_id
from dragonfly_cli.store.folder import disk_errors, locked, model_folder
from dragonfly_cli.store.manifest import MANIFEST


def remove_model(name: str) -> int:
    """Deletes the model and returns the bytes that were freed; raises ModelError if there is nothing of it."""
    place = model_folder(stored_id(name))
    with disk_errors(place):
        if not place.is_dir():
            raise ModelError(f"model {name}: it is not on this machine", "dragonfly model list shows those that are")
    with locked(place), disk_errors(place):
        freed = sum(path.stat().st_size for path in place.rglob("*") if path.is_file() and not path.is_symlink())
        if not (place / MANIFEST).is_dir():
            (place / MANIFEST).unlink(missing_ok=True)  # from here on it does not exist, even if this is interrupted
        shutil.rmtree(place.resolve())
        if place.is_symlink():  # to where there was more room
            place.unlink()
    return freed
