"""Where the bytes of one DICOM file lie: on disk, or in memory when it came out of an archive."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from dragonfly_cli.readers.changes import refuse_change, stamp_of


@dataclass(frozen=True)
class Place:
    """One file's bytes; ``label`` names it in messages, ``opener`` gives a new seekable stream each time."""

    label: str
    opener: Callable[[], BinaryIO]
    path: Path | None = None  # None in an archive
    at: int = 0  # where it begins in an archive that is read from its start to its end


def content_of(place: Place) -> bytes:
    """A hash of all bytes of a file."""
    with place.opener() as file:
        return hashlib.sha256(file.read()).digest()


def size_of(place: Place) -> int:
    """Bytes of a file."""
    with place.opener() as file:
        return file.seek(0, os.SEEK_END)


def on_disk(path: Path) -> Place:
    """A file as it is now; once it has changed, opening it raises ChangedError."""
    before = stamp_of(path)

    def opener() -> BinaryIO:
        refuse_change(path, before)
        return path.open("rb")

    return Place(str(path), opener, path)


def in_memory(label: str, load: Callable[[], bytes], at: int = 0) -> Place:
    """A file whose bytes are got by ``load`` each time that they are asked for."""
    return Place(label, lambda: BytesIO(load()), at=at)


def missing(label: str) -> Place:
    """A file that is named somewhere and not there: opening it raises FileNotFoundError."""

    def fail() -> BinaryIO:
        raise FileNotFoundError(label)

    return Place(label, fail)
