"""``model convert`` and ``model pull``: from a folder or a hub to a stored model.

The steps are the same: originals hashed, room on the disk checked, converted, listed in the manifest. Each step of an
interrupted call is found and continued by the next one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dragonfly_cli.errors import ModelError, UsageError
from dragonfly_cli.store.catalog import PUBLISHED, id_for_folder, is_name, stored_id
from dragonfly_cli.store.convert import Source, convert, folder_source
from dragonfly_cli.store.folder import check_space, disk_errors, locked, model_folder, readable
from dragonfly_cli.store.manifest import FULL, Manifest, StoredFile, read_manifest, stored_file, write_manifest

UNKNOWN_LICENCE = "not known here; see where the checkpoint came from"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Provenance:
    """Where a checkpoint came from, and under which name it is stored."""

    id: str
    repository: str | None
    revision: str | None
    licence: str


def convert_folder(folder: Path, name: str | None, say: Say) -> Manifest:
    """Stores the checkpoint that a folder holds; the folder itself is only read.

    Raises ModelError if it is no Dragonfly checkpoint, or its name is taken.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: there is no such folder", "give the folder of a downloaded checkpoint")
    origin = _folder_origin(folder, name)
    place = model_folder(origin.id)
    with locked(place), disk_errors(place):
        if read_manifest(place):
            raise ModelError(
                f"model {origin.id}: it is on this machine already",
                f"choose another --name, or remove it with: dragonfly model rm {origin.id}",
            )
        source = folder_source(folder)
        check_space(place, weight_bytes(source), f"model {origin.id}")
        say(f"checking {readable(weight_bytes(source))} of weights in {folder}")
        return store_full(place, origin, source, hash_weights(source), say)


def store_full(place: Path, origin: Provenance, source: Source, original: list[StoredFile], say: Say) -> Manifest:
    """Makes the ``full`` copy and with it the model; to be called under the model's lock."""
    converted = convert(source, original, place / FULL, say)
    manifest = Manifest(
        origin.id,
        origin.repository,
        origin.revision,
        origin.licence,
        converted.architecture,
        converted.parameters,
        files=tuple(converted.files),
        original=tuple(original),
    )
    write_manifest(place, manifest)
    return manifest


def hash_weights(source: Source) -> list[StoredFile]:
    return [stored_file(path, name) for name, path in sorted(source.weights.items())]


def weight_bytes(source: Source) -> int:
    return sum(path.stat().st_size for path in source.weights.values())


def _folder_origin(folder: Path, name: str | None) -> Provenance:
    own = folder.resolve().name
    model_id = stored_id(name) if name else id_for_folder(own) or own
    if not is_name(model_id):
        raise UsageError(f"{folder}: its name cannot be the name of a model", "choose one with --name")
    published = PUBLISHED.get(model_id)
    if published:
        return Provenance(model_id, published.repository, None, published.licence)
    return Provenance(model_id, None, None, UNKNOWN_LICENCE)
