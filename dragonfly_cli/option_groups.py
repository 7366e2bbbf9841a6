"""Commands that take their options in groups: a parameter that is a dataclass stands for one option per field.

    @app.command()
    def ask(image: ImageArgument, *, looking: LookOptions) -> None: ...

What several commands share is written once, as a frozen dataclass whose fields are annotated like Typer's options. The
first line of its docstring is the heading of their section in the help.
``parsed_options`` takes the same options as text from elsewhere, such as the columns of a table.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any

import typer

from dragonfly_cli.errors import UsageError

# Typer has used its own copy of click since 0.26, so its usage error is reached through the name that stayed.
WRONG_USAGE: Any = typer.BadParameter.__base__

_NO_NAMES: Mapping[str, Any] = {}


def as_command(function: Callable[..., Any], names: Mapping[str, Any] = _NO_NAMES) -> Any:
    """The command that Typer makes of a function, with every field of a dataclass parameter as an option of its own.

    Annotations that are text are looked up among ``names``, and where the function was written.
    """
    app = typer.Typer(add_completion=False)
    app.command()(_flattened(function, names))
    return typer.main.get_command(app)


def _flattened(command: Callable[..., Any], names: Mapping[str, Any]) -> Callable[..., Any]:
    parameters = inspect.signature(command, locals=names, eval_str=True).parameters
    groups: dict[str, Any] = {
        name: each.annotation for name, each in parameters.items() if is_dataclass(each.annotation)
    }

    @functools.wraps(command)
    def run(**values: Any) -> Any:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        return command(**values)

    flat: list[inspect.Parameter] = []
    for name, parameter in parameters.items():
        if name in groups:
            flat += [_as_parameter(field, _heading(groups[name])) for field in fields(groups[name])]
        else:
            flat.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    run.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in flat}
    return run


def _heading(group: type[Any]) -> str:
    return inspect.cleandoc(group.__doc__ or "").partition("\n")[0].rstrip(".").replace("``", "")


def _as_parameter(field: "Field[Any]", heading: str | None = None) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    annotation: Any = field.type
    if heading:
        option = copy(annotation.__metadata__[0])  # the same option may stand in other groups, or by itself
        option.rich_help_panel = heading
        annotation = Annotated[annotation.__origin__, option]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def parsed_options(groups: tuple[type[Any], ...], texts: Mapping[str, str]) -> dict[str, Any]:
    """The values of options given as ``{field name: text}``, converted and checked exactly as on the command line.

    Raises UsageError for a text that the option does not take.
    """
    command = _command_of(groups, tuple(texts))
    parameters = {each.name: each for each in command.params}
    try:
        arguments = [_as_argument(parameters[name], text) for name, text in texts.items()]
        with command.make_context("row", arguments) as context:
            values: dict[str, Any] = command.invoke(context)
    except WRONG_USAGE as error:
        raise UsageError(error.format_message().rstrip("."), "write it as on the command line") from error
    return values


def _as_argument(option: Any, text: str) -> str:
    """``--frame=3``; of an option that is on or off ``--bounds-offset`` or ``--no-bounds-offset``."""
    if not option.is_flag:
        flag = next(flag for flag in option.opts if flag.startswith("--"))
        return f"{flag}={text}"
    switch: str = (option.opts if option.type.convert(text, option, None) else option.secondary_opts)[0]
    return switch


def option_names(groups: tuple[type[Any], ...]) -> dict[str, str]:
    """How options may be called elsewhere than on the command line, with the field that each name means.

    ``--slide-mpp`` is ``slide_mpp``; a field goes by its own name as well.
    """
    names = {field.name: field.name for group in groups for field in fields(group)}
    for parameter in _command_of(groups, tuple(names)).params:
        flags = (flag[2:].replace("-", "_") for flag in parameter.opts if flag.startswith("--"))
        names |= dict.fromkeys(flags, parameter.name)
    return names


@functools.cache
def _command_of(groups: tuple[type[Any], ...], names: tuple[str, ...]) -> Any:
    """A command with those options alone, which gives their values back."""

    def give_back(**values: Any) -> dict[str, Any]:
        return values

    members = {field.name: field for group in groups for field in fields(group)}
    parameters = [_as_parameter(members[name]) for name in names]
    give_back.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    give_back.__annotations__ = {each.name: each.annotation for each in parameters}
    return as_command(give_back)
