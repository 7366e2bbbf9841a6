"""Writing files: refused early if it cannot work, and never left half-written."""

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from dragonfly_cli.errors import OutputError, UsageError

_HINT = "choose another --output, in a folder that exists and that you may write to"


def check_writable(path: Path) -> None:
    """Raises OutputError if ``path`` cannot be written; called before any work is done."""
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder", "give --output a file name")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}", _HINT)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OutputError(f"cannot write {path}: permission denied", _HINT)


def check_unread(outputs: Iterable[Path | None], inputs: Iterable[Path | None]) -> None:
    """Raises UsageError for an output that is one of the files that are read: writing it would destroy that."""
    existing = [path for path in inputs if path and path.exists()]
    for output in outputs:
        if output and output.exists() and any(output.samefile(path) for path in existing):
            raise UsageError(f"cannot write {output}: it is what is read, and would be lost", "give another name")


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Lets ``write`` fill a file beside ``path`` and moves it there in one step; on any failure nothing stays."""
    check_writable(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        part = Path(name)
        try:
            write(part)
            part.chmod(0o666 & ~_umask())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or 'the disk refused'}", _HINT) from error


def storable(text: str) -> str:
    """``text`` as UTF-8 can hold it: the bytes of a file name that is not UTF-8 become backslash escapes.

    In JSON such an escape reads back as the very name.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_text(path: Path, text: str) -> None:
    write_whole(path, lambda part: _write(part, text))


def _write(path: Path, text: str) -> None:
    path.write_text(storable(text), encoding="utf-8", newline="")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
