"""The hub: what a repository holds, and its files. The only module of the program that opens a connection.

It goes through huggingface_hub, which obeys ``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE``; a token
comes from ``HF_TOKEN`` or the hub's own login and from nowhere else. No telemetry is sent. When a call is
interrupted, the part of a file stays, and the next call continues after its last byte. Every file is compared with the
hash that the hub lists for it.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dragonfly_cli.errors import ModelError
from dragonfly_cli.store.convert import is_companion
from dragonfly_cli.store.folder import write_atomically
from dragonfly_cli.store.manifest import StoredFile, stored_file

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_LISTING = "listing.json"
_TENSOR_INDEX = ".safetensors.index.json"
_PICKLE_INDEX = ".bin.index.json"
_GO_ON = "check the network, then run the same command again: it goes on where it stopped"


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

    with _asking(repository):
        info = HfApi().model_info(repository, revision=revision, files_metadata=True)
    files = [
        HubFile(file.rfilename, file.size, file.lfs.sha256 if file.lfs else None, file.blob_id)
        for file in info.siblings or []
        if file.size is not None  # of a file that the hub does not describe, nothing could be checked
    ]
    needed = _needed({file.name: file for file in files})
    card = info.card_data
    licence = card and (card.get("license_name") or card.get("license"))
    return Listing(repository, str(info.sha), str(licence) if licence else None, tuple(needed))


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
    return sum(_bytes_left(listing, file, folder) for file in listing.files)


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
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers, logging

    logging.set_verbosity_error()  # it tries again by itself; what it gives up is told as an error
    part = _part(folder, file)
    if part.is_file() and part.stat().st_size > file.size:
        part.unlink()
    url = hf_hub_url(listing.repository, file.name, revision=listing.revision, endpoint=constants.ENDPOINT)
    with _asking(listing.repository), part.open("ab") as out:
        http_get(
            url,
            out,
            resume_size=out.tell(),
            headers=build_hf_headers(),
            expected_size=file.size,
            displayed_filename=file.name,
        )
    part.replace(folder / file.name)
    return folder / file.name


def _part(folder: Path, file: HubFile) -> Path:
    return folder / f".{file.name}.{(file.sha256 or file.git_id or 'unknown')[:16]}.part"


def _bytes_left(listing: Listing, file: HubFile, folder: Path) -> int:
    if (folder / file.name).is_file() or _in_hub_cache(listing, file):
        return 0
    part = _part(folder, file)
    return file.size - min(file.size, part.stat().st_size if part.is_file() else 0)


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
    names = [name for name in files if "/" not in name]
    tensors = [name for name in names if name.startswith("model") and name.endswith((".safetensors", _TENSOR_INDEX))]
    pickles = [name for name in names if name.startswith("pytorch_model") and name.endswith((".bin", _PICKLE_INDEX))]
    companions = [name for name in names if is_companion(name, files[name].size)]
    return [files[name] for name in sorted({*(tensors or pickles), *companions})]


def _is_weight(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


@contextmanager
def _asking(repository: str) -> Iterator[None]:
    """Asks without telemetry, and turns what huggingface_hub raises into a ModelError that says what to do."""
    from huggingface_hub import constants, errors

    # it would describe this machine in every request, and ask the hub for a list of programs to look for
    constants.HF_HUB_DISABLE_TELEMETRY = True
    page = f"{constants.ENDPOINT}/{repository}"
    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise ModelError(
            f"{repository}: HF_HUB_OFFLINE is set, so the hub is not asked",
            "unset it, or bring the model here with dragonfly model export and import, or dragonfly model convert",
        ) from error
    except errors.HfHubHTTPError as error:
        raise _refused(repository, page, error) from error
    except (errors.HTTPError, ConnectionError) as error:
        raise ModelError(f"{repository}: no connection to {constants.ENDPOINT}", _GO_ON) from error
    except OSError as error:
        if error.errno is not None:  # the disk, not the hub
            raise
        raise ModelError(f"{repository}: a file arrived incomplete", _GO_ON) from error


def _refused(repository: str, page: str, error: "HfHubHTTPError") -> ModelError:
    from huggingface_hub import errors

    status = error.response.status_code
    gated = isinstance(error, errors.GatedRepoError)
    access = f"open {page}, accept its conditions, then set HF_TOKEN or run: hf auth login"
    if gated or (status in (401, 403) and not isinstance(error, errors.RepositoryNotFoundError)):
        why = "it is gated, and access was refused" if gated else "access was refused"
        return ModelError(f"{repository}: {why} ({status})", access)
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelError(
            f"{repository}: there is no such repository, or it needs a token ({status})", f"check its name; or {access}"
        )
    if isinstance(error, errors.RevisionNotFoundError | errors.EntryNotFoundError):
        return ModelError(f"{repository}: there is no such revision or file ({status})", f"see {page}")
    return ModelError(f"{repository}: the hub answered {status}", _GO_ON)
