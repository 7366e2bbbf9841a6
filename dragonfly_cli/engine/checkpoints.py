"""Which checkpoint ``--model`` means: a name to a folder on this machine. Nothing is downloaded here.

A name in the store takes precedence over a folder of the same name; ``./name`` is always the folder.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dragonfly_cli.errors import ModelError
from dragonfly_cli.store.built_in import demo_folder
from dragonfly_cli.store.catalog import DEMO, PUBLISHED, is_name, stored_id
from dragonfly_cli.store.folder import model_folder, sha256_of
from dragonfly_cli.store.manifest import Manifest, read_manifest
from dragonfly_cli.user_folders import expanded

if TYPE_CHECKING:  # ``dragonfly_med`` is imported by those that need it
    from dragonfly_med.views import Architecture

# The models that ``auto`` takes, in this order, if they have been pulled.
_PREFERRED = ("med-v2", "med-v1")

# The hash of a published checkpoint (16 GB) would take longer than the answer.
_HASHED_UP_TO_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Checkpoint:
    """A model folder and the name it goes by in records.

    One of the store knows the hash of its weights, and the copy of itself that is quantized already.
    """

    id: str
    folder: Path
    known_sha256: str | None = None
    in_4_bit: "Checkpoint | None" = None

    @property
    def is_demo(self) -> bool:
        return self.id == DEMO

    @property
    def copies(self) -> list["Checkpoint"]:
        """Itself, and the copy in 4 bits that may answer in its place."""
        return [self, self.in_4_bit] if self.in_4_bit else [self]

    def sha256(self, however_large: bool = False) -> str | None:
        """The hash of the weights; ``None`` when they are unknown and too large to hash at a start, unless wanted.

        Of one file it is the file's own; of several, that of the lines that ``sha256sum`` prints for them.
        Raises ModelError when they cannot be read.
        """
        if self.known_sha256:
            return self.known_sha256
        files = sorted(path for path in self.folder.glob("*") if _holds_weights(path.name))
        try:
            if not files:
                return None
            if not however_large and sum(file.stat().st_size for file in files) > _HASHED_UP_TO_BYTES:
                return None
            return _hash_of_all((file.name, sha256_of(file)) for file in files)
        except OSError as error:
            raise ModelError(
                f"model {self.id}: the weights cannot be read: {error.strerror}", "check the permissions of its files"
            ) from error


def find_checkpoint(model: str) -> Checkpoint:
    """The checkpoint that ``--model`` names: ``auto``, ``demo``, a model of the store, or a folder.

    Raises ModelError when it is not on this machine.
    """
    if model == DEMO:
        return Checkpoint(DEMO, demo_folder())
    if model == "auto":
        stored = (_find_stored(name) for name in _PREFERRED)
        return next((checkpoint for checkpoint in stored if checkpoint), Checkpoint(DEMO, demo_folder()))
    if checkpoint := _find_stored(model):
        return checkpoint
    folder = expanded(model)
    try:
        if folder.is_dir():
            return _in_folder(model, folder)
    except PermissionError as error:
        raise ModelError(f"model {model}: {error.strerror}", "give a folder that you may read") from error
    if model in PUBLISHED or _stored_id(model) in PUBLISHED:
        raise ModelError(
            f"model {model}: it is not on this machine",
            f"get it with: dragonfly model pull {model} (--model demo is built in)",
        )
    raise ModelError(
        f"model {model}: there is no such model, and no such folder",
        f"give a checkpoint folder, a name that dragonfly model list shows, or one of: auto, {DEMO}, "
        f"{', '.join(PUBLISHED)}",
    )


def canvas_of(checkpoint: Checkpoint) -> tuple[int, int]:
    """(width, height) in pixels of the model's high view of a landscape picture; raises ModelError."""
    from dragonfly_med.views import high_canvas_wh

    return high_canvas_wh(*crops_of(checkpoint))


def crops_of(checkpoint: Checkpoint) -> "tuple[int, Architecture]":
    """The side in pixels of its crops, and its architecture, from its configuration alone; raises ModelError."""
    from dragonfly_med import encoders
    from dragonfly_med.errors import CheckpointError

    try:
        return encoders.crops_of(checkpoint.folder)
    except CheckpointError as error:
        raise ModelError(f"model {checkpoint.id}: {error}", "give the folder of a Dragonfly checkpoint") from error


def _stored_id(model: str) -> str | None:
    return stored_id(model) if is_name(model) else None


def _in_folder(model: str, folder: Path) -> Checkpoint:
    """A checkpoint, or a model as the store keeps it, whose folder ``model pull`` prints; the built-in one is that."""
    if folder.samefile(demo_folder()):
        return Checkpoint(DEMO, folder)
    if (folder / "config.json").is_file():
        return Checkpoint(model, folder)
    if stored := _stored_in(folder, model):
        return stored
    raise ModelError(f"model {model}: there is no config.json in it", "give the folder of a Dragonfly checkpoint")


def _find_stored(model: str) -> Checkpoint | None:
    model_id = _stored_id(model)
    return _stored_in(model_folder(model_id), model_id) if model_id else None


def _stored_in(place: Path, name: str) -> Checkpoint | None:
    manifest = read_manifest(place)
    if manifest is None:
        return None
    first, *rest = (_stored_copy(place, manifest, copy, name) for copy in manifest.copies)
    return replace(first, in_4_bit=rest[0]) if rest else first


def _stored_copy(place: Path, manifest: Manifest, copy: str, name: str) -> Checkpoint:
    weights = sorted(
        (file.path.removeprefix(f"{copy}/"), file.sha256)
        for file in manifest.files_of(copy)
        if _holds_weights(file.path.removeprefix(f"{copy}/"))
    )
    return Checkpoint(name, place / copy, _hash_of_all(weights))


def _holds_weights(name: str) -> bool:
    return name.endswith(".safetensors") or (name.startswith("pytorch_model") and name.endswith(".bin"))


def _hash_of_all(hashes: Iterable[tuple[str, str]]) -> str:
    listed = list(hashes)
    if len(listed) == 1:
        return listed[0][1]
    return hashlib.sha256("".join(f"{sha256}  {name}\n" for name, sha256 in listed).encode()).hexdigest()
