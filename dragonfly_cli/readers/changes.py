"""Files that change while they are read: what is shown then is neither the old picture nor the new one."""

from pathlib import Path

from dragonfly_cli.errors import ChangedError

Stamp = tuple[int, int] | None


def stamp_of(path: Path) -> Stamp:
    """What changes when a file is written to: size and time of change; None when it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def refuse_change(path: Path, before: Stamp) -> None:
    """Raises ChangedError unless the file is what it was when its stamp was taken."""
    if stamp_of(path) != before:
        raise ChangedError(f"cannot read {path}: it changed while it was read", "ask again when it is complete")
