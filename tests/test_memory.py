"""Short of memory, an image is read in smaller parts, with the same answer; if even that fails, a row says so."""

import resource
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from batch_runs import QUESTIONS, bytes_of, rows_of, write_study
from hypothesis import given
from hypothesis import strategies as st
from layer_calls import room_for
from run_dragonfly import dragonfly
from transformers.models.clip.modeling_clip import CLIPEncoderLayer
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.engine.model import load_model
from dragonfly_med import modeling
from dragonfly_med.memory import in_parts, is_out_of_memory


@given(st.integers(0, 60), st.lists(st.integers(1, 60), min_size=1))
def test_every_place_is_computed_once_and_in_order_whatever_fits(length: int, room: list[int]) -> None:
    free = iter([*room, *[1] * 60])  # what fits may change from try to try

    def compute(start: int, end: int) -> list[int]:
        if end - start > next(free, 1):
            raise torch.OutOfMemoryError
        return list(range(start, end))

    assert [place for part in in_parts(length, compute) for place in part] == list(range(length))


def test_what_fits_is_computed_at_once_and_other_errors_are_not_taken_for_it() -> None:
    assert in_parts(29, lambda start, end: (start, end)) == [(0, 29)]
    assert in_parts(29, lambda start, end: (start, end), 41) == [(0, 29)]
    assert in_parts(29, lambda start, end: (start, end), 12) == [(0, 12), (12, 24), (24, 29)]
    with pytest.raises(torch.OutOfMemoryError):
        in_parts(4, raising(torch.OutOfMemoryError()))
    with pytest.raises(RuntimeError, match="shapes"):
        in_parts(4, raising(RuntimeError("shapes differ")))


def raising(error: Exception):
    def compute(start: int, end: int) -> None:
        raise error

    return compute


@contextmanager
def memory_left(size_bytes: int) -> Iterator[None]:
    """No more than that may be taken from the system beyond what this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to know the process's size")
def test_crops_that_do_not_fit_into_this_machine_at_once_have_the_same_features(monkeypatch) -> None:
    """In a process of its own: what earlier tests have freed would be room, and later ones need a sound oneDNN."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")  # a freed tensor goes back to the system at once
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")  # no thread sets room aside
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as own_process:
        own_process.submit(starve_the_encoder).result()


def starve_the_encoder() -> None:
    modeling.CROPS_OF_A_CPU = 232
    network = load_model(find_checkpoint("demo"), "cpu").network
    tower = network.image_encoder.vision_model
    tower.encoder.layers = tower.encoder.layers[:3]  # enough of it, in less time
    crops = torch.randn((1, 232, 3, 112, 112), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for count in (29, 58, 116):  # kernels are made at the first call with a shape, and fail for good without memory
            network.encode_crops(crops[:, :count])
        at_once = network.encode_crops(crops)
        layer_bytes = crops.shape[1] * 50 * 1024 * 4
        with memory_left(2 * layer_bytes):
            with pytest.raises(RuntimeError) as refused:
                network.image_encoder(crops[0])
            assert is_out_of_memory(refused.value)
            del refused  # its traceback keeps tensors of the pass that failed
            in_turn = network.encode_crops(crops)
    assert torch.equal(in_turn, at_once)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("data") / "study", images=2)


@pytest.fixture(scope="module")
def table(study: Path) -> Path:
    """Of a run with memory enough."""
    path = study.parent / "answers.csv"
    assert dragonfly("batch", study, *QUESTIONS, "-o", path).code == 8  # for the broken slide
    return path


@pytest.mark.parametrize("crops", [1, 8])
def test_a_run_short_of_memory_for_crops_has_the_same_rows(study, table, tmp_path: Path, crops: int) -> None:
    with room_for(CLIPEncoderLayer, 0, crops):
        assert dragonfly("batch", study, *QUESTIONS, "-o", tmp_path / "answers.csv").code == 8
    assert bytes_of(tmp_path / "answers.csv") == bytes_of(table)


def test_a_run_short_of_memory_for_the_sequence_has_the_same_answers(study: Path, table: Path, tmp_path: Path) -> None:
    with room_for(LlamaDecoderLayer, 1, 100):
        assert dragonfly("batch", study, *QUESTIONS, "-o", tmp_path / "answers.csv").code == 8
    for row, usual in zip(rows_of(tmp_path / "answers.csv"), rows_of(table), strict=True):
        assert (row["image"], row["answer"], row["error_code"]) == (
            usual["image"],
            usual["answer"],
            usual["error_code"],
        )
        if usual["p_yes"]:
            assert float(row["p_yes"]) == pytest.approx(float(usual["p_yes"]), abs=1e-5)


def test_without_any_memory_every_image_is_a_row_and_is_answered_later(study, table, tmp_path: Path) -> None:
    call = ("batch", study, *QUESTIONS, "-o", tmp_path / "answers.csv", "--retry-failed")
    with room_for(LlamaDecoderLayer, 1, 0):
        assert dragonfly(*call).code == 8
    assert {row["error_code"] for row in rows_of(tmp_path / "answers.csv")} == {"6", "4"}
    assert [row["image"] for row in rows_of(tmp_path / "answers.csv")] == [row["image"] for row in rows_of(table)]
    assert dragonfly(*call).code == 8
    assert bytes_of(tmp_path / "answers.csv") == bytes_of(table)
