"""``model export`` and ``import``: a stored model as one file, for a machine without a network.

The file is an uncompressed tar: the manifest first, then every file that it lists, in its order. An import trusts
nothing in it: only names that the manifest lists are written, only as plain files, and only if their hashes agree; the
manifest is written last.
"""

import hashlib
import shutil
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import IO

from dragonfly_cli.errors import ModelError, NoInputError
from dragonfly_cli.option_values import Keep
from dragonfly_cli.output.files import check_unread, check_writable, flush_file, write_whole
from dragonfly_cli.store.folder import check_space, disk_errors, locked, model_folder, size_in_words
from dragonfly_cli.store.manifest import (
    FULL,
    MANIFEST,
    MAY_NOT_READ,
    NF4,
    Manifest,
    StoredFile,
    manifest_text,
    parse_manifest,
    read_manifest,
    write_manifest,
)
from dragonfly_cli.store.report import find_model

_LARGEST_MANIFEST_BYTES = 2**20
_CHUNK_BYTES = 4 * 2**20
_TAR_BLOCK_BYTES = 512

Say = Callable[[str], None]


def export_model(name: str, copies: Keep, output: Path, say: Say) -> None:
    """Writes a stored model, or only some of its copies, into one file.

    Raises ModelError if it is not here, or not what its manifest says, and OutputError if there is no room.
    """
    manifest = _only(find_model(name), copies)
    place = model_folder(manifest.id)
    check_writable(output)
    check_unread((output,), [place / MANIFEST, *(place / file.path for file in manifest.files)])
    size = sum(file.size + 2 * _TAR_BLOCK_BYTES for file in manifest.files) + _LARGEST_MANIFEST_BYTES
    check_space(output.parent, size, str(output), "make room, or choose an --output on a larger disk")
    say(f"writing {size_in_words(size)} to {output}")
    write_whole(output, lambda part: _write_tar(part, place, manifest))


def import_model(packed: Path, say: Say) -> Manifest:
    """Stores the model of an exported file; raises ModelError if any byte of it is not what its manifest says."""
    if not packed.is_file():
        raise NoInputError(f"no file {packed}", "give a file that dragonfly model export has written")
    try:
        with tarfile.open(packed, "r:") as tar:
            manifest = _read_manifest(tar, packed)
            say(f"model {manifest.id}, {size_in_words(manifest.size)}; licence: {manifest.licence}")
            _unpack(tar, manifest, packed)
    except tarfile.TarError as error:
        raise _damaged(packed) from error
    return manifest


def _only(manifest: Manifest, copies: Keep) -> Manifest:
    """The manifest with the wanted copies alone."""
    if copies is Keep.both:
        return manifest
    if copies not in manifest.copies:
        raise ModelError(f"model {manifest.id}: it has no copy {copies} here", f"it has: {', '.join(manifest.copies)}")
    return manifest.without_copy(FULL if copies is Keep.nf4 else NF4)


def _write_tar(part: Path, place: Path, manifest: Manifest) -> None:
    text = manifest_text(manifest).encode()
    with tarfile.open(part, "w:", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(_member(MANIFEST, len(text)), BytesIO(text))
        for file in manifest.files:
            _add_file(tar, place / file.path, file)


def _add_file(tar: tarfile.TarFile, path: Path, file: StoredFile) -> None:
    drifted = ModelError(f"{path}: it is not as stored", "see dragonfly model verify")
    try:
        with path.open("rb") as opened:
            reader = _HashingReader(opened)
            tar.addfile(_member(file.path, file.size), reader)
    except PermissionError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", MAY_NOT_READ) from error
    except FileNotFoundError as error:
        raise drifted from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise drifted from error  # shorter than the manifest says
    if reader.digest.hexdigest() != file.sha256:
        raise drifted


def _member(name: str, size: int) -> tarfile.TarInfo:
    """Without owner and time, so that the same model gives the same file."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member


class _HashingReader:
    """Hashes what is read through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = self.file.read(size)
        self.digest.update(chunk)
        return chunk


def _read_manifest(tar: tarfile.TarFile, packed: Path) -> Manifest:
    member = tar.next()
    if member is None or member.name != MANIFEST or not member.isreg() or member.size > _LARGEST_MANIFEST_BYTES:
        raise _damaged(packed)
    opened = tar.extractfile(member)
    content = opened.read() if opened else b""
    try:
        return parse_manifest(content.decode(), f"{packed}: {MANIFEST}")
    except UnicodeDecodeError as error:
        raise _damaged(packed) from error


def _unpack(tar: tarfile.TarFile, manifest: Manifest, packed: Path) -> None:
    place = model_folder(manifest.id)
    part = place / "import.part"
    with locked(place), disk_errors(place):
        if read_manifest(place):
            raise ModelError(
                f"model {manifest.id}: it is on this machine already",
                f"remove it first: dragonfly model rm {manifest.id}",
            )
        check_space(place, manifest.size, f"model {manifest.id}")
        _clear(part)
        try:
            _unpack_files(tar, manifest, part, packed)
            for copy in manifest.copies:
                _clear(place / copy)
                (part / copy).replace(place / copy)
            write_manifest(place, manifest)
        finally:
            _clear(part)


def _unpack_files(tar: tarfile.TarFile, manifest: Manifest, part: Path, packed: Path) -> None:
    left = {file.path: file for file in manifest.files}
    while member := tar.next():
        file = left.pop(member.name, None)
        if file is None or not member.isreg() or member.size != file.size:
            raise _damaged(packed)
        opened = tar.extractfile(member)
        if opened is None or _copy(opened, part / file.path) != file.sha256:
            raise _damaged(packed)
    if left:
        raise _damaged(packed)


def _copy(opened: IO[bytes], path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    reader = _HashingReader(opened)
    with path.open("xb") as out:
        while chunk := reader.read(_CHUNK_BYTES):
            out.write(chunk)
    flush_file(path)
    return reader.digest.hexdigest()


def _clear(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _damaged(packed: Path) -> ModelError:
    return ModelError(
        f"{packed}: it is damaged, or not an exported model", "export it again, and compare both files with sha256sum"
    )
