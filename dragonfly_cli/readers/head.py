"""The first bytes of a file, by which its kind is told, or why they cannot be read."""

import os
from pathlib import Path

from dragonfly_cli.errors import InputError, NoInputError
from dragonfly_cli.readers.dicom.signature import HEAD_BYTES


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; there is none with a name that is too long to be one."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises in that case


def may_be_file(path: Path) -> bool:
    """Not a pipe or a device; what is there or not cannot be told in a folder that may only be listed."""
    return os.path.isfile(path) or not exists(path)  # noqa: PTH113 - Path.is_file raises there


def read_head(path: Path) -> bytes:
    """The first ``HEAD_BYTES`` of a file; raises NoInputError where there is none, InputError for any other reason."""
    if not may_be_file(path):  # reading it might never end
        raise InputError(f"cannot read {path}: it is a pipe or a device", "give the name of a file")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError:
        raise NoInputError(f"no such file: {path}", "check the path") from None
    except PermissionError:
        raise InputError(f"cannot read {path}: permission denied", "check the permissions of the file") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check the disk or the network folder") from None
    if not head:
        raise InputError(f"cannot read {path}: the file is empty", "copy or export it again")
    return head


def head_if_readable(path: Path) -> bytes:
    """The same, and nothing of what cannot be read: that is told when it is opened."""
    try:
        return read_head(path)
    except (InputError, NoInputError):
        return b""
