"""Runs the real command in this process and gives back what a user would see."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from dragonfly_cli.main import app


@dataclass(frozen=True)
class Outcome:
    """Exit code and both streams of one call."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def error_lines(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if not line.startswith(("note: ", "warning: ", "question: "))]


def dragonfly(*arguments: str | Path, stdin: str | bytes | None = None) -> Outcome:
    """``dragonfly ARGUMENTS... < stdin``"""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    return Outcome(result.exit_code, result.stdout, result.stderr)


def expect_error(outcome: Outcome, code: int, *words: str) -> None:
    """Two lines on stderr, ``error:`` with all ``words`` and ``hint:``; nothing on stdout, no traceback."""
    assert outcome.code == code, outcome.stderr
    assert outcome.stdout == ""
    error, hint = outcome.error_lines
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    assert len(hint) > len("hint: ")
    for word in words:
        assert word in error, error
