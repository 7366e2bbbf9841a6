"""What a stored model consists of: ``manifest.json`` beside its copies, written last and in one step.

A model without a manifest does not exist, and a copy that its manifest does not list does not exist either; that is
how a half-written one is never taken for whole. A manifest may have come from another machine, so every path in it is
checked before it is used.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from dragonfly_cli import __version__
from dragonfly_cli.errors import ModelError
from dragonfly_cli.store.catalog import is_name
from dragonfly_cli.store.folder import sha256_of, write_atomically

MANIFEST = "manifest.json"
FULL, NF4 = "full", "nf4"
COPIES = (FULL, NF4)

MAY_NOT_READ = "ask whoever keeps the models here for permission"
_VERSION = 1


@dataclass(frozen=True)
class StoredFile:
    """One file: its path below the model's folder, always with ``/``."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Where a model comes from, what it is, and every file of it.

    ``original`` are the published weight files that it was made from, which need not be here any more.
    """

    id: str
    repository: str | None
    revision: str | None
    licence: str
    architecture: str
    parameters: int
    files: tuple[StoredFile, ...]
    original: tuple[StoredFile, ...]
    made_with: str = f"dragonfly-cli {__version__}"

    @property
    def copies(self) -> list[str]:
        """``full`` and ``nf4``, as far as they are there."""
        return [copy for copy in COPIES if self.files_of(copy)]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def files_of(self, copy: str) -> list[StoredFile]:
        return [file for file in self.files if file.path.startswith(f"{copy}/")]

    def size_of(self, copy: str) -> int:
        return sum(file.size for file in self.files_of(copy))

    def with_copy(self, files: Iterable[StoredFile]) -> "Manifest":
        return replace(self, files=(*self.files, *files))

    def without_copy(self, copy: str) -> "Manifest":
        return replace(self, files=tuple(file for file in self.files if not file.path.startswith(f"{copy}/")))


def manifest_text(manifest: Manifest) -> str:
    return json.dumps({"manifest_version": _VERSION, **asdict(manifest)}, indent=2) + "\n"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_atomically(folder / MANIFEST, manifest_text(manifest))


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a model's folder, ``None`` if it has none; raises ModelError for a damaged one."""
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise ModelError(f"cannot read {folder / MANIFEST}: {error.strerror}", MAY_NOT_READ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(str(folder / MANIFEST)) from error
    return parse_manifest(text, str(folder / MANIFEST))


def parse_manifest(text: str, where: str) -> Manifest:
    """A checked manifest; raises ModelError, naming ``where``, for anything else."""
    try:
        facts = json.loads(text)
        if facts.pop("manifest_version") != _VERSION:
            raise ModelError(f"{where}: made by a newer dragonfly", "get that, and in its folder run: pip install .")
        manifest = Manifest(**{**facts, "files": _files(facts["files"]), "original": _files(facts["original"])})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(where) from error
    if not _is_sound(manifest):
        raise _damaged(where)
    return manifest


def list_files(folder: Path, below: str) -> list[StoredFile]:
    """Every file of ``folder/below``, hashed, in the order of their paths."""
    paths = sorted(path for path in (folder / below).rglob("*") if path.is_file())
    return [stored_file(path, path.relative_to(folder).as_posix()) for path in paths]


def stored_file(path: Path, name: str) -> StoredFile:
    return StoredFile(name, path.stat().st_size, sha256_of(path))


def find_drift(folder: Path, manifest: Manifest) -> list[str]:
    """A line for every file that is missing, changed, or not part of the model; reads everything."""
    drift = [f"{file.path}: {why}" for file in manifest.files if (why := _changed(folder / file.path, file))]
    known = {file.path for file in manifest.files}
    for copy in manifest.copies:
        found = (path for path in sorted((folder / copy).rglob("*")) if not path.is_dir())
        names = (path.relative_to(folder).as_posix() for path in found)
        drift += [f"{name}: is not part of the model" for name in names if name not in known]
    return drift


def _changed(path: Path, file: StoredFile) -> str | None:
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != file.size:
        return f"has {path.stat().st_size} bytes instead of {file.size}"
    return None if sha256_of(path) == file.sha256 else "has changed"


def _files(rows: Any) -> tuple[StoredFile, ...]:
    return tuple(StoredFile(**row) for row in rows)


def _is_sound(manifest: Manifest) -> bool:
    texts = (manifest.id, manifest.licence, manifest.architecture, manifest.made_with)
    optional = (manifest.repository, manifest.revision)
    return (
        all(isinstance(text, str) for text in texts)
        and all(text is None or isinstance(text, str) for text in optional)
        and isinstance(manifest.parameters, int)
        and is_name(manifest.id)
        and bool(manifest.copies)
        and all(_is_sound_file(file) and file.path.partition("/")[0] in COPIES for file in manifest.files)
        and all(_is_sound_file(file) for file in manifest.original)
        and len({file.path for file in manifest.files}) == len(manifest.files)
    )


def _is_sound_file(file: StoredFile) -> bool:
    return (
        isinstance(file.path, str)
        and is_inside(file.path)
        and isinstance(file.size, int)
        and file.size >= 0
        and isinstance(file.sha256, str)
        and len(file.sha256) == 64
    )


def is_inside(name: str) -> bool:
    """Whether a relative path stays below the folder that it is joined to, on every platform."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not any(character in name for character in "\\:\0") and not {"..", "/", "//"} & set(parts)


def _damaged(where: str) -> ModelError:
    return ModelError(
        f"{where}: this is not a whole manifest of a model", "get it again, a stored one after dragonfly model rm"
    )
