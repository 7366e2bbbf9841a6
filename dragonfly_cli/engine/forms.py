"""From ``--type``, ``--options``, ``--scale`` and ``--schema`` to the form of the answers.

Everything is checked before an image is opened or a model is loaded.
"""

import re
import unicodedata
from itertools import combinations

from dragonfly_cli.engine.questions import Form
from dragonfly_cli.engine.schema import read_schema
from dragonfly_cli.errors import UsageError
from dragonfly_cli.option_values import AnswerType
from dragonfly_cli.options import FormOptions
from dragonfly_cli.output.files import is_text

_SCALE = re.compile(r"\s*(\d{1,2})\s*-\s*(\d{1,2})\s*")
_LONGEST_SCALE = 21


def as_form(wanted: FormOptions) -> Form:
    """Raises UsageError for options that contradict each other or cannot be told apart."""
    _refuse_contradictions(wanted)
    if wanted.options is not None:
        return Form("options", _options(wanted.options))
    if wanted.scale is not None:
        return Form("scale", _scale(wanted.scale))
    if wanted.schema is not None:
        return Form("open", schema=read_schema(wanted))
    if wanted.type is AnswerType.yesno:
        return Form("yesno")
    return Form("open" if wanted.type is AnswerType.open else None)


def _refuse_contradictions(wanted: FormOptions) -> None:
    implied = {
        name: kind
        for name, value, kind in (
            ("--options", wanted.options, AnswerType.options),
            ("--scale", wanted.scale, AnswerType.scale),
            ("--schema", wanted.schema, AnswerType.open),
        )
        if value is not None
    }
    if len(implied) > 1:
        raise UsageError(f"{' and '.join(implied)} contradict each other", "give one of them")
    for name, kind in implied.items():
        if wanted.type not in (AnswerType.auto, kind):
            raise UsageError(f"{name} contradicts --type {wanted.type}", "leave --type out")
    if wanted.type in (AnswerType.options, AnswerType.scale) and not implied:
        raise UsageError(f"--type {wanted.type} needs --{wanted.type}", f"give --{wanted.type}, or leave --type out")


def _options(listed: str) -> tuple[str, ...]:
    options = tuple(option.strip() for option in listed.split(","))
    if fault := options_fault(options):
        raise UsageError(f"--options {listed}: {fault[0]}", fault[1])
    return options


def options_fault(options: tuple[str, ...]) -> tuple[str, str] | None:
    """Why no answer can be chosen from the options, and what to do."""
    hint = "give two or more, with commas between them: --options benign,malignant"
    if not all(is_text(option) for option in options):
        return "an option is not valid UTF-8", "write it again"
    if not all(options):
        return "an option is empty", hint
    if len(options) < 2:
        return "there is only one option", hint
    pairs = (sorted(pair, key=len) for pair in combinations(options, 2))
    return next((fault for short, long in pairs if (fault := _fault_of_beginning(short, long))), None)


def _fault_of_beginning(short: str, long: str) -> tuple[str, str] | None:
    if _folded(short) == _folded(long):
        return f"{short} is given twice", "leave one out"
    if _folded(long).startswith(_folded(short)):
        why = f"{long} begins with {short}, so an answer that begins with it could mean either"
        return why, f"write {short} in other words"
    return None


def _folded(option: str) -> str:
    """Equal for texts that look the same but for upper and lower case, however their letters are put together."""
    return unicodedata.normalize("NFC", option.upper().casefold())


def _scale(written: str) -> tuple[str, ...]:
    match = _SCALE.fullmatch(written)
    hint = f"give two whole numbers from 0 to 99, at most {_LONGEST_SCALE - 1} apart, such as --scale 1-5"
    if not match:
        raise UsageError(f"--scale {written}: this is not a scale", hint)
    lowest, highest = map(int, match.groups())
    if not lowest < highest < lowest + _LONGEST_SCALE:
        raise UsageError(f"--scale {written}: it must rise, by at most {_LONGEST_SCALE - 1}", hint)
    return tuple(map(str, range(lowest, highest + 1)))
