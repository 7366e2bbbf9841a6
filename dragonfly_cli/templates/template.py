"""Prompts by name: those of ``builtin.toml`` beside this module, and the user's own in ``templates.toml``.

The user's file lies in the platform's folder for settings, or is named by ``DRAGONFLY_TEMPLATES``. A template of the
user's replaces the built-in one of the same name.
"""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragonfly_cli.errors import InputError, NoInputError, UsageError
from dragonfly_cli.user_folders import config_folder, expanded

VARIABLE = "DRAGONFLY_TEMPLATES"

_BUILT_IN = Path(__file__).with_name("builtin.toml")
_HINT = 'each template is a [name] with "about", "system" and "questions", as dragonfly template show prints them'


@dataclass(frozen=True)
class Template:
    """``system`` goes before every question; ``questions`` are asked when none is given."""

    name: str
    about: str
    system: str | None
    questions: tuple[str, ...]
    is_built_in: bool


def all_templates() -> dict[str, Template]:
    """Every template by its name.

    Raises InputError if the user's file cannot be read or understood, NoInputError if the environment names none.
    """
    own = own_file()
    if os.environ.get(VARIABLE) and not own.exists():
        raise NoInputError(f"{VARIABLE}: there is no file {own}", "check the path, or unset the variable")
    return _read(_BUILT_IN) | (_read(own) if own.exists() else {})


def find_template(name: str) -> Template:
    """Raises UsageError if there is none of that name."""
    templates = all_templates()
    if name not in templates:
        raise UsageError(f"there is no template {name}", f"give one of: {', '.join(templates)}")
    return templates[name]


def own_file() -> Path:
    """Where the user's templates are, if there are any."""
    if chosen := os.environ.get(VARIABLE):
        return expanded(chosen)
    return config_folder() / "templates.toml"


def _read(file: Path) -> dict[str, Template]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        raise InputError(f"cannot read templates from {file}", "it must be a UTF-8 text file") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"cannot read templates from {file}: {error}", _HINT) from None
    return {name: _template(file, name, settings) for name, settings in content.items()}


def _template(file: Path, name: str, settings: Any) -> Template:
    if not isinstance(settings, dict):
        raise InputError(f"{file}: {name} is not a template", _HINT)
    about, system, questions = settings.get("about", ""), settings.get("system"), settings.get("questions", [])
    unknown = settings.keys() - {"about", "system", "questions"}
    if unknown:
        raise InputError(f"{file}: template {name} has an unknown entry: {min(unknown)}", _HINT)
    texts = [about, *([] if system is None else [system]), *(questions if isinstance(questions, list) else [None])]
    if not all(isinstance(text, str) and text.strip() for text in texts[1:]) or not isinstance(about, str):
        raise InputError(f"{file}: template {name} has an entry that is not text, or a question that is empty", _HINT)
    return Template(name, about, system, tuple(questions), file == _BUILT_IN)
