"""Folders of a user: the home, and where the platform keeps models and calibrations, and templates."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dragonfly_cli.errors import UsageError


def expanded(path: str) -> Path:
    """With the home folder in place of ``~`` or ``~user``; raises UsageError if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"{path}: there is no such home folder", "write the whole path") from None


def data_folder() -> Path:
    """For what the program keeps; raises UsageError where the user has no home."""
    from platformdirs import user_data_path

    with _at_home():
        return user_data_path("dragonfly", appauthor=False)


def config_folder() -> Path:
    """For what the user writes; raises UsageError where the user has no home."""
    from platformdirs import user_config_path

    with _at_home():
        return user_config_path("dragonfly", appauthor=False)


@contextmanager
def _at_home() -> Iterator[None]:
    try:
        yield
    except RuntimeError:  # of a user that the system does not know, as in many containers
        raise UsageError("this user has no home folder", "set HOME to a folder, an empty one if need be") from None
