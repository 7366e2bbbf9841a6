"""How every process of the program begins, be it that of the command, of a worker, or of an actor."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from batch_runs import QUESTIONS
from make_files import write_png
from run_dragonfly import dragonfly, expect_error

# Tells what OpenMP will read when a process imports torch, be it the command's, a worker's, or an actor's, and lets the
# import fail, which spares the time that it takes. The failure's text may quote a file.
AT_TORCH = """
import os, sys
class AtTorch:
    def find_spec(self, name, *_):
        if name == "torch":
            with open({told!r}, "a") as file:
                print(os.environ.get("OMP_WAIT_POLICY"), file=file)
            raise RuntimeError("JANE DOE")
sys.meta_path.insert(0, AtTorch())
"""


def run(folder: Path, beginning: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """``dragonfly ARGUMENTS...``, where every process of it begins with this code."""
    (folder / "sitecustomize.py").write_text(beginning)
    settled = ("OMP_WAIT_POLICY", "TORCHINDUCTOR_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in settled}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [environment.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "dragonfly_cli", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_nothing_is_settled_where_the_program_is_a_library() -> None:
    program = (
        "import os; before = dict(os.environ); import dragonfly_cli.main, dragonfly_cli.batch.job; "
        "from dragonfly_cli.engine import checkpoints; assert before == os.environ"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "processes"), [([], 1), (["--workers", "2"], 2), (["--engine", "ray"], 1)], ids=["one", "two", "ray"]
)
def test_it_is_settled_before_torch_is_imported_whose_failure_is_told_in_two_lines(
    tmp_path: Path, more: list[str], processes: int
) -> None:
    if "ray" in more:
        pytest.importorskip("ray")
    image, told = write_png(tmp_path / "a.png"), tmp_path / "told"
    beginning = AT_TORCH.format(told=str(told))
    call = ("batch", image, *QUESTIONS, "-o", tmp_path / "a.csv", *more)
    failed = run(tmp_path, beginning, *call)
    assert told.read_text().split() == ["passive"] * processes
    assert failed.returncode == 1
    assert "error: this is a bug in dragonfly: RuntimeError in sitecustomize.py, line 8\nhint: " in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "JANE" not in failed.stderr
    if "2" in more:
        assert "import torch\n" in run(tmp_path, beginning, *call, "--debug").stderr  # the traceback of a worker


def test_an_eval_that_has_no_place_for_its_answers_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", list)
    expect_error(dragonfly("eval", tmp_path / "rows.jsonl"), 7, "temporary files")
