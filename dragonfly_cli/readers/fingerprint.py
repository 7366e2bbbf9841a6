"""What identifies a file's content in a record: a hash of all of it, or of its size and ends when it is large.

Non-goal: a slide's own ``openslide.quickhash-1``, which the record prefers to the one made here; the slide reader
gives it in ``details()["quickhash"]``.
"""

import hashlib
import os
from pathlib import Path

from dragonfly_cli.errors import InputError

WHOLE_FILE_BYTES = 64 * 2**20
END_BYTES = 2**20


def fingerprint(path: str | os.PathLike[str]) -> dict[str, str | None]:
    """``sha256`` of a file of up to 64 MiB, else ``quickhash``; the other one is None. Raises InputError."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= WHOLE_FILE_BYTES:
                return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "quickhash": None}
            digest = hashlib.sha256(str(size).encode())
            digest.update(file.read(END_BYTES))
            file.seek(-END_BYTES, os.SEEK_END)
            digest.update(file.read(END_BYTES))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check the path and its rights") from None
    return {"sha256": None, "quickhash": digest.hexdigest()}
