"""Wherever the network runs, its threads wait without keeping the core from those that read ahead."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from batch_runs import QUESTIONS, TINY
from make_files import write_png

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


def policies(folder: Path, *arguments: str | Path) -> list[str]:
    """What every process of ``dragonfly ARGUMENTS...`` that imports torch has found."""
    told = folder / "told"
    (folder / "sitecustomize.py").write_text(AT_TORCH.format(told=str(told)))
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [environment.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "dragonfly_cli", *map(str, arguments)]
    subprocess.run(command, env=environment, capture_output=True, check=True, timeout=300)
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
    image = write_png(tmp_path / "a.png")
    batch = ("batch", image, *QUESTIONS, "-o")
    assert policies(tmp_path, "ask", image, "Is it?", "-m", TINY) == ["passive"]
    assert policies(tmp_path, *batch, tmp_path / "two.csv", "--workers", "2") == ["passive"] * 2
    pytest.importorskip("ray")
    assert policies(tmp_path, *batch, tmp_path / "ray.csv", "--engine", "ray") == ["passive"]
