"""Writing files: refused early if it cannot work, and never left half-written."""

import errno
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from mimetypes import guess_type
from pathlib import Path
from stat import S_IMODE
from zlib import crc32

from dragonfly_cli.errors import OutputError, UsageError

try:
    import fcntl
except ImportError:  # Windows, where the files that a killed process leaves stay
    fcntl = None  # type: ignore[assignment]

_PART_START, _PART_SUFFIX = ".dragonfly-", ".part"
_HINT = "choose another file, in a folder that exists and that you may write to"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ROOM_HINT = "make room there and run the same command again, or choose another place"

STDOUT = Path("-")


def check_writable(path: Path) -> None:
    """Raises OutputError or UsageError if ``path`` cannot be written; called before any work is done."""
    if path == STDOUT:
        raise UsageError("- is stdout, and this can only be written to a file", "give the name of a file")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder", "give the name of a file")
    real = Path(os.path.realpath(path))  # a link stays, and what it leads to is replaced
    if not path.parent.is_dir() or not real.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {real.parent}", _HINT)
    if path.exists() and not path.is_file():  # to be replaced by a file, or never to take what is written
        raise OutputError(f"cannot write {path}: it is a pipe or a device", "give the name of a file")
    is_closed = path.exists() and not os.access(path, os.W_OK)
    if is_closed or not os.access(real.parent, os.W_OK):  # a file as well is replaced by one from beside it
        raise OutputError(f"cannot write {path}: permission denied", _HINT)


def check_png(path: Path) -> None:
    """The same for a picture; raises UsageError also for a name that promises another format."""
    check_writable(path)
    promised, _ = guess_type(path.name)
    if promised not in (None, "image/png"):
        raise UsageError(f"cannot write {path}: pictures are written as PNG", "give it a name that ends in .png")


def check_unread(outputs: Iterable[Path | None], inputs: Iterable[Path | None]) -> None:
    """Raises UsageError for an output that is also an input, which writing would destroy."""
    read = [path for path in inputs if path]
    for output in outputs:
        if output not in (None, STDOUT) and any(_are_same(output, path) for path in read):
            raise UsageError(f"cannot write {output}: it is being read, and would be lost", "give another name")


def _are_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return False


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Lets ``write`` fill a file beside ``path`` and moves it there in one step; on any failure nothing stays.

    Where ``path`` is a link, what it leads to is replaced.

    What a process that was killed meanwhile has left is removed by the next one that writes to ``path``.
    """
    check_writable(path)
    try:
        real = Path(os.path.realpath(path))
        remove_left(real.parent, [real.name])
        write_beside(real, write)
    except OSError as error:
        hint = _NO_ROOM_HINT if error.errno in NO_ROOM else _HINT
        raise OutputError(f"cannot write {path}: {error.strerror or 'the disk refused'}", hint) from error


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """The same without any checks: raises OSError, and leaves to ``remove_left`` what was left by a kill."""
    handle, part = _begun(path)
    try:
        write(part)
        move_whole(part, path)
    finally:
        part.unlink(missing_ok=True)
        os.close(handle)


def remove_left(folder: Path, names: Iterable[str]) -> None:
    """Removes what killed processes have left unfinished of the files of these names; what others write now stays."""
    starts = {_part_start(name) for name in names}
    for part in folder.glob(f"{_PART_START}*{_PART_SUFFIX}"):
        if part.name.rpartition("-")[0] in starts:
            with suppress(OSError), part.open("r+b") as file:
                if _lock(file.fileno(), wait=False):
                    part.unlink()


def move_whole(part: Path, path: Path) -> None:
    """Replaces ``path`` by a finished file beside it, in one step that survives a power cut."""
    flush_file(part)  # otherwise an empty file could be left in place of a whole one
    part.replace(path)


def flush_file(path: Path) -> None:
    """Makes the content of a file durable."""
    with path.open("rb+") as file:  # Windows flushes nothing that is only read
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Makes renames in ``folder`` durable, where the platform knows how."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _begun(path: Path) -> tuple[int, Path]:
    """A new file beside ``path``, and the handle that keeps it locked: one without a lock was left by a kill.

    It has the permissions of the file that it is going to replace, from the start.
    """
    mode = S_IMODE(path.stat().st_mode) if path.exists() else None
    while True:
        part = path.with_name(f"{_part_start(path.name)}-{os.urandom(8).hex()}{_PART_SUFFIX}")
        handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666 if mode is None else mode)
        if mode is not None:
            with suppress(OSError):  # a share whose files are all alike
                part.chmod(mode)  # the umask may have taken some away
        _lock(handle, wait=True)
        if part.exists():  # else it was taken for one that was left, in the moment before it was locked
            return handle, part
        os.close(handle)


def _part_start(name: str) -> str:
    return f"{_PART_START}{crc32(os.fsencode(name)):08x}"  # short, however long the name


def is_part(path: Path) -> bool:
    """Whether it is a file that is being written, or was when a process was killed."""
    return path.name.startswith(_PART_START) and path.suffix == _PART_SUFFIX


def _lock(handle: int, *, wait: bool) -> bool:
    """Whether this process holds the lock now; False also on platforms without locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (OSError, AttributeError):
        return False
    return True


def storable(text: str) -> str:
    """``text`` as UTF-8 can hold it: the bytes of a file name that is not UTF-8 become backslash escapes.

    In JSON such an escape reads back as the very name.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_text(text: str) -> bool:
    """Whether UTF-8 can hold ``text``: not with the bytes of a name that is not UTF-8, or half of a JSON escape."""
    return storable(text) == text


def write_text(path: Path, text: str) -> None:
    write_whole(path, lambda part: _write(part, text))


def _write(path: Path, text: str) -> None:
    path.write_text(storable(text), encoding="utf-8", newline="")
