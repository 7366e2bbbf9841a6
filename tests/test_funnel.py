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
    """A question in the place of a path, say."""
    question = "Is there a tumour, or is there none? " * 10
    photo = write_png(tmp_path / "photo.png")
    expect_error(dragonfly("info", question), 4, "too long")
    expect_error(dragonfly("ask", question, photo), 2, "photo.png is a file")
    expect_error(dragonfly("ask", photo, "Is it?", "--model", question), 2, "too long")
    expect_error(dragonfly("batch", photo, "-q", "Is it?", "-o", tmp_path / question), 2, "too long")


def test_debug_shows_the_traceback(tmp_path: Path, broken_reader: None) -> None:
    outcome = dragonfly("info", write_png(tmp_path / "photo.png"), "--debug")
    assert outcome.code == 1
    assert "Traceback" in outcome.stderr


def test_what_a_library_warns_of_is_not_shown() -> None:
    """It may quote a patient's name. What readers in threads do against it, they undo for each other."""
    run = """
import sys, warnings
from dragonfly_cli.main import main
sys.argv = ["dragonfly", "--version"]
try:
    main()
except SystemExit:
    pass
one, other = warnings.catch_warnings(), warnings.catch_warnings()
for reader in (one, other):
    reader.__enter__()
    warnings.simplefilter("ignore")
one.__exit__()
warnings.warn("Invalid value for VR PN: 'Secret'")
"""
    done = subprocess.run([sys.executable, "-W", "always", "-c", run], capture_output=True, text=True, check=True)
    assert (done.stdout.split()[0], done.stderr) == ("dragonfly", "")


def shell(command: str, *arguments: str | Path) -> tuple[int, str]:
    """Exit code and stderr of ``command``, in which ``"$@"`` is the program with its arguments."""
    run = ["bash", "-c", f"set -o pipefail; {command}", "bash", sys.executable, "-m", "dragonfly_cli", *arguments]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ('"$@" > /dev/full', 7),
        ('"$@" >&-', 7),
        ('"$@" --no-such-option 2> /dev/full', 2),
        ('"$@" --help > /dev/full', 7),
        ('"$@" --help | true', 0),
        ('"$@" 2>&1 | true', 0),
    ],
)
def test_streams_that_take_no_more(tmp_path: Path, command: str, code: int) -> None:
    found, stderr = shell(command, "info", write_png(tmp_path / "photo.png"))
    assert found == code
    assert not stderr or [line.split(":")[0] for line in stderr.splitlines()] == ["error", "hint"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_half_a_result_is_never_taken_for_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbuffered: str
) -> None:
    """A full disk takes a part of it, of which Python without buffers tells nobody."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    out = tmp_path / "out"
    for arguments in (("ask", "--help"), ("view", write_png(tmp_path / "photo.png"), "-o", "-")):
        code, stderr = shell(f'ulimit -f 1; "$@" > {out}', *arguments)
        assert (code, out.stat().st_size) == (7, 1024)
        assert stderr.startswith("error: cannot write") and "File too large" in stderr


def test_what_is_told_while_a_decoder_is_silenced_arrives() -> None:
    run = """
import os
from dragonfly_cli.output.streams import settle, tell
from dragonfly_cli.readers.dicom.codecs import quiet_decoders
settle()
with quiet_decoders():
    os.write(2, b"a remark of a decoder")
    tell("error: told")
"""
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True)
    assert done.stderr == "error: told\n"


def test_a_stdin_that_is_closed_is_empty(tmp_path: Path) -> None:
    code, stderr = shell('"$@" <&-', "batch", "-", "-q", "Is it?", "-o", tmp_path / "a.csv")
    assert code == 3
    assert stderr.startswith("error: no image below -\n")


def test_results_in_a_pipe_are_utf_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert shell('"$@" | grep -q Schädel', "info", write_png(tmp_path / "Schädel.png")) == (0, "")


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
