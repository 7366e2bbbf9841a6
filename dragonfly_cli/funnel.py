"""The one place where an error becomes two lines on stderr and an exit code.

It behaves the same in the shell and under a test runner. A traceback is shown with ``--debug`` only, because the
text of an unexpected exception could hold something that was read from a patient's file.
"""

import errno
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from dragonfly_cli.errors import BugError, DragonflyError, OutputError, UsageError
from dragonfly_cli.option_groups import WRONG_USAGE
from dragonfly_cli.output.control_characters import harmless
from dragonfly_cli.output.files import NO_ROOM, storable
from dragonfly_cli.output.streams import discard, tell

DEBUG_KEY = "dragonfly.debug"  # in a context's ``meta``: whether ``--debug`` was given

_SHOWN_LETTERS = 40  # of a path that is none


class ErrorFunnel(TyperGroup):
    """A command group whose commands end in an exit code of the contract, whatever happens in them."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        try:
            with _usage_errors(info_name), _output_may_fail():  # a help page is written here
                return super().make_context(info_name, args, parent=parent, **extra)
        except OSError as error:  # of --install-completion
            what = error.filename or "the output"
            _two_lines(f"cannot write {what}: {error.strerror}", "put there what --show-completion prints")
            raise typer.Exit(OutputError.exit_code) from error

    def invoke(self, ctx: Any) -> Any:
        try:
            with _usage_errors(ctx.info_name), _output_may_fail():
                return super().invoke(ctx)
        except DragonflyError as error:
            _show(ctx, error.message, error.hint)
            raise typer.Exit(error.exit_code) from error
        except (typer.Exit, typer.Abort, KeyboardInterrupt, WRONG_USAGE):  # of the last, only the help page is left
            raise
        except Exception as error:
            if getattr(error, "errno", None) == errno.ENAMETOOLONG:  # a question, say, where a path belongs
                name = str(getattr(error, "filename", ""))[:_SHOWN_LETTERS]
                _show(ctx, f"{name}... is too long for the name of a file", "check the order of the arguments")
                raise typer.Exit(UsageError.exit_code) from error
            bug = BugError.of(error)
            _show(ctx, bug.message, bug.hint)
            raise typer.Exit(bug.exit_code) from error


@contextmanager
def _output_may_fail() -> Iterator[None]:
    """The reader of our output may have gone, as `| head` does, which is no error; a full disk is one."""
    try:
        yield
    except BrokenPipeError:
        discard(sys.stdout)
        raise typer.Exit(0) from None
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        discard(sys.stdout)
        _two_lines(f"cannot write: {error.strerror}", "make room, or write elsewhere with --output")
        raise typer.Exit(OutputError.exit_code) from error


@contextmanager
def _usage_errors(program: str | None) -> Iterator[None]:
    try:
        yield
    except WRONG_USAGE as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # no arguments at all: its message is the help page
            raise
        command = error.ctx.command_path if error.ctx else program
        message = _lower_first(error.format_message().rstrip(".")) + _where_it_was_set(error)
        _two_lines(message, f"{command} --help shows how it is used")
        raise typer.Exit(UsageError.exit_code) from error


def _where_it_was_set(error: Any) -> str:
    """The environment variable that a wrong value comes from, which the user may have forgotten."""
    parameter = getattr(error, "param", None)
    if parameter is None or error.ctx is None:
        return ""
    source = error.ctx.get_parameter_source(parameter.name)
    return f" (from {parameter.envvar} in the environment)" if source and source.name == "ENVIRONMENT" else ""


def _show(ctx: Any, message: str, hint: str) -> None:
    if ctx.meta.get(DEBUG_KEY):
        traceback.print_exc()
    _two_lines(message, hint)


def _two_lines(message: str, hint: str) -> None:
    one_line, hint_line = (harmless(" ".join(text.split())) for text in (message, hint))
    tell(storable(f"error: {one_line}\nhint: {hint_line}"))


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
