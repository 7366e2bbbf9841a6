"""Commands that take their options in groups: a parameter that is a dataclass stands for one option per field.

    @app.command()
    @takes_option_groups
    def ask(image: ImageArgument, *, looking: LookOptions) -> None: ...

What several commands share is written once, as a frozen dataclass whose fields are annotated like Typer's options.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any


def takes_option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` as Typer sees it: every field of a dataclass parameter as an option of its own."""
    parameters = inspect.signature(command).parameters
    groups: dict[str, Any] = {
        name: each.annotation for name, each in parameters.items() if is_dataclass(each.annotation)
    }

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    flat: list[inspect.Parameter] = []
    for name, parameter in parameters.items():
        if name in groups:
            flat += [_as_parameter(field) for field in fields(groups[name])]
        else:
            flat.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    run.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in flat}
    return run


def _as_parameter(field: "Field[Any]") -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.type)
