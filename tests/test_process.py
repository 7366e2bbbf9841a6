"""How every process of the program begins, be it that of the command, of a worker, or of an actor."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from batch_runs import QUESTIONS, TINY
from make_files import write_png
from run_dragonfly import dragonfly, expect_error

# Tells what OpenMP will read, when a process imports torch: that of the command, of a worker, or of an actor.
AT_TORCH = """
import os, sys
class AtTorch:
    def find_spec(self, name, *_):
        if name == "torch":
            with open({told!r}, "a") as file:
                print(os.environ.get("OMP_WAIT_POLICY"), file=file)
            sys.meta_path.remove(self)
sys.meta_path.insert(0, AtTorch())
"""


# An unexpected failure of the processes of a batch, whose text may quote a file.
WORKERS_FAIL = """
import sys
if any("spawn_main" in word for word in sys.orig_argv):
    class Failing:
        def find_spec(self, name, *_):
            if name == "torch":
                raise RuntimeError("JANE DOE")
    sys.meta_path.insert(0, Failing())
"""

# As in a container whose disk cannot be written to.
NO_TEMPORARY_FOLDER = "import tempfile; tempfile._candidate_tempdir_list = list"


def run(folder: Path, beginning: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """``dragonfly ARGUMENTS...``, where every process of it begins with this code."""
    (folder / "sitecustomize.py").write_text(beginning)
    settled = ("OMP_WAIT_POLICY", "TORCHINDUCTOR_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in settled}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [environment.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "dragonfly_cli", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def policies(folder: Path, *arguments: str | Path, beginning: str = "") -> list[str]:
    """What every process of ``dragonfly ARGUMENTS...`` that imports torch has found."""
    told = folder / "told"
    done = run(folder, beginning + AT_TORCH.format(told=str(told)), *arguments)
    assert done.returncode == 0, done.stderr
    found = told.read_text().split()
    told.unlink()
    return found


def test_nothing_is_settled_where_the_program_is_a_library() -> None:
    program = (
        "import os; before = dict(os.environ); import dragonfly_cli.main, dragonfly_cli.batch.job; "
        "from dragonfly_cli.engine import checkpoints; assert before == os.environ"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.slow
def test_it_is_settled_before_torch_is_imported(tmp_path: Path) -> None:
    """Also where nothing temporary can be written."""
    image = write_png(tmp_path / "a.png")
    batch = ("batch", image, *QUESTIONS, "-o")
    assert policies(tmp_path, "ask", image, "Is it?", "-m", TINY) == ["passive"]
    two = policies(tmp_path, *batch, tmp_path / "two.csv", "--workers", "2", beginning=NO_TEMPORARY_FOLDER)
    assert two == ["passive"] * 2
    pytest.importorskip("ray")
    assert policies(tmp_path, *batch, tmp_path / "ray.csv", "--engine", "ray") == ["passive"]


def test_an_eval_that_has_no_place_for_its_answers_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", list)
    expect_error(dragonfly("eval", tmp_path / "rows.jsonl"), 7, "temporary files")


def test_an_unexpected_failure_of_workers_is_told_in_two_lines(tmp_path: Path) -> None:
    image = write_png(tmp_path / "a.png")
    failed = run(tmp_path, WORKERS_FAIL, "batch", image, *QUESTIONS, "-o", tmp_path / "a.csv", "--workers", "2")
    assert failed.returncode == 1
    assert "error: this is a bug in dragonfly: RuntimeError in sitecustomize.py, line 7\nhint: " in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "JANE" not in failed.stderr
