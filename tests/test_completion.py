"""The Tab key, in a real bash whose home folder is a new one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """#!{python}
from dragonfly_cli.main import main
main()
"""

COMPLETE = """
tab() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _dragonfly_completion dragonfly; echo "${COMPREPLY[*]}"; }
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the program in a folder of ``PATH``."""
    if not shutil.which("bash"):
        pytest.skip("there is no bash")
    program = tmp_path / "bin" / "dragonfly"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    return tmp_path / "home"


def bash(lines: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["bash", "--norc", "-c", f"{lines}\nexit $?"], capture_output=True, text=True)


def test_options_commands_and_values_are_completed_and_the_rest_is_file_names(home: Path) -> None:
    told = bash(
        f"""dragonfly --install-completion > /dev/null && . ~/.bashrc && {COMPLETE.strip()}
        tab dragonfly ask '""' --time
        tab dragonfly model ver
        tab dragonfly view --what c
        tab dragonfly ask slide.
        complete -p dragonfly"""
    )
    assert told.stderr == ""
    *completed, rule = told.stdout.splitlines()
    assert completed == ["--time-limit", "verify", "crops", ""]
    assert "-o default" in rule  # where nothing is offered, bash takes the names of files


def test_a_home_folder_that_cannot_be_written_is_told(home: Path) -> None:
    home.write_text("a file")
    told = bash("dragonfly --install-completion")
    assert (told.returncode, told.stdout) == (7, "")
    error, hint = told.stderr.splitlines()
    assert error.startswith(f"error: cannot write {home}") and "--show-completion" in hint
