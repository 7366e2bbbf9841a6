"""``batch`` as a user meets it: a mixed folder, one broken file, a run that was cut off."""

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from make_files import write_dicom, write_png, write_svs
from PIL import Image
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.engine.questions import CUT
from dragonfly_cli.output.table import COLUMNS, as_csv, failure_row, unguarded

QUESTIONS = ("-q", "Is there a tumour?", "-q", 'What is it, "roughly"?')


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A picture, a film without a suffix, a slide one folder down, a broken slide, and a text file to be ignored."""
    folder = tmp_path / "study"
    (folder / "more").mkdir(parents=True)
    Image.new("RGB", (64, 48), "pink").save(folder / "a.png")
    write_dicom(folder / "film", np.tile(np.arange(64, dtype=np.uint16), (64, 1)), window=(32, 64))
    write_svs(folder / "more" / "slide.svs", (700, 500))
    (folder / "broken.svs").write_bytes(b"II*\0 and then nothing")
    (folder / "notes.txt").write_text("not an image")
    return folder


def run(study: Path, output: Path, *more: str):
    return dragonfly("batch", study, *QUESTIONS, "-o", output, "--max-tokens", "4", *more)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def test_a_mixed_folder_runs_to_its_end(study: Path, tmp_path: Path) -> None:
    outcome = run(study, tmp_path / "answers.csv")
    assert outcome.code == 8
    assert outcome.stdout == ""
    rows = rows_of(tmp_path / "answers.csv")
    assert [Path(row["image"]).name for row in rows[::2]] == ["a.png", "broken.svs", "film", "slide.svs"]
    assert [row["question"] for row in rows[:2]] == [QUESTIONS[1], QUESTIONS[3]]
    broken = [row for row in rows if row["status"] == "failed"]
    assert {Path(row["image"]).name for row in broken} == {"broken.svs"}
    assert {row["error_code"] for row in broken} == {"4"}
    for row in rows:
        if row["status"] == "ok":
            assert row["answer"] or row["question"] == QUESTIONS[3]
            assert (row["model"], row["device"], row["fields"]) == ("demo", "cpu", "1")
            assert row["evidence"].count(":") == 12
    assert [bool(row["p_yes"]) for row in rows if row["status"] == "ok"] == [True, False] * 3
    assert "failed rows: 2" in outcome.stderr
    assert rows_of(tmp_path / "failed.csv") == broken
    assert (tmp_path / "run.json").exists()


def test_a_run_that_was_cut_off_ends_like_one_that_was_not(study: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.csv"
    run(study, output)
    undisturbed, whole = rows_of(output), output.read_bytes()
    for cut in (len(whole) // 3, len(whole) - 3):
        output.write_bytes(whole[:cut])
        assert run(study, output).code == 8
        assert rows_of(output) == undisturbed


def test_other_settings_are_refused_and_nothing_is_touched(study: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.csv"
    run(study, output)
    before = output.read_bytes()
    expect_error(run(study, output, "--seed", "5"), 7, "answers.csv", "seed")
    (tmp_path / "run.json").unlink()
    expect_error(run(study, output), 7, "answers.csv", "run.json")
    assert output.read_bytes() == before


def test_without_a_question_images_are_described(study: Path, tmp_path: Path) -> None:
    records = tmp_path / "captions.jsonl"
    outputs = ("-o", tmp_path / "captions.csv", "--records", records)
    outcome = dragonfly("batch", study / "a.png", study / "film", *outputs, "--max-tokens", "1")
    assert outcome.code == 0
    assert outcome.stderr.count(f"warning: {CUT} (answers of this call: 2)\n") == 1
    assert all(CUT in json.loads(line)["warnings"] for line in records.read_text().splitlines())
    assert [row["question"] for row in rows_of(tmp_path / "captions.csv")] == ["", ""]
    assert not (tmp_path / "failed.csv").exists()


def test_a_name_that_is_not_utf_8_is_a_row_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    write_png(Path(os.fsdecode(bytes(tmp_path / "odd") + b"/b\xff.png")))
    call = ("batch", tmp_path / "odd", *QUESTIONS[:2], "-o", tmp_path / "answers.csv")
    assert dragonfly(*call).code == 0
    first = rows_of(tmp_path / "answers.csv")
    assert [Path(row["image"]).name for row in first] == ["b\\udcff.png"]
    assert dragonfly(*call).code == 0
    assert rows_of(tmp_path / "answers.csv") == first  # known again, not answered twice


def test_a_broken_file_whose_name_is_not_utf_8_has_failed_once_and_for_all(tmp_path: Path) -> None:
    Path(os.fsdecode(bytes(tmp_path) + b"/b\xff.png")).write_text("broken")
    call = ("batch", tmp_path, *QUESTIONS[:2], "-o", tmp_path / "answers.csv", "--records", tmp_path / "answers.jsonl")
    assert dragonfly(*call).code == 8
    assert "1 of 1 images are done" in dragonfly(*call).stderr


def test_nothing_to_do_and_nowhere_to_write(study: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    expect_error(run(tmp_path / "empty", tmp_path / "answers.csv"), 3, "empty")
    expect_error(run(tmp_path / "gone", tmp_path / "answers.csv"), 3, "gone")
    expect_error(run(study, tmp_path / "gone" / "answers.csv"), 7, "answers.csv")
    expect_error(dragonfly("batch", study, *QUESTIONS, "-o", tmp_path / "x.csv", "-m", "nonesuch"), 5, "nonesuch")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "study"]


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(CELLS)
@example("'=1+1")
@example("+1")
@example("-1")
@example("@A1")
@example("\t=1")
@example("''@x")
def test_no_cell_is_a_formula_and_every_cell_comes_back(cell: str) -> None:
    text = as_csv([failure_row(cell, cell, 4, cell)], header=True)
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert not row["image"].startswith(("=", "+", "-", "@", "\t"))
    assert unguarded(row["image"]) == cell
    assert tuple(row) == COLUMNS


def test_a_sample_of_the_images_is_asked_about_again_without_the_picture(tmp_path: Path) -> None:
    for number in range(4):
        Image.effect_noise((60, 50), 60 + number).convert("RGB").save(tmp_path / f"{number}.png")

    def sample(table: Path, *more: str):
        records = table.with_suffix(".jsonl")
        call = ("batch", tmp_path, *QUESTIONS[:2], "-o", table, "--records", records, "--control-sample", "2")
        return dragonfly(*call, *more)

    answers = tmp_path / "answers.csv"
    outcome = sample(answers)
    assert outcome.code == 0
    distances = [row["control_distance"] for row in rows_of(answers)]
    assert [bool(distance) for distance in distances] == [False, True, False, True]
    (told,) = [line for line in outcome.stderr.splitlines() if "control: without the picture 2 answers are" in line]
    again = sample(answers)
    assert "4 of 4 images are done" in again.stderr
    assert told in again.stderr.splitlines()  # of all rows, not of those of the last call
    parts = [tmp_path / f"part{number}.csv" for number in (1, 2)]
    for number, part in enumerate(parts, 1):
        assert sample(part, "--shard", f"{number}/2").code == 0
    whole = dragonfly("merge", *parts, "-o", tmp_path / "whole.csv", "--records", tmp_path / "whole.jsonl")
    assert told in whole.stderr.splitlines()


def test_other_options_than_yes_and_no_have_a_column(tmp_path: Path) -> None:
    answers = tmp_path / "answers.csv"
    call = ("batch", write_png(tmp_path / "a.png"), "-q", "Which?", "--options", "left,right", "-o", answers)
    assert dragonfly(*call, "--abstain", "1").code == 0
    (row,) = rows_of(answers)
    assert (row["answer"], row["abstained"], row["p_yes"]) == ("uncertain", "yes", "")
    assert sum(json.loads(row["probabilities"]).values()) == pytest.approx(1, abs=1e-5)
    expect_error(dragonfly(*call, "--abstain", "0.5"), 7, "abstain")
