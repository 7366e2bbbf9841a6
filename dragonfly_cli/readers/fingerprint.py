"""What identifies content in a record: a hash of a whole file, or of sizes and ends where there is much of it.

Non-goal: a slide's own ``openslide.quickhash-1``, which the record prefers to the one made here; the slide reader
gives it in ``details()["quickhash"]``.
"""

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from dragonfly_cli.errors import InputError

WHOLE_FILE_BYTES = 64 * 2**20
END_BYTES = 2**20
HEAD_BYTES = 2**16
_PIECES = 64


def fingerprint(path: str | os.PathLike[str]) -> dict[str, str | None]:
    """``sha256`` of a file of up to 64 MiB, else ``quickhash``; the other one is None. Raises InputError."""
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading it might never end
            raise InputError(f"cannot read {path}: it is a pipe or a device", "give the name of a file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= WHOLE_FILE_BYTES:
                return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "quickhash": None}
            digest = hashlib.sha256(str(size).encode())
            digest.update(file.read(END_BYTES))
            file.seek(-END_BYTES, os.SEEK_END)
            digest.update(file.read(END_BYTES))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from None
    return {"sha256": None, "quickhash": digest.hexdigest()}


def spread_hash(path: Path) -> str:
    """A hash of the size and of pieces from all over a large file; raises InputError.

    Different scans without compression may begin and end with the same megabytes of background.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(str(size).encode())
            for number in range(_PIECES):
                file.seek(number * max(0, size - HEAD_BYTES) // (_PIECES - 1))
                digest.update(file.read(HEAD_BYTES))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from None
    return digest.hexdigest()


def fingerprint_of_many(paths: Iterable[Path]) -> dict[str, str | None]:
    """``quickhash`` over the size and the beginning of each file, in order: enough for a header with its unique names.

    Raises InputError.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                digest.update(str(os.fstat(file.fileno()).st_size).encode())
                digest.update(file.read(HEAD_BYTES))
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from None
    return {"sha256": None, "quickhash": digest.hexdigest()}


def files_below(folder: Path) -> list[Path]:
    """The files of a folder and of those below it, sorted by path, as a series is looked for in it.

    Left out are hidden ones, pipes, devices and links to nowhere; links to folders are not followed. Raises InputError
    for a folder that may not be looked into.
    """
    found: list[Path] = []
    try:
        for parent, folders, names in os.walk(folder, onerror=_raise):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [path for name in names if not name.startswith(".") and _is_file(path := Path(parent, name))]
    except OSError as error:
        raise InputError(
            f"cannot read {error.filename}: {error.strerror}", "check the permissions of the folder"
        ) from None
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _is_file(path: Path) -> bool:
    """Raises OSError where that may not be known."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False
