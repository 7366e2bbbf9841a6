"""What a user sees when the program itself is wrong: two lines and exit code 1, a traceback with --debug only."""

import subprocess
import sys
from pathlib import Path

import pytest
from make_files import write_png
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.readers import raster


@pytest.fixture
def broken_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("Secret^Patient")

    monkeypatch.setattr(raster, "RasterSource", fail)


def test_a_bug_is_told_without_what_it_was_about(tmp_path: Path, broken_reader: None) -> None:
    outcome = dragonfly("info", write_png(tmp_path / "photo.png"))
    expect_error(outcome, 1, "a bug in dragonfly", "KeyError")
    assert "Secret" not in outcome.stderr


def test_what_is_too_long_for_a_file_name_is_no_bug(tmp_path: Path) -> None:
    """A question in the place of the image, say."""
    question = "Is there a tumour, or is there none? " * 10
    photo = write_png(tmp_path / "photo.png")
    expect_error(dragonfly("ask", question, photo), 4, "too long")
    expect_error(dragonfly("ask", photo, "Is it?", "--model", question), 2, "too long")
    expect_error(dragonfly("batch", photo, "-q", "Is it?", "-o", tmp_path / question), 2, "too long")


def test_debug_shows_the_traceback(tmp_path: Path, broken_reader: None) -> None:
    outcome = dragonfly("info", write_png(tmp_path / "photo.png"), "--debug")
    assert outcome.code == 1
    assert "Traceback" in outcome.stderr


def test_a_reader_that_stops_reading_is_no_error(tmp_path: Path) -> None:
    path = write_png(tmp_path / "photo.png")
    command = subprocess.Popen(
        [sys.executable, "-m", "dragonfly_cli", "info", path, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert command.stdout and command.stderr
    command.stdout.close()
    assert command.stderr.read() == b""
    assert command.wait(60) == 0
    command.stderr.close()
