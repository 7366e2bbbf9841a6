"""``model convert`` and ``model pull``: from a folder or a hub to a stored model.

The steps are the same: originals hashed, room on the disk checked, converted, listed in the manifest. Each step of an
interrupted call is found and continued by the next one.
"""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from string import hexdigits

from dragonfly_cli.errors import ModelError, UsageError
from dragonfly_cli.option_values import Keep
from dragonfly_cli.store.catalog import PUBLISHED, id_for_folder, is_name, repository_of, stored_id
from dragonfly_cli.store.convert import CheckpointFiles, choose_weights, convert, folder_source, is_companion
from dragonfly_cli.store.copies import are_kept, keep_copies, nf4_bytes, refuse_impossible, tell_missing
from dragonfly_cli.store.folder import check_space, disk_errors, locked, model_folder, size_in_words
from dragonfly_cli.store.hub import Listing, bytes_left, fetch, file_bytes_left, is_offline, look_up, recall, remember
from dragonfly_cli.store.hub_errors import check_settings
from dragonfly_cli.store.manifest import FULL, Manifest, StoredFile, read_manifest, stored_file, write_manifest

ORIGINAL = "original"
UNKNOWN_LICENCE = "not known here; see where the checkpoint came from"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Provenance:
    """Where a checkpoint came from, and under which name it is stored."""

    id: str
    repository: str | None
    revision: str | None
    licence: str


@dataclass(frozen=True)
class PullSettings:
    """The options of ``model pull``."""

    keep: Keep = Keep.both
    revision: str | None = None
    keep_original: bool = False
    dry_run: bool = False


def pull_model(name: str, settings: PullSettings, say: Say) -> Manifest | None:
    """Downloads and stores a model, saying its size and licence first; goes on where an earlier call has stopped.

    Returns nothing from a dry run. Raises ModelError if the hub refuses, or what it sends is no Dragonfly checkpoint.
    """
    model_id = stored_id(name)
    repository = repository_of(model_id)
    refuse_impossible(model_id, settings.keep)
    check_settings()
    place = model_folder(model_id)
    if not settings.dry_run and (stored := _whole(place, settings)):  # without the lock, which has to be written
        _refuse_other_revision(stored, repository, settings.revision)
        say(f"model {model_id} is on this machine already")
        tell_missing(stored, settings.keep, say)
        return stored
    with nullcontext() if settings.dry_run else locked(place), disk_errors(place):
        manifest = read_manifest(place)
        if manifest:
            _refuse_other_revision(manifest, repository, settings.revision)
            say(f"model {model_id} is on this machine already")
        else:
            listing = _listing(place, repository, settings)
            _announce(model_id, listing, place, settings.keep, say)
        if settings.dry_run:
            return None
        if manifest is None:
            check_space(place, _needed_bytes(listing, place, settings.keep), f"model {model_id}")
            manifest = _download_and_convert(model_id, listing, place, say)
        manifest = keep_copies(place, manifest, settings.keep, say)
        if not settings.keep_original and (place / ORIGINAL).exists():
            shutil.rmtree(place / ORIGINAL)
    return manifest


def _whole(place: Path, settings: PullSettings) -> Manifest | None:
    """The model, if nothing has to be done to it."""
    with disk_errors(place):
        manifest = read_manifest(place)
        is_done = manifest and are_kept(place, manifest, settings.keep)
        return manifest if is_done and (settings.keep_original or not (place / ORIGINAL).exists()) else None


def convert_folder(folder: Path, name: str | None, keep: Keep, say: Say) -> Manifest:
    """Stores the checkpoint that a folder holds; the folder itself is only read.

    Raises ModelError if it is no Dragonfly checkpoint, or its name belongs to another one.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: there is no such folder", "give the folder of a downloaded checkpoint")
    origin = _folder_origin(folder, name)
    refuse_impossible(origin.id, keep)
    place = model_folder(origin.id)
    if folder.resolve().is_relative_to(place.resolve()):
        raise UsageError(
            f"{folder}: model {origin.id} would be stored in this folder itself, and files of it be lost",
            "choose another name for it with --name",
        )
    with locked(place), disk_errors(place):
        source = folder_source(folder)
        size = weight_bytes(source)
        manifest = read_manifest(place)
        if manifest is None:
            check_space(place, size + nf4_bytes(size, keep), f"model {origin.id}")
        say(f"checking {size_in_words(size)} of weights in {folder}")
        original = hash_weights(source)
        if manifest is None:
            manifest = store_full(place, origin, source, original, say)
        elif manifest.original != tuple(original):
            raise ModelError(
                f"model {origin.id}: another one of this name is on this machine already",
                f"choose another --name, or remove it with: dragonfly model rm {origin.id}",
            )
        return keep_copies(place, manifest, keep, say)


def store_full(
    place: Path, origin: Provenance, source: CheckpointFiles, original: list[StoredFile], say: Say
) -> Manifest:
    """Makes the ``full`` copy and with it the model; to be called under the model's lock."""
    try:
        converted = convert(source, original, place / FULL, say)
    except ModelError as error:
        raise ModelError(f"model {origin.id}: {error.message}", error.hint) from error
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


def hash_weights(source: CheckpointFiles) -> list[StoredFile]:
    return [stored_file(path, name) for name, path in sorted(source.weights.items())]


def weight_bytes(source: CheckpointFiles) -> int:
    return sum(path.stat().st_size for path in source.weights.values())


def _listing(place: Path, repository: str, settings: PullSettings) -> Listing:
    """What the hub has; without a network, what an earlier call has noted of a download that is complete."""
    noted = recall(place / ORIGINAL)
    if (
        noted
        and _is_revision(noted.revision, settings.revision)
        and is_offline()
        and bytes_left(noted, place / ORIGINAL) == 0
    ):
        return noted
    listing = look_up(repository, settings.revision)
    missing = {"config.json", "tokenizer.json"} - {file.name for file in listing.files}
    if missing or not listing.weights:
        raise ModelError(
            f"{repository}: there is no checkpoint in it: no {min(missing, default='weights')}",
            "give the repository of a Dragonfly checkpoint",
        )
    return listing


def _announce(model_id: str, listing: Listing, place: Path, keep: Keep, say: Say) -> None:
    left = size_in_words(bytes_left(listing, place / ORIGINAL))
    total = sum(file.size for file in listing.files)
    kept = (0 if keep is Keep.nf4 else total) + nf4_bytes(total, keep)
    say(f"model {model_id} is {listing.repository}, revision {listing.revision}")
    say(f"licence: {_licence(model_id, listing)}")
    say(f"size: {size_in_words(total)}, of which {left} are still to be downloaded; {size_in_words(kept)} will be kept")


def _licence(model_id: str, listing: Listing) -> str:
    return PUBLISHED[model_id].licence if model_id in PUBLISHED else listing.licence or UNKNOWN_LICENCE


def _needed_bytes(listing: Listing, place: Path, keep: Keep) -> int:
    """Room for what is left to download and to convert."""
    full = sum(file.size for file in listing.weights)
    done = sum(path.stat().st_size for path in place.glob(f"{FULL}.part/*.safetensors"))
    return bytes_left(listing, place / ORIGINAL) + max(0, full - done) + nf4_bytes(full, keep)


def _download_and_convert(model_id: str, listing: Listing, place: Path, say: Say) -> Manifest:
    remember(listing, place / ORIGINAL)
    paths: dict[str, Path] = {}
    hashed: dict[str, StoredFile] = {}
    for file in sorted(listing.files, key=lambda file: file.size):  # a refusal should not come after hours
        left = file_bytes_left(listing, file, place / ORIGINAL)
        say(f"getting {file.name}, {size_in_words(left)}" if left else f"checking {file.name}")
        paths[file.name], hashed[file.name] = fetch(listing, file, place / ORIGINAL)
    weights = choose_weights(paths, lambda name: paths[name].read_bytes())
    source = CheckpointFiles(
        {name: paths[name] for name in weights},
        {name: path for name, path in paths.items() if is_companion(name, hashed[name].size)},
    )
    origin = Provenance(model_id, listing.repository, listing.revision, _licence(model_id, listing))
    return store_full(place, origin, source, [hashed[name] for name in sorted(weights)], say)


def _is_revision(commit: str | None, wanted: str | None) -> bool:
    return not wanted or (commit or "").startswith(wanted.lower())


def _refuse_other_revision(manifest: Manifest, repository: str, revision: str | None) -> None:
    """The hub is asked what a branch or tag stands for."""
    if _is_revision(manifest.revision, revision):
        return
    is_commit = revision and not revision.strip(hexdigits)
    if is_commit or look_up(repository, revision).revision != manifest.revision:
        raise ModelError(
            f"model {manifest.id}: revision {manifest.revision} of it is on this machine",
            f"to have revision {revision}, remove it first: dragonfly model rm {manifest.id}",
        )


def _folder_origin(folder: Path, name: str | None) -> Provenance:
    own = folder.resolve().name
    model_id = stored_id(name) if name else id_for_folder(own) or own
    if not is_name(model_id):
        raise UsageError(f"{folder}: its name cannot be the name of a model", "choose one with --name")
    licence = PUBLISHED[model_id].licence if model_id in PUBLISHED else UNKNOWN_LICENCE
    return Provenance(model_id, None, None, licence)  # a folder does not prove where it came from
