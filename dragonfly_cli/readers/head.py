"""The first bytes of a file, by which its kind is told, or why they cannot be read."""

import os
import re
from pathlib import Path

from dragonfly_cli.errors import DragonflyError, InputError, NoInputError
from dragonfly_cli.readers.dicom.signature import HEAD_BYTES

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # a path has one of its strokes left


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; there is none with a name that is too long to be one."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises in that case


def is_endless(path: Path) -> bool:
    """Whether reading it might never end: a pipe or a device, which in a folder that may only be listed is not told."""
    return exists(path) and not os.path.isfile(path) and not os.path.isdir(path)  # noqa: PTH112, PTH113


def read_head(path: Path) -> bytes:
    """The first ``HEAD_BYTES`` of a file; raises NoInputError where there is none, InputError for any other reason."""
    if is_endless(path):
        raise InputError(f"cannot read {path}: it is a pipe or a device", "give the name of a file")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError:
        raise missing(path, f"no such file: {path}") from None
    except PermissionError:
        raise InputError(f"cannot read {path}: permission denied", "check the permissions of the file") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check the disk or the network folder") from None
    if not head:
        raise InputError(f"cannot read {path}: the file is empty", "copy or export it again")
    return head


def as_written(path: Path) -> str:
    """The path, or the address that was taken for one, with the strokes that a path has lost."""
    strokes = ":///" if str(path).lower().startswith("file:") else "://"
    return str(path).replace(":/", strokes, 1) if _ADDRESS.match(str(path)) else str(path)


def missing(path: Path, message: str) -> DragonflyError:
    """The error for a path that leads nowhere; an address is no path, and is not supported."""
    if not _ADDRESS.match(str(path)):
        return NoInputError(message, "check the path")
    return InputError(
        f"cannot read {as_written(path)}: dragonfly downloads no images", "give the path of a file on this machine"
    )


def head_if_readable(path: Path) -> bytes:
    """The same, and nothing of what cannot be read: that is told when it is opened."""
    try:
        return read_head(path)
    except (InputError, NoInputError):
        return b""
