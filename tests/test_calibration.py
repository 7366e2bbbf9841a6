"""Reviewed answers make probabilities that mean what they say; what is too little for that is told."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_checkpoints import write_checkpoint
from make_files import write_dicom, write_png
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.calibration.fitting import _PULL, FOLDS, Method, _fitted, _folds, calibration_error, fit
from dragonfly_cli.output.table import COLUMNS
from dragonfly_cli.output.votes import certainty

QUESTION = "Is there a tumour?"


def overconfident(rows: int, seed: int = 0, temperature: float = 4.0) -> tuple[list[float], list[bool]]:
    """A model whose logits are ``temperature`` times what they should be."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, rows)
    truth = random.random(rows) < 1 / (1 + np.exp(-logits))
    return (1 / (1 + np.exp(-temperature * logits))).tolist(), truth.tolist()


def write_review(file: Path, p_yes: list[float], truth: list[object], /, **cells: str) -> Path:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*COLUMNS, "truth"], restval="")
    writer.writeheader()
    for number, (p, true) in enumerate(zip(p_yes, truth, strict=True)):
        row = {"image": f"{number}.png", "question": QUESTION, "p_yes": f"{p:.6f}", "status": "ok"}
        row |= {"model": "demo", "quantization": "none"}
        writer.writerow(row | {"truth": {True: "yes", False: "no"}.get(true, true)} | cells)
    file.write_text(text.getvalue())
    return file


def test_overconfidence_is_taken_back() -> None:
    p, truth = overconfident(2000)
    found = fit(p, truth)
    assert found.method in ("temperature", "platt")
    assert found.slope == pytest.approx(1 / 4, rel=0.2)
    assert found.intercept == pytest.approx(0, abs=0.2)
    assert found.error_after < found.error_before / 3


def test_the_error_that_is_reported_is_of_images_that_were_not_fitted() -> None:
    """Of chance alone nothing can be learnt, however well so few rows are fitted."""
    random = np.random.default_rng(5)
    truth = [True, False] * 6
    told, own = [], []
    for _ in range(40):
        p = random.random(12).tolist()
        found = fit(p, truth)
        told.append(found.error_after)
        own.append(calibration_error(np.array([found.apply(each) for each in p]), np.array(truth, float)))
    assert np.mean(told) > 1.5 * np.mean(own)


def test_a_shifted_model_needs_platt() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(0, 1.5, 2000)
    truth = random.random(2000) < 1 / (1 + np.exp(-logits))
    found = fit((1 / (1 + np.exp(-(logits + 2)))).tolist(), truth.tolist())
    assert found.method == "platt"
    assert found.intercept == pytest.approx(-2, abs=0.3)


def test_what_is_calibrated_stays_nearly_as_it_is() -> None:
    p, truth = overconfident(2000, temperature=1.0)
    found = fit(p, truth)
    assert found.apply(0.3) == pytest.approx(0.3, abs=0.05)
    assert found.error_after < 0.04


def test_the_error_by_hand() -> None:
    p, true = np.array([0.95, 0.95, 0.15, 1.0]), np.array([1.0, 0.0, 0.0, 1.0])
    assert calibration_error(p, true) == pytest.approx((abs(2.9 - 2) + 0.15) / 4)


def test_a_saturated_model_is_fitted_to_the_end() -> None:
    random = np.random.default_rng(237)
    p = np.round(1 / (1 + np.exp(-random.normal(8, 0.5, 100))), 6)
    truth = random.random(100) < 0.3
    found = fit(p.tolist(), truth.tolist())
    assert found.method == "platt" and found.slope == 0  # it falls if it is let
    assert found.apply(0.9) == pytest.approx(truth.mean(), abs=0.01)


@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_every_fit_ends_where_the_penalised_loss_is_least(method: Method) -> None:
    """It is convex, so that is where its slope is nothing."""
    random = np.random.default_rng(0)
    for _ in range(500):
        rows, middle, width = (
            random.choice([12, 40, 200]),
            random.choice([-12, -6, 0, 4, 8]),
            random.choice([0.2, 1, 3]),
        )
        p = np.round(1 / (1 + np.exp(-random.normal(middle, width, rows))), 6)
        true = (random.random(rows) < random.choice([0.1, 0.3, 0.5, 0.9])).astype(float)
        logit = np.log(np.clip(p, 1e-6, 1 - 1e-6)) - np.log1p(-np.clip(p, 1e-6, 1 - 1e-6))
        slope, intercept = _fitted(p, true, method)
        too_much = 1 / (1 + np.exp(-(slope * logit + intercept))) - true
        uphill = logit @ too_much + _PULL * (slope - 1)
        assert uphill == pytest.approx(0, abs=1e-4) or (slope == 0 and uphill > 0)  # a falling one would be better
        if method == "platt":
            assert too_much.sum() + _PULL * intercept == pytest.approx(0, abs=1e-4)


def test_truth_the_wrong_way_round_turns_no_answer_round(tmp_path: Path) -> None:
    file = write_review(tmp_path / "reviewed.csv", [0.9] * 12 + [0.1] * 12, [False] * 11 + [True] * 12 + [False])
    outcome = dragonfly("calibrate", file)
    assert outcome.code == 0 and "column truth" in outcome.stderr and QUESTION in outcome.stderr
    (found,) = dragonfly("calibrate", file, "--json").json.values()
    assert found["slope"] == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=10, max_size=40))
def test_every_review_gives_a_rising_map_into_probabilities(rows: list[tuple[float, bool]]) -> None:
    p = [each for each, _ in rows] + [0.2, 0.8, 0.3, 0.7]
    truth = [true for _, true in rows] + [True, True, False, False]
    found = fit(p, truth)
    said = [found.apply(each) for each in (0.0, 0.1, 0.5, 0.9, 1.0)]
    assert all(0 <= each <= 1 for each in said)
    assert np.isfinite([found.error_before, found.error_after]).all()
    assert (np.diff(said) >= 0).all()


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=60))
def test_what_is_said_of_one_image_is_never_tested_on_what_was_fitted_to_it(rows: list[tuple[int, bool]]) -> None:
    images, truth = [f"{image}.png" for image, _ in rows], np.array([true for _, true in rows], float)
    folds = _folds(truth, images)
    assert len(set(zip(images, folds, strict=True))) == len(set(images))
    for kind in (0.0, 1.0):
        with_it = {image for image, true in zip(images, truth, strict=True) if true == kind}
        each = [len(set(np.array(images)[folds == fold]) & with_it) for fold in range(FOLDS)]
        assert max(each) - min(each) <= 1  # so that two images of a kind are never left out together


def test_what_helps_with_the_same_images_alone_is_not_fitted() -> None:
    """Ten images, twenty rows about each with the same P(yes) and the same truth, which do not go together."""
    p = np.repeat(np.random.default_rng(3).random(10), 20).tolist()
    truth = (np.repeat(np.arange(10), 20) % 2 == 0).tolist()
    assert fit(p, truth).method == "platt"
    assert fit(p, truth, [str(row // 20) for row in range(200)]).method == "none"


def test_too_few_images_of_one_truth(tmp_path: Path) -> None:
    file = write_review(tmp_path / "reviewed.csv", [0.5] * 16, [True, True] + [False] * 14)
    rows = file.read_text().replace("\n1.png,", "\n0.png,")  # both that are true
    file.write_text(rows)
    expect_error(dragonfly("calibrate", file), 4, "reviewed.csv", "images", "1 have a yes")


def test_ask_tells_calibrated_probabilities_beside_the_raw_ones(tmp_path: Path) -> None:
    photo = write_png(tmp_path / "photo.png")
    before = dragonfly("ask", photo, QUESTION, "Is it red?", "--json").json
    assert [record["calibrated"] for record in before] == [None, None]
    outcome = dragonfly("calibrate", write_review(tmp_path / "reviewed.csv", *overconfident(200)), "--json")
    assert outcome.code == 0, outcome.stderr
    found = outcome.json[QUESTION]
    assert found["error_after"] < found["error_before"]
    after, other = dragonfly("ask", photo, QUESTION, "Is it red?", "--json").json
    assert after["probabilities"] == before[0]["probabilities"]
    p = after["probabilities"]["yes"]
    logit = found["slope"] * np.log(p / (1 - p)) + found["intercept"]
    assert after["calibrated"]["yes"] == pytest.approx(1 / (1 + np.exp(-logit)))
    assert sum(after["calibrated"].values()) == pytest.approx(1)
    assert other["calibrated"] is None
    assert ", calibrated 0." in dragonfly("ask", photo, QUESTION).stdout
    behind_a_template = dragonfly("ask", photo, QUESTION, "-t", "histology", "--json").json
    assert behind_a_template["calibrated"] is None  # it is another prompt


def test_a_batch_is_not_continued_with_another_calibration(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png")
    call = ("batch", tmp_path / "a.png", "-q", QUESTION, "-o", tmp_path / "answers.csv")
    assert dragonfly(*call).code == 0
    assert (
        dragonfly("calibrate", write_review(tmp_path / "other.csv", *overconfident(200), question="Is it?")).code == 0
    )
    assert dragonfly(*call).code == 0  # that was of another question
    assert dragonfly("calibrate", write_review(tmp_path / "reviewed.csv", *overconfident(200))).code == 0
    expect_error(dragonfly(*call), 7, "answers.csv", "other settings", "calibration")
    assert "which no option takes back" in dragonfly(*call).stderr


def test_a_copy_in_4_bits_has_its_own_calibration(tmp_path: Path) -> None:
    """Of a model with two copies the first is the run's, and the other one answers."""
    pytest.importorskip("bitsandbytes")
    checkpoint = write_checkpoint(tmp_path / "mine", shards=2)
    assert dragonfly("model", "convert", checkpoint, "--keep", "both").code == 0
    write_png(tmp_path / "a.png")
    call = ("batch", tmp_path / "a.png", "-q", QUESTION, "-m", "mine", "--quant", "4bit", "--device", "cpu")
    assert dragonfly(*call, "-o", tmp_path / "answers.csv").code == 0
    review = write_review(tmp_path / "reviewed.csv", *overconfident(200), model="mine", quantization="nf4")
    assert dragonfly("calibrate", review).code == 0
    expect_error(dragonfly(*call, "-o", tmp_path / "answers.csv"), 7, "calibration")


def test_what_is_told_beside_an_answer_is_its_own_calibrated_probability() -> None:
    record = {"probabilities": {"yes": 0.5, "no": 0.5}, "calibrated": {"yes": 0.81, "no": 0.19}, "option_mass": 1.0}
    record |= {"abstained": False, "answer": "No", "settings": {"type": "yesno"}}
    assert certainty(record) == " (p = 0.50, calibrated 0.19)"
    assert certainty(record | {"answer": "uncertain", "abstained": True}).endswith(", calibrated yes 0.81)")


@pytest.mark.parametrize("quantization", ["../../evil", ""])
def test_a_quantization_that_is_none_is_told(tmp_path: Path, quantization: str) -> None:
    review = write_review(tmp_path / "reviewed.csv", *overconfident(20), quantization=quantization)
    expect_error(dragonfly("calibrate", review), 4, "reviewed.csv", "quantization")


@pytest.mark.parametrize("content", ['{"form": null}', '{"forms": null}', '{"form": "chest"}', "{}"])
def test_a_run_of_another_program_tells_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    outcome = dragonfly("calibrate", write_review(tmp_path / "reviewed.csv", *overconfident(20)))
    assert outcome.code == 0 and "it is not known how" in outcome.stderr


def test_a_question_keeps_its_letters_in_json(tmp_path: Path) -> None:
    odd = "Is it \u202ered\u0085?"
    outcome = dragonfly("calibrate", write_review(tmp_path / "r.csv", *overconfident(20), question=odd), "--json")
    assert list(outcome.json) == [odd]


def test_a_second_question_is_added_and_other_weights_have_none(tmp_path: Path) -> None:
    for number, question in enumerate((QUESTION, "=Is it red?")):  # a cell that a spreadsheet could run
        guarded = f"'{question}" if question.startswith("=") else question
        file = write_review(tmp_path / f"{number}.csv", *overconfident(40), question=guarded)
        outcome = dragonfly("calibrate", file)
        assert outcome.stdout.startswith(f"{question}: ")
    (stored,) = Path(outcome.stderr.split("stored in ")[1].strip()).parent.iterdir()
    content = json.loads(stored.read_text())
    assert set(content["questions"]) == {QUESTION, "=Is it red?"}
    assert stored.name == f"{content['model_sha256']}-none.json"
    stored.rename(stored.with_name(f"{'0' * 64}-none.json"))
    assert dragonfly("ask", write_png(tmp_path / "photo.png"), QUESTION, "--json").json["calibrated"] is None


def test_a_batch_that_other_weights_answered_is_refused(tmp_path: Path) -> None:
    file = write_review(tmp_path / "answers.csv", *overconfident(40))
    (tmp_path / "run.json").write_text('{"model_sha256": "0123"}')
    expect_error(dragonfly("calibrate", file), 5, "demo", "not those that answered")


def test_a_table_goes_by_its_own_run(tmp_path: Path) -> None:
    file = write_review(tmp_path / "answers.csv", *overconfident(40))
    (tmp_path / "run.json").write_text('{"model_sha256": "0123", "output": "others.csv"}')
    (tmp_path / "answers.run.json").write_text('{"output": "answers.csv", "aggregate": "max"}')
    outcome = dragonfly("calibrate", file, "--json")
    assert outcome.json[QUESTION]["aggregate"] == "max"
    assert "not known" not in outcome.stderr


def test_a_copy_under_another_name_goes_by_the_only_run_there_is(tmp_path: Path) -> None:
    file = write_review(tmp_path / "reviewed.csv", *overconfident(40))
    (tmp_path / "run.json").write_text('{"aggregate": "max", "output": "first.csv"}')
    alone = dragonfly("calibrate", file, "--json")
    assert alone.json[QUESTION]["aggregate"] == "max"
    (tmp_path / "second.run.json").write_text('{"aggregate": "mean", "output": "second.csv"}')
    of_two = dragonfly("calibrate", file, "--json")
    assert of_two.json[QUESTION]["aggregate"] is None
    assert "note: it is not known how the answers in reviewed.csv were made" in of_two.stderr


@pytest.mark.parametrize(
    "settings",
    [
        {"forms": [["yesno", ["yes", "no"], None, "You are a radiologist."]]},
        {"forms": [], "form": {"system": "You are a radiologist."}},  # before the questions of a manifest
    ],
)
def test_what_a_template_said_before_the_question_is_no_calibration_of_it(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    file = write_review(tmp_path / "answers.csv", *overconfident(40))
    (tmp_path / "run.json").write_text(json.dumps(settings))
    expect_error(dragonfly("calibrate", file), 4, "answers.csv", "template")


def test_what_a_system_prompt_said_before_the_question_is_no_calibration_of_it(tmp_path: Path) -> None:
    file = write_review(tmp_path / "answers.csv", *overconfident(40), row_options="frame=1 system=0123456789abcdef")
    expect_error(dragonfly("calibrate", file), 4, "answers.csv", "no row")


def test_a_calibration_is_that_of_the_rule_by_which_fields_become_one(tmp_path: Path) -> None:
    file = write_review(tmp_path / "answers.csv", *overconfident(40))
    clip = write_dicom(tmp_path / "clip.dcm", np.random.default_rng(0).integers(0, 255, (6, 40, 50), np.uint8))

    def is_told(*arguments: str) -> bool:
        outcome = dragonfly("ask", clip, QUESTION, "--budget", "2", *arguments, "--json")
        is_another = "confirmed" in arguments
        assert ("so the rule is top3-mean, for calibration too" in outcome.stderr) is is_another
        return outcome.json["calibrated"] is not None

    def calibrated_by(rule: str | None) -> None:
        (tmp_path / "run.json").write_text(json.dumps({"aggregate": rule}))
        assert dragonfly("calibrate", file).code == 0

    calibrated_by("auto")
    assert is_told("--aggregate", "top3-mean")  # which is what auto does
    assert not is_told("--aggregate", "max")
    assert is_told("--aggregate", "max", "--frame", "2")  # one field says the same by every rule
    assert is_told("--aggregate", "confirmed")  # no frame is looked at twice, so that it is top3-mean again
    calibrated_by("confirmed")
    assert not is_told("--aggregate", "confirmed")
    calibrated_by(None)
    assert is_told("--aggregate", "max")  # it is not known that it does not fit


def test_yes_among_options_is_no_yes_no_question(tmp_path: Path) -> None:
    file = write_review(tmp_path / "answers.csv", *overconfident(40), probabilities='{"yes": 0.4, "no": 0.6}')
    expect_error(dragonfly("calibrate", file), 4, "no row")


def test_a_review_may_be_saved_by_a_spreadsheet(tmp_path: Path) -> None:
    """With a mark, semicolons between cells, and commas in numbers."""
    plain = write_review(tmp_path / "plain.csv", *overconfident(40))
    with plain.open(newline="") as file:
        rows = [[cell.replace("0.", "0,") for cell in row] for row in csv.reader(file)]
    with (tmp_path / "saved.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    assert dragonfly("calibrate", tmp_path / "saved.csv").stdout == dragonfly("calibrate", plain).stdout != ""


def test_a_cell_is_not_lost_behind_another(tmp_path: Path) -> None:
    """Two reviewers may each have added a column; a comma may stand outside of quotes."""
    lines = write_review(tmp_path / "reviewed.csv", *overconfident(40)).read_text().splitlines()
    (tmp_path / "two.csv").write_text("\n".join([f"{lines[0]},truth", *(f"{line},no" for line in lines[1:])]))
    expect_error(dragonfly("calibrate", tmp_path / "two.csv"), 4, "two columns have the same name")
    (tmp_path / "more.csv").write_text("\n".join([*lines[:3], f"{lines[3]},and more", *lines[4:]]))
    expect_error(dragonfly("calibrate", tmp_path / "more.csv"), 4, "row 3: it has more cells than the header")


def test_a_damaged_calibration_is_told(tmp_path: Path) -> None:
    outcome = dragonfly("calibrate", write_review(tmp_path / "reviewed.csv", *overconfident(40)))
    file, photo = Path(outcome.stderr.split("stored in ")[1].strip()), write_png(tmp_path / "photo.png")
    stored = json.loads(file.read_text())
    damaged = ["{}", "[" * 100_000]
    for slope in (float("nan"), float("inf"), "1.2", None, [1], 10**400):
        stored["questions"][QUESTION]["slope"] = slope
        damaged.append(json.dumps(stored))
    for content in damaged:
        file.write_text(content)
        expect_error(dragonfly("ask", photo, QUESTION), 4, "calibration")


@pytest.mark.parametrize(
    ("truth", "cells", "words"),
    [
        ([True] * 12, {}, ["12 are yes and 0 no"]),
        ([False] * 12, {}, ["0 are yes and 12 no"]),
        ([True, False] * 3, {}, ["only 6 reviewed rows"]),
        (["perhaps"] * 12, {}, ["perhaps is not understood"]),
        ([""] * 12, {}, ["no row has both"]),
        ([True, False] * 6, {"image": "one.png"}, ["only 1 image"]),
        ([True, False] * 6, {"p_yes": "1.5"}, ["1.5 is not a probability"]),
        ([True, False] * 6, {"p_yes": ""}, ["no row has both"]),
    ],
)
def test_too_little_to_calibrate(tmp_path: Path, truth: list[object], cells: dict[str, str], words: list[str]) -> None:
    file = write_review(tmp_path / "reviewed.csv", [0.5] * len(truth), truth, **cells)
    expect_error(dragonfly("calibrate", file), 4, "reviewed.csv", *words)


def test_what_is_no_review(tmp_path: Path) -> None:
    (tmp_path / "answers.csv").write_text("image,question\na,b\n")
    expect_error(dragonfly("calibrate", tmp_path / "answers.csv"), 4, "no column p_yes")
    expect_error(dragonfly("calibrate", tmp_path / "gone.csv"), 3, "gone.csv")
    (tmp_path / "picture.csv").write_bytes(b"\xff\xd8\xff\xe0")
    expect_error(dragonfly("calibrate", tmp_path / "picture.csv"), 4, "picture.csv")
    file = write_review(tmp_path / "reviewed.csv", *overconfident(40), model="gone")
    expect_error(dragonfly("calibrate", file), 5, "gone")
