"""From ``--type``, ``--options``, ``--scale`` and ``--schema`` to the form that answers shall have.

Everything is checked before an image is opened or a model is loaded.
"""

import re

from dragonfly_cli.engine.questions import Form
from dragonfly_cli.engine.schema import read_schema
from dragonfly_cli.errors import UsageError
from dragonfly_cli.option_values import AnswerType
from dragonfly_cli.options import FormOptions

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
        return Form("open", schema=read_schema(wanted.schema))
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
    hint = "give two or more, with commas between them: --options benign,malignant"
    if not all(options):
        raise UsageError(f"--options {listed}: an option is empty", hint)
    if len(options) < 2:
        raise UsageError(f"--options {listed}: there is only one option", hint)
    for number, option in enumerate(options):
        for other in options[number + 1 :]:
            _refuse_if_one_begins_the_other(*sorted((option, other), key=len))
    return options


def _refuse_if_one_begins_the_other(short: str, long: str) -> None:
    if short.casefold() == long.casefold():
        raise UsageError(f"--options: {short} stands there twice", "leave one out")
    if long.casefold().startswith(short.casefold()):
        raise UsageError(
            f"--options: {long} begins with {short}, so an answer that begins with it could mean either",
            f"write {short} in other words",
        )


def _scale(written: str) -> tuple[str, ...]:
    match = _SCALE.fullmatch(written)
    hint = f"give two whole numbers from 0 to 99, at most {_LONGEST_SCALE - 1} apart, such as --scale 1-5"
    if not match:
        raise UsageError(f"--scale {written}: this is no scale", hint)
    lowest, highest = map(int, match.groups())
    if not lowest < highest < lowest + _LONGEST_SCALE:
        raise UsageError(f"--scale {written}: it must rise, by at most {_LONGEST_SCALE - 1}", hint)
    return tuple(map(str, range(lowest, highest + 1)))
