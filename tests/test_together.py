"""Free answers are written several at a time, and say what they say when each is asked for alone."""

import json
import os
import shutil
import signal
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batch_runs import QUESTIONS, TINY, bytes_of, rows_of, start, wait_for, write_study
from layer_calls import crops_encoded, room_for, rows_written, seconds_are_passes
from make_files import write_dicom, write_png
from run_dragonfly import Outcome, dragonfly, expect_error
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from dragonfly_med.generation import Prefilled, Reading

SLIDE = Path(__file__).parents[1] / "examples" / "slide.svs"
REGIONS = ("0,0,600,400", "700,500,500,500", "300,900,800,300")
KIND, ORGAN = "What kind of image is this?", "Which organ is shown?"
DRAWN = ("--temperature", "1.5", "--max-tokens", "10")  # so that answers differ more than the likeliest ones do
QUICK = (*DRAWN, "-m", TINY)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three frames: even, a slope, and noise."""
    slope = np.tile(np.arange(0, 240, 3, dtype=np.uint8), (60, 1))
    noise = np.random.default_rng(0).integers(0, 255, (60, 80), np.uint8)
    return write_dicom(tmp_path_factory.mktemp("clip") / "clip.dcm", np.stack([np.full_like(slope, 90), slope, noise]))


def without_timing(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"timing": None}


def answers_of(record: dict[str, Any]) -> list[str]:
    return [field["answer"] for field in record["fields"]]


def test_all_answers_about_an_image_are_those_of_each_question_about_each_frame(clip: Path) -> None:
    with rows_written() as rows:
        records = dragonfly("ask", clip, KIND, ORGAN, *QUICK, "--control", "blank", "--json").json
    assert max(rows) == 8  # of three frames and three controls with two questions each: eight, then four
    for record in records:
        call = ("ask", clip, record["question"], *QUICK, "--json")
        with rows_written() as rows:
            alone = [dragonfly(*call, "--frame", frame).json for frame in ("0", "1", "2")]
        assert set(rows) == {1}
        assert answers_of(record) == [each["answer"] for each in alone]
        assert min(record["timing"][of] for of in ("read_s", "encode_s", "generate_s", "control_s")) > 0


def test_a_description_of_regions_is_that_of_each_region() -> None:
    regions = [word for region in REGIONS for word in ("--region", region)]
    record = dragonfly("caption", SLIDE, *regions, *DRAWN, "--json").json
    alone = [dragonfly("caption", SLIDE, "--region", region, *DRAWN, "--json").json for region in REGIONS]
    assert answers_of(record) == [each["answer"] for each in alone]
    assert [field["selected"] for field in record["fields"]] == [each["fields"][0]["selected"] for each in alone]
    late = dragonfly("caption", SLIDE, *regions, *DRAWN, "--time-limit", "0.001", "--json").json
    assert answers_of(late) == [alone[0]["answer"]]
    assert "--time-limit: 2 fields were not looked at in time" in late["warnings"]


def test_answers_are_told_in_the_order_of_the_questions() -> None:
    call = ("ask", SLIDE, "--region", REGIONS[1], "Is it an X-ray?", KIND, "Is there a tumour?", ORGAN)
    records = dragonfly(*call, "--json").json
    lines = dragonfly(*call).stdout.splitlines()
    assert [line.split(" (p ")[0] for line in lines] == [record["answer"] for record in records]
    assert records[1]["answer"] != records[3]["answer"]


def test_schemas_are_obeyed_by_every_answer(clip: Path, tmp_path: Path) -> None:
    schema = {"enum": ["scan", "a photograph of something", "neither of these two"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    call = ("ask", clip, KIND, "--schema", tmp_path / "schema.json", "--temperature", "9", "-m", TINY, "--json")
    record = dragonfly(*call).json
    assert {json.loads(answer) for answer in answers_of(record)} <= set(schema["enum"])
    assert answers_of(record) == [dragonfly(*call, "--frame", str(frame)).json["answer"] for frame in range(3)]


@contextmanager
def room_for_prompts(most: int) -> Iterator[None]:
    """A device whose memory is full when more than so many prompts are kept that were read."""
    forward, prefilled = LlamaDecoderLayer.forward, Reading.prefilled
    kept: list[weakref.ref[Prefilled]] = []

    def watched(self: Reading, ids: list[int]) -> Prefilled:
        read = prefilled(self, ids)
        kept.append(weakref.ref(read))
        return read

    def with_little_memory(self: torch.nn.Module, *hidden, **options):
        if sum(each() is not None for each in kept) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, *hidden, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LlamaDecoderLayer, "forward", with_little_memory)
        patch.setattr(Reading, "prefilled", watched)
        yield


@pytest.mark.parametrize("most", [2, 0])
def test_what_was_read_is_given_up_where_it_leaves_no_room(clip: Path, most: int) -> None:
    call = ("ask", clip, KIND, ORGAN, *QUICK, "--json")
    usual = [answers_of(record) for record in dragonfly(*call).json]
    with room_for_prompts(most):
        assert [answers_of(record) for record in dragonfly(*call).json] == usual


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine images: one is broken, and one can be opened, but its pixels cannot be read."""
    folder = write_study(tmp_path_factory.mktemp("data") / "study", images=6)
    (folder / "002").mkdir()
    write_dicom(folder / "002" / "cut.dcm", np.zeros((40, 50), np.uint8), PixelData=bytes(100))
    return folder


def run(study: Path, table: Path, *more: str | Path) -> Outcome:
    table.parent.mkdir(exist_ok=True)
    questions = (*QUESTIONS, "-q", "Is it normal?")
    return dragonfly("batch", study, *questions, *more, "-o", table, "--records", table.with_suffix(".jsonl"))


@pytest.fixture(scope="module")
def alone(study: Path) -> Path:
    """The table of a run in which no row depends on another."""
    table = study.parent / "alone" / "answers.csv"
    assert run(study, table).code == 8
    return table


@pytest.fixture(scope="module")
def together(study: Path) -> Path:
    """That of one with four images at a time, and evidence."""
    table = study.parent / "together" / "answers.csv"
    with rows_written() as rows:
        assert run(study, table, "--together", "4", "--evidence", table.with_name("evidence")).code == 8
    assert max(rows) == 4 and 2 in rows  # two of the first group are broken
    return table


def test_a_batch_of_groups_has_the_rows_of_one_without(alone: Path, together: Path, study: Path) -> None:
    assert bytes_of(together) == bytes_of(alone)
    failed = [row for row in rows_of(together) if row["status"] == "failed"]
    assert [Path(row["image"]).name for row in failed] == ["001-broken.svs"] * 3 + ["cut.dcm"] * 3
    records = [json.loads(line) for line in together.with_suffix(".jsonl").read_text().splitlines()]
    drawn = {record["evidence_files"]["overlay"] for record in records if record["status"] == "ok"}
    assert drawn == {file.name for file in together.with_name("evidence").glob("*.png")} and len(drawn) == 7


def test_crops_of_a_group_are_encoded_in_one_pass(study: Path, alone: Path, tmp_path: Path) -> None:
    """As on a GPU; a CPU takes those of one image at a time."""
    with crops_encoded(most=1000) as counts:
        assert run(study, tmp_path / "answers.csv", "--together", "4").code == 8
    an_image = 29
    assert counts == [2 * an_image, 4 * an_image, *[an_image] * 3]  # two of the first group are broken; a film's frames
    assert bytes_of(tmp_path / "answers.csv") == bytes_of(alone)


def test_neighbours_take_no_time_from_second_looks(tmp_path: Path) -> None:
    """For the second question there is no time left, which is told of it alone."""
    looking = ("--budget", "4", "--rank", "spread", "--aggregate", "confirmed", "--time-limit", "3.5", "-m", TINY)
    slides = (SLIDE, SLIDE.with_name("slide_necrosis.svs"))
    first, second = [], []
    for name, more in (("alone", ()), ("together", ("--together", "2"))):
        files = ("-o", tmp_path / f"{name}.csv", "--records", tmp_path / f"{name}.jsonl")
        with seconds_are_passes():
            assert dragonfly("batch", *slides, "-q", "Is it normal?", "-q", ORGAN, *looking, *files, *more).code == 0
        records = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        first.append([without_timing(record) for record in records[::2]])
        second.append(records[1::2])
    assert first[0] == first[1]
    assert [record["aggregate"] for record in first[1]] == ["confirmed"] * 2
    for records, late in ((first[1], 0), (second[1], 1)):
        assert [" ".join(record["warnings"]).count("--time-limit") for record in records] == [late] * 2


def test_what_is_encoded_together_counts_once(tmp_path: Path) -> None:
    """The crops of both images take two passes, for the first question; the second one finds them encoded."""
    for name in ("a.png", "b.png"):
        write_png(tmp_path / name, (60, 40))
    asked = ("-q", "Is it normal?", "-q", "Is it pink?", "-m", TINY, "--together", "2")
    with seconds_are_passes():
        dragonfly("batch", tmp_path, *asked, "-o", tmp_path / "answers.csv", "--records", tmp_path / "answers.jsonl")
    records = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [record["timing"]["encode_s"] for record in records] == [1, 0] * 2


def test_cut_off_within_a_group_it_ends_the_same(together: Path, study: Path, tmp_path: Path) -> None:
    shutil.copytree(together.parent, tmp_path / "run")
    table = tmp_path / "run" / "answers.csv"
    rows, evidence = table.read_bytes().splitlines(keepends=True), ("--evidence", together.with_name("evidence"))
    for held in (4, 18):  # one image of the first group, and one and a part of the second group
        table.write_bytes(b"".join(rows[:held]))
        outcome = run(study, table, "--together", "4", *evidence)
        assert outcome.code == 8, outcome.stderr
        assert f"{(held - 1) // 3} of 9 images are done" in outcome.stderr
        assert bytes_of(table) == bytes_of(together)
    for other in ((), ("--together", "2")):
        expect_error(run(study, table, *other, *evidence), 7, "answers.csv", "together")


@pytest.mark.parametrize("most", [2, 1])
def test_a_batch_short_of_memory_has_the_same_rows(study: Path, alone: Path, tmp_path: Path, most: int) -> None:
    with room_for(LlamaDecoderLayer, 0, most), rows_written() as rows:
        assert run(study, tmp_path / "answers.csv", "--together", "4").code == 8
    assert bytes_of(tmp_path / "answers.csv") == bytes_of(alone)
    assert max(rows) > most


def test_without_any_memory_to_write_the_group_is_asked_image_by_image(study, alone, tmp_path: Path) -> None:
    with room_for_prompts(0):
        assert run(study, tmp_path / "answers.csv", "--together", "4").code == 8
    for row, usual in zip(rows_of(tmp_path / "answers.csv"), rows_of(alone), strict=True):
        assert (row["image"], row["answer"], row["status"]) == (usual["image"], usual["answer"], usual["status"])
        assert float(row["p_yes"] or 0) == pytest.approx(float(usual["p_yes"] or 0), abs=1e-5)  # read a second time


@contextmanager
def interrupted_while_writing(times: int) -> Iterator[None]:
    """Ctrl-C is pressed so often in the midst of the first answers that are written together."""
    forward = LlamaDecoderLayer.forward
    left = [times]

    def interrupted(self: torch.nn.Module, hidden: torch.Tensor, *more, **options):
        while hidden.shape[0] > 1 and hidden.shape[1] == 1 and left[0]:
            left[0] -= 1
            signal.raise_signal(signal.SIGINT)
        return forward(self, hidden, *more, **options)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LlamaDecoderLayer, "forward", interrupted)
            yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_first_interrupt_finishes_the_group_in_hand_and_the_second_none(
    study: Path, alone: Path, tmp_path: Path
) -> None:
    table = tmp_path / "answers.csv"
    for times, images in ((2, 0), (1, 4)):
        with interrupted_while_writing(times):
            outcome = run(study, table, "--together", "4")
        assert outcome.code == 130, outcome.stderr
        assert outcome.stderr.count("note: ending after the group in hand; Ctrl-C again ends now") == 1
        assert len(rows_of(table)) == 3 * images
    outcome = run(study, table, "--together", "4")
    assert "4 of 9 images are done" in outcome.stderr
    assert bytes_of(table) == bytes_of(alone)


@pytest.mark.slow
def test_shards_of_groups_are_merged_into_the_table_of_one_run(study: Path, alone: Path, tmp_path: Path) -> None:
    """Whose groups hold other neighbours than its own would."""
    parts = [tmp_path / f"part{number}.csv" for number in (1, 2)]
    for number, part in enumerate(parts, start=1):
        with rows_written() as rows:
            run(study, part, "--together", "2", "--shard", f"{number}/2")
        assert 2 in rows
    whole = tmp_path / "answers.csv"
    assert dragonfly("merge", *parts, "-o", whole, "--records", whole.with_suffix(".jsonl")).code == 8
    for file in (whole, whole.with_suffix(".jsonl")):
        assert bytes_of(file) == bytes_of(alone.with_name(file.name))
    assert "9 of 9 images are done" in run(study, whole, "--together", "2").stderr
    other = tmp_path / "other.csv"
    run(study, other, "--shard", "2/2")
    expect_error(dragonfly("merge", parts[0], other, "-o", tmp_path / "x.csv"), 4, "other.csv", "together")


@pytest.mark.slow
def test_workers_take_whole_groups_and_finish_those_in_hand(tmp_path: Path) -> None:
    """Ctrl-C reaches all processes that were started for the run, too."""
    call = ("batch", write_study(tmp_path / "study", images=22), *QUESTIONS, "--together", "4", "-o")
    first = start(*call, tmp_path / "answers.csv", "--workers", "2")
    wait_for(first, "001-broken")
    os.killpg(first.pid, signal.SIGINT)
    wait_for(first, "note: ending after the group in hand")
    assert first.wait() == 130
    rows = rows_of(tmp_path / "answers.csv")
    assert 8 <= len(rows) < 48 and len(rows) % 8 == 0
    assert dragonfly(*call, tmp_path / "answers.csv").code == 8
    assert dragonfly(*call, tmp_path / "straight.csv").code == 8
    assert bytes_of(tmp_path / "answers.csv") == bytes_of(tmp_path / "straight.csv")


@pytest.mark.slow
def test_the_built_in_model_describes_neighbours_as_it_describes_each(tmp_path: Path) -> None:
    """A film, a series and a slide, of both of which two fields are looked at."""
    sources = [SLIDE.with_name(name) for name in ("radiograph.dcm", "series", "slide.svs")]
    call = ("batch", *sources, "--budget", "2", "--max-tokens", "12", "-o")
    assert dragonfly(*call, tmp_path / "alone.csv").code == 0
    with rows_written() as rows:
        assert dragonfly(*call, tmp_path / "together.csv", "--together", "4").code == 0
    assert rows[0] == 5
    assert bytes_of(tmp_path / "together.csv") == bytes_of(tmp_path / "alone.csv")
    assert len({row["answer"] for row in rows_of(tmp_path / "alone.csv")}) > 1
