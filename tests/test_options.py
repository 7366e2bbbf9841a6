"""What holds for the options of every command: a name in the environment, and a place in the help."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from make_files import write_png
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.main import app


def all_commands(group: Any = None) -> Iterator[Any]:
    for command in (group or typer.main.get_command(app)).commands.values():
        yield from all_commands(command) if hasattr(command, "commands") else [command]


def test_every_option_has_its_environment_variable() -> None:
    options = [each for command in all_commands() for each in command.params if each.param_type_name == "option"]
    assert len(options) > 100
    for each in options:
        flags = [flag[2:].replace("-", "_").upper() for flag in each.opts if flag.startswith("--")]
        assert [each.envvar] == [f"DRAGONFLY_{flag}" for flag in flags]


def test_the_environment_sets_an_option_and_the_command_line_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = write_png(tmp_path / "photo.png")
    monkeypatch.setenv("DRAGONFLY_JSON", "1")
    assert dragonfly("info", photo).json["format"] == "PNG"
    monkeypatch.setenv("DRAGONFLY_WINDOW", "no window")
    expect_error(dragonfly("info", photo), 2, "no window")
    expect_error(dragonfly("info", photo, "--window", "lung"), 2, "--window is for DICOM")
    expect_error(dragonfly("info", photo, "--window", "1" + "0" * 5000), 2, "is not a window")


def test_a_wrong_value_from_the_environment_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = ("ask", tmp_path / "none.png", "Is it?")
    expect_error(dragonfly(*ask, "--rank", "16"), 2, "'--rank'")
    assert "DRAGONFLY_RANK" not in dragonfly(*ask, "--rank", "16").stderr
    monkeypatch.setenv("DRAGONFLY_RANK", "16")
    expect_error(dragonfly(*ask), 2, "'--rank'", "'16'", "from DRAGONFLY_RANK in the environment")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("ask", "", "Is it?"), "IMAGE"),
        (("ask", "a.png", ""), "QUESTION"),
        (("ask", "a.png", "Is it?", "--model", ""), "--model"),
        (("ask", "a.png", "Is it?", "--overlay="), "--overlay"),
        (("ask", "a.png", "Is it?", "-o", ""), "--output"),
        (("ask", "a.png", "Is it?", "--region", "0,0,9,9", "--region", ""), "--region"),
        (("batch", "a.png", "", "-o", "a.csv"), "SOURCE"),
        (("batch", "a.png", "-o", "a.csv", "--evidence", ""), "--evidence"),
        (("finetune", "", "-o", "tuned"), "DATA"),
        (("model", "convert", ""), "DIR"),
    ],
)
def test_an_empty_value_is_not_taken_for_this_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], name: str
) -> None:
    """Of a shell variable that is not set, say."""
    write_png(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    expect_error(dragonfly(*arguments), 2, name, "empty")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_help_has_a_section_for_each_group_of_options() -> None:
    told = dragonfly("ask", "--help").stdout
    places = [
        told.index(part)
        for part in (
            "Arguments:",
            "What to ask",
            "Options:",
            "--questions",
            "How the image is opened:",
            "--window",
            "Where the model looks:",
            "--region",
            "--debug as DRAGONFLY_DEBUG=1",
        )
    ]
    assert places == sorted(places)
    assert told.count("--window ") == 1


def test_help_says_what_to_put_in_the_place_of_a_value() -> None:
    told = dragonfly("batch", "--help").stdout
    assert "batch [OPTIONS] SOURCE...\n" in told
    for option in ("--budget N", "--mpp NUMBER", "--model TEXT", "--records PATH", "--region X,Y,W,H"):
        assert f"{option} " in told


def test_one_option_may_stand_in_another_section_of_another_command() -> None:
    """``--model`` belongs to what answers, to what is drawn, and in ``doctor`` to nothing in particular."""
    headings = {}
    for command in ("ask", "view", "doctor"):
        before = dragonfly(command, "--help").stdout.partition("--model")[0]
        headings[command] = [line for line in before.splitlines() if line and not line.startswith(" ")][-1]
    assert headings["ask"].startswith("Which model answers")
    assert headings["view"].startswith("What view draws")
    assert headings["doctor"] == "Options:"


@pytest.mark.parametrize("group", [(), ("model",), ("template",)])
def test_a_command_is_described_in_one_whole_line(group: tuple[str, ...]) -> None:
    listed = dragonfly(*group, "--help").stdout.partition("Commands:")[2].splitlines()
    assert len([line for line in listed if line.strip()]) > 1
    assert not [line for line in listed if line.endswith("...")]


@pytest.mark.parametrize("command", [("model", "list"), ("template", "list"), ("ask", "photo.png", "Is it?")])
def test_a_user_without_a_home_is_told_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """As in containers whose user the system does not know."""

    def unknown(path: Path) -> Path:
        raise RuntimeError("could not determine home directory")

    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "DRAGONFLY_MODELS", "DRAGONFLY_TEMPLATES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "expanduser", unknown)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    write_png(tmp_path / "photo.png")
    expect_error(dragonfly(*command), 2, "this user has no home folder")
