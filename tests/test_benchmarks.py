"""The benchmarks of loading and of cards run, small, and say plainly what they cannot measure."""

import json
import runpy
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
from batch_runs import TINY

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(name: str, *arguments: str | Path) -> str:
    """What a benchmark prints without a card, in this process, which has imported what takes longer than most run."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as told:
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        patch.setattr(sys, "path", sys.path.copy())
        patch.setattr(torch.cuda, "is_available", lambda: False)
        runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    return told.getvalue()


def test_without_a_gpu_the_gpu_benchmark_says_so_and_ends_well(tmp_path: Path) -> None:
    output = run("gpu.py", "--output", tmp_path / "gpu.json")
    assert "there is no GPU" in output
    assert not (tmp_path / "gpu.json").exists()


@pytest.mark.slow
def test_the_gpu_benchmark_s_steps_work(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    run("gpu.py", "--rehearse", "--networks", "v1", "--tokens", "3", "--output", tmp_path / "gpu.json")
    report = json.loads((tmp_path / "gpu.json").read_text())
    network = report["networks"]["v1"]
    assert network["prompt_tokens"] == 17 * (50 + 1) + 64
    assert network["decoded_tokens"] == 3  # random weights may choose a stop token at once
    assert {product["rows"] for product in report["products"]} == {1, 8, 32, 256, 2048}


@pytest.mark.slow
def test_loading_takes_no_more_memory_than_the_files_have() -> None:
    """Of the ratios this one does not depend on how busy the machine is."""
    pytest.importorskip("bitsandbytes")
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak cannot be measured here")
    lines = run("load.py", "--megabytes", "20", "--rounds", "1", "--skip-transformers").splitlines()
    (memory,) = (line for line in lines if line.startswith("memory: ours"))
    assert float(memory.removeprefix("memory: ours ").split(",")[0]) <= 1.5  # 1.2 from 64 MB on
    assert any(line.startswith("cold: ours") for line in lines)


def test_the_dicom_benchmark_shows_what_pydicom_shows_and_opens_one_file() -> None:
    """Its ratios depend on how busy the machine is; these two do not."""
    lines = run("dicom.py", "--side", "300", "--slices", "12", "--rounds", "1").splitlines()
    figures = dict(line.rsplit(": ", 1) for line in lines if ": " in line)
    assert float(figures["display, largest difference in grey levels (target 1)"]) <= 1
    (one_slice,) = (line for line in lines if line.startswith("one slice"))
    assert one_slice.endswith("files opened (target 1): 1")
    assert "index, rate beside dcmread alone (target 0.8)" in figures


@pytest.mark.slow
def test_a_batch_is_compared_with_its_stages() -> None:
    lines = run("batch.py", "stages", "--images", "5", "--model", "tiny").splitlines()
    assert len(lines) == 1


@pytest.mark.slow
def test_a_batch_is_compared_with_asking_each_question_by_itself() -> None:
    """One of the asks starts a process of its own for each question, which is why there is one image."""
    lines = run("batch.py", "asks", "--images", "1", "--questions", "1", "--model", "tiny").splitlines()
    assert lines[0].startswith("batch of 1 images, questions of each 1: ")
    assert "; asks in one process " in lines[0]
    assert lines[1].startswith("one process each, ")


@pytest.mark.slow
def test_a_second_question_costs_little() -> None:
    """Both are measured in turn on the same machine, and the target has room: 0.15, where 0.03 is usual."""
    ratio = float(run("questions.py", "--rounds", "3").split("ratio ")[1])
    assert ratio <= 0.15


@pytest.mark.slow
def test_answers_are_the_same_and_sooner_there_when_they_are_written_together() -> None:
    """Both in turn, in time on the processor; a GPU gains more."""
    line = run("together.py", "captions", "--rounds", "1").splitlines()[1]
    assert line.startswith("8 captions of 64 tokens, demo on cpu: ") and line.endswith("; same ids: True")
    assert float(line.split("ratio ")[1].split(";")[0]) > 1


@pytest.mark.slow
def test_what_computing_together_would_cost_is_told() -> None:
    lines = run("together.py", "questions", "--rounds", "1").splitlines()
    assert lines[1].startswith("logits differ by ")
    assert lines[2].startswith("8 questions in one batch: ")


@pytest.mark.slow
def test_the_search_benchmark_compares_all_ways() -> None:
    """How much each looks at does not depend on what the network knows."""
    slides = ("--slides", "2", "--side", "2560")
    lines = run("slide_search.py", *slides, "--budget", "4", "--model", str(TINY)).splitlines()
    ways = {line.split()[0]: line for line in lines[1:]}
    assert list(ways) == ["exhaustive", "thumbnail", "spread", "likeness", "contrast", "odd", "yes", "auto"]
    crops = {way: float(line.split()[-1]) for way, line in ways.items()}
    assert crops["exhaustive"] == 1 and crops["thumbnail"] < crops["spread"] < crops["auto"] < 1
