"""Several frames: a few are looked at, each with its own answer, and a stated rule makes them one."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_files import write_dicom
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.fields import spread


@given(st.integers(1, 500), st.integers(1, 40))
def test_frames_are_spread_evenly_and_none_is_taken_twice(count: int, most: int) -> None:
    shown = spread(count, most)
    assert len(shown) == min(count, most)
    assert all(0 <= frame < count for frame in shown)
    gaps = np.diff([-1, *shown, count])
    assert gaps.min() >= 1 and gaps[1:-1].max(initial=1) - gaps[1:-1].min(initial=count) <= 1


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    return write_dicom(tmp_path / "clip.dcm", rng.integers(0, 255, (5, 60, 80), np.uint8))


def test_every_frame_within_the_budget_has_its_own_answer(clip: Path) -> None:
    record = dragonfly("ask", clip, "Is there a tumour?", "--budget", "3", "--aggregate", "max", "--json").json
    assert [(field["id"], field["frame"], field["role"]) for field in record["fields"]] == [
        (0, 0, "slice"),
        (1, 2, "slice"),
        (2, 4, "slice"),
    ]
    said = [field["probabilities"]["yes"] for field in record["fields"]]
    assert len(set(said)) == 3  # the frames differ, and each was looked at
    assert record["aggregate"] == "max"
    assert record["probabilities"]["yes"] == max(said)
    assert any("3 of 5 frames were looked at" in warning for warning in record["warnings"])


def test_rules_make_one_answer_of_several(clip: Path) -> None:
    said = {}
    for rule in ("any", "mean", "top3-mean", "vote"):
        record = dragonfly("ask", clip, "Is there a tumour?", "--aggregate", rule, "--json").json
        said[rule] = record["probabilities"]["yes"]
        each = [field["probabilities"]["yes"] for field in record["fields"]]
    assert said["any"] == pytest.approx(1 - np.prod(1 - np.array(each)))
    assert said["mean"] == pytest.approx(np.mean(each))
    assert said["top3-mean"] == pytest.approx(np.mean(sorted(each)[-3:]))
    assert said["vote"] == np.mean(np.array(each) > 0.5)


def test_an_open_answer_is_the_one_that_most_frames_give(clip: Path) -> None:
    record = dragonfly("ask", clip, "What kind of image is this?", "--json").json
    answers = [field["answer"] for field in record["fields"]]
    assert record["aggregate"] == "vote"
    assert answers.count(record["answer"]) == max(map(answers.count, answers))


def test_a_frame_that_is_not_there_is_told(clip: Path) -> None:
    expect_error(dragonfly("ask", clip, "Is it?", "--frame", "5"), 2, "--frame 5", "5 frames")
