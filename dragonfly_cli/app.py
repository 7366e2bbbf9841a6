"""Typer as this program uses it: options that the environment may set too, and help pages in sections.

What holds for every option is said here once: ``--max-tokens`` is also ``DRAGONFLY_MAX_TOKENS``. A section is the
``rich_help_panel`` of an option, Typer's own name for it, which ``option_groups`` sets. Nothing heavy is imported.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand

from dragonfly_cli.errors import UsageError
from dragonfly_cli.funnel import ErrorFunnel
from dragonfly_cli.option_groups import as_command

_ENVIRONMENT = "Every option can also be set in the environment: --debug as DRAGONFLY_DEBUG=1."
_WIDEST_HELP = 100  # columns; longer lines are hard to read
_PLACEHOLDERS = {"int": "N", "float": "NUMBER", "str": "TEXT", "path": "PATH"}  # by the name of Typer's type


class App(typer.Typer):
    """A program, or a group of commands in one, whose errors end in the exit codes of the contract.

    ``options`` are modules from which the annotations of its commands take names. They are imported when a command is
    used, as making all options takes longer than the list of commands does.
    """

    def __init__(self, help: str, options: tuple[str, ...]) -> None:
        self._options = options
        super().__init__(
            cls=ErrorFunnel,
            rich_markup_mode=None,  # help at once: rich takes longer to import than all else together
            no_args_is_help=True,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDEST_HELP},
            help=help,
        )

    def command(self, name: str | None = None, **settings: Any) -> Callable[..., Any]:
        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            def stand_in() -> None: ...  # without parameters: Typer goes through those of all commands for any help

            stand_in.__name__, stand_in.__doc__ = function.__name__, function.__doc__
            stand_in.build = lambda: as_command(function, self._names())  # type: ignore[attr-defined]
            register_with_typer(stand_in)
            return function

        register_with_typer = super().command(name, cls=Command, epilog=_ENVIRONMENT, **settings)
        return register

    def _names(self) -> dict[str, Any]:
        return {name: value for module in self._options for name, value in vars(import_module(module)).items()}


class Command(TyperCommand):
    """One command, built when it is used. The environment may set its options, the command line goes before it."""

    def __init__(self, name: str | None, *, callback: Any, **settings: Any) -> None:
        super().__init__(name, callback=callback, **settings)
        self._build = callback.build
        del self.params, self.callback

    def __getattr__(self, name: str) -> Any:
        if name not in ("params", "callback"):
            raise AttributeError(name)
        built = self._build()
        options: list[Any] = [*built.params, _offline_option()]
        self.params, self.callback = options, built.callback
        for each in options:
            if flag := _long_flag(each):
                each.envvar = f"DRAGONFLY_{flag[2:].replace('-', '_').upper()}"
                each.show_envvar = False  # the rule is told once, below the options
                each.metavar = each.metavar or _PLACEHOLDERS.get(each.type.name.removesuffix(" range"))
        return getattr(self, name)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises UsageError for an empty value: no option has a meaning for it, but as a path it is this folder."""
        given = list(args)
        rest: list[str] = super().parse_args(ctx, args)
        if ctx.resilient_parsing:  # for the completion of a line that is not finished
            return rest
        values, _, parameters = self.make_parser(ctx).parse_args(given)
        for each in parameters:
            value: Any = values.get(str(each.name))
            if "" in (value if isinstance(value, list | tuple) else [value]):
                name = _long_flag(each) or each.metavar
                raise UsageError(f"{name} is given an empty value", "check the shell variable that it comes from")
        return rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Without the braces that Typer puts around a required argument."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for each in self.get_params(ctx):
            if record := each.get_help_record(ctx):
                sections.setdefault(_section(each), []).append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def _offline_option() -> Any:
    """Every command takes it, and none needs to know."""
    from dragonfly_cli.options import OfflineOption

    def nothing(offline: OfflineOption = False) -> None: ...

    (option,) = as_command(nothing).params
    option.expose_value = False
    return option


def _section(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return "Arguments"
    return parameter.rich_help_panel or "Options"


def _long_flag(parameter: Any) -> str | None:
    return next((flag for flag in parameter.opts if flag.startswith("--")), None)
