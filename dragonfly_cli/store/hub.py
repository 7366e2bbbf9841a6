"""The hub: what a repository holds, and its files. The only module of the program that opens a connection.

It goes through huggingface_hub, which obeys ``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE``; a token
comes from ``HF_TOKEN`` or the hub's own login and from nowhere else. No telemetry is sent. When a call is
interrupted, the part of a file stays, and the next call continues after its last byte. Every file is compared with the
hash that the hub lists for it.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dragonfly_cli.errors import ModelError
from dragonfly_cli.store.convert import is_companion
from dragonfly_cli.store.folder import write_atomically
from dragonfly_cli.store.hub_errors import GO_ON, asking, shown_endpoint
from dragonfly_cli.store.manifest import StoredFile, is_inside, stored_file

_LISTING = "listing.json"
_TENSOR_INDEX = ".safetensors.index.json"
_PICKLE_INDEX = ".bin.index.json"


@dataclass(frozen=True)
class HubFile:
    """A file of a repository; large ones are known by their hash, small ones by the id that git gives them."""

    name: str
    size: int
    sha256: str | None
    git_id: str | None


@dataclass(frozen=True)
class Listing:
    """One revision of a repository: only the files that make a model."""

    repository: str
    revision: str
    licence: str | None
    files: tuple[HubFile, ...]

    @property
    def weights(self) -> list[HubFile]:
        return [file for file in self.files if _is_weight(file.name)]


def look_up(repository: str, revision: str | None) -> Listing:
    """Asks the hub what a repository holds; raises ModelError if it does not say, or there is no model in it."""
    from huggingface_hub import HfApi

    try:
        with asking(repository):
            info = HfApi().model_info(repository, revision=revision, files_metadata=True)
        return _as_listing(repository, info)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{repository}: what {shown_endpoint()} answered is no answer of a hub",
            "check HF_ENDPOINT, or try later",
        ) from error


def _as_listing(repository: str, info: Any) -> Listing:
    if not info.sha:
        raise ValueError("without a revision, files of several could be mixed")
    files = [
        HubFile(file.rfilename, file.size, file.lfs.sha256 if file.lfs else None, file.blob_id)
        for file in info.siblings or []
        if file.size is not None  # of a file that the hub does not describe, nothing could be checked
    ]
    needed = _needed({file.name: file for file in files})
    card = info.card_data
    licence = card and (card.get("license_name") or card.get("license"))
    licences = licence if isinstance(licence, list) else [licence] if licence else []
    return Listing(repository, info.sha, ", ".join(map(str, licences)) or None, tuple(needed))


def remember(listing: Listing, folder: Path) -> None:
    """Keeps a listing beside its files, so that a download that is complete can be used without a network."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / _LISTING, json.dumps(asdict(listing)))


def recall(folder: Path) -> Listing | None:
    try:
        facts = json.loads((folder / _LISTING).read_text(encoding="utf-8"))
        return Listing(**{**facts, "files": tuple(HubFile(**file) for file in facts["files"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_offline() -> bool:
    from huggingface_hub.constants import is_offline_mode

    return is_offline_mode()


def bytes_left(listing: Listing, folder: Path) -> int:
    """How much of a repository is not on this machine yet."""
    return sum(file_bytes_left(listing, file, folder) for file in listing.files)


def file_bytes_left(listing: Listing, file: HubFile, folder: Path) -> int:
    whole = folder / file.name
    if (whole.is_file() and whole.stat().st_size == file.size) or _in_hub_cache(listing, file):
        return 0
    part = _part(folder, file)
    return file.size - min(file.size, part.stat().st_size if part.is_file() else 0)


def fetch(listing: Listing, file: HubFile, folder: Path) -> tuple[Path, StoredFile]:
    """A file of the repository, whole and compared: from ``folder``, from the hub's own cache, or from the network.

    Raises ModelError if it cannot be had, or is not what the hub lists.
    """
    for path in (folder / file.name, _in_hub_cache(listing, file)):
        if path and path.is_file() and (stored := _compared(path, file)):
            return path, stored
    path = _download(listing, file, folder)
    stored = _compared(path, file)
    if stored is None:
        path.unlink()
        raise ModelError(
            f"{listing.repository}: {file.name} was damaged during the download",
            "run the same command again",
        )
    return path, stored


def _download(listing: Listing, file: HubFile, folder: Path) -> Path:
    """Continues the part that is there; its name holds the file's hash, so that it is never another file's."""
    from huggingface_hub import constants, errors, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers, logging

    logging.set_verbosity_error()  # it tries again by itself; what it gives up is told as an error
    part = _part(folder, file)
    if part.is_file() and part.stat().st_size > file.size:
        part.unlink()
    url = hf_hub_url(listing.repository, file.name, revision=listing.revision, endpoint=constants.ENDPOINT)
    with asking(listing.repository), part.open("ab") as out:
        kept = out.tell()
        try:
            http_get(
                url,
                out,
                resume_size=kept,
                headers=build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.name,
            )
        except OSError as error:
            if isinstance(error, errors.HTTPError) or error.errno is not None:  # the hub, or the disk
                raise
            out.truncate(kept if out.tell() >= kept else 0)  # an answer of another length is another file
            raise ModelError(f"{listing.repository}: {file.name} did not arrive whole", GO_ON) from error
    part.replace(folder / file.name)
    return folder / file.name


def _part(folder: Path, file: HubFile) -> Path:
    return folder / f".{file.name}.{(file.sha256 or file.git_id or 'unknown')[:16]}.part"


def _in_hub_cache(listing: Listing, file: HubFile) -> Path | None:
    """The file as another program has downloaded it before, if it has."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(listing.repository, file.name, revision=listing.revision)
    return Path(found) if isinstance(found, str) else None


def _compared(path: Path, file: HubFile) -> StoredFile | None:
    """The hashed file if it is the one that the hub lists, else nothing."""
    if path.stat().st_size != file.size:
        return None
    stored = stored_file(path, file.name)
    if file.sha256:
        return stored if stored.sha256 == file.sha256 else None
    return stored if file.git_id in (None, _git_id(path)) else None


def _git_id(path: Path) -> str:
    content = path.read_bytes()  # a small file: large ones have a sha256
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _needed(files: dict[str, HubFile]) -> list[HubFile]:
    """Weights and what belongs to them; weights as pickles only where there are no safetensors."""
    names = [name for name in files if "/" not in name and is_inside(name)]
    tensors = [name for name in names if name.startswith("model") and name.endswith((".safetensors", _TENSOR_INDEX))]
    pickles = [name for name in names if name.startswith("pytorch_model") and name.endswith((".bin", _PICKLE_INDEX))]
    companions = [name for name in names if is_companion(name, files[name].size)]
    return [files[name] for name in sorted({*(tensors or pickles), *companions})]


def _is_weight(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))
