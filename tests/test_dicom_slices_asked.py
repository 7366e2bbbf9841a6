"""Which slices of a series are asked about, in which form, and that nothing of the patient is told of them."""

import csv
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_files import write_dicom
from make_series import packed, write_ct, write_slice
from PIL import Image
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.errors import UsageError
from dragonfly_cli.fields.frames import parse_slices, pick


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_ct(tmp_path / "study")


@pytest.mark.slow
def test_the_record_holds_the_number_of_the_series_and_repeats_the_answer(study: Path, tmp_path: Path) -> None:
    write_slice(study / "other", 70, "7.7")
    record = tmp_path / "answer.json"
    command = ("ask", study, "Is there a tumour?", "--series", "7.7", "--window", "101,50", "--json", "-o", record)
    assert dragonfly(*command).code == 0
    assert json.loads(record.read_text())["settings"]["series"] == "2"
    assert "7.7" not in record.read_text()
    assert dragonfly("verify", record).code == 0


def test_slices_are_asked_one_by_one_within_the_budget(study: Path) -> None:
    record = dragonfly("ask", study, "Is there a tumour?", "--budget", "3", "--json").json
    assert [(field["role"], field["frame"]) for field in record["fields"]] == [("slice", 1), ("slice", 5), ("slice", 8)]
    assert record["source"]["kind"] == "dicom" and record["source"]["sha256"] is None
    assert len(record["source"]["quickhash"]) == 64
    assert any("3 of 10 frames" in warning for warning in record["warnings"])
    record = dragonfly("ask", study, "Is there a tumour?", "--slice", "2:9:3", "--json").json
    assert [field["frame"] for field in record["fields"]] == [2, 5, 8]


def test_the_evidence_names_the_slices_as_the_options_do(study: Path, tmp_path: Path, drawn: list[str]) -> None:
    files = ("--geojson", tmp_path / "seen.geojson", "--overlay", tmp_path / "seen.png")
    assert dragonfly("ask", study, "Is there a tumour?", "--budget", "3", *files).code == 0
    features = [each["properties"] for each in json.loads((tmp_path / "seen.geojson").read_text())["features"]]
    fields = [each for each in features if each["objectType"] == "annotation"]
    assert [each["measurements"]["frame"] for each in fields] == [1, 5, 8]
    names = ["field 0 (frame 1)", "field 1 (frame 5)", "field 2 (frame 8)"]
    assert [each["name"].partition(":")[0] for each in fields] == names
    crops = {each["name"].partition(" of ")[2] for each in features if each["objectType"] == "detection"}
    assert crops == set(names)
    insets = [text for text in drawn if text.startswith("field ")]
    assert sorted(text.partition(":")[0] for text in insets) == names
    best = insets[0].partition(" (")[2].partition(")")[0]
    assert any(f"; below is {best};" in text for text in drawn)


def test_the_evidence_of_one_picture_has_no_frame(tmp_path: Path) -> None:
    Image.effect_noise((64, 48), 80).convert("RGB").save(tmp_path / "photo.png")
    seen = tmp_path / "seen.geojson"
    assert dragonfly("ask", tmp_path / "photo.png", "Is there a tumour?", "--geojson", seen).code == 0
    whole, *_ = (each["properties"] for each in json.loads(seen.read_text())["features"])
    assert whole["name"].startswith("whole 0: ") and "frame" not in whole["measurements"]


def test_where_it_looked_is_told_in_the_pixels_that_the_file_stores(tmp_path: Path) -> None:
    """A viewer opens the file's 64 x 64 pixels, which are twice as wide as high; the record tells of square ones."""
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint16)
    film = write_dicom(tmp_path / "film.dcm", ramp, PixelAspectRatio=[1, 2])
    seen = tmp_path / "seen.geojson"
    outcome = dragonfly("ask", film, "Is there a tumour?", "--geojson", seen, "--json")
    assert "counts pixels as they are stored" in outcome.stderr
    field = outcome.json["fields"][0]
    assert (field["box"]["width"], field["box"]["height"]) == (128, 64)
    told = json.loads(seen.read_text())
    assert told["dragonfly"]["scale"] == {"x": 0.5, "y": 1.0}
    rings = [each["geometry"]["coordinates"][0] for each in told["features"]]
    assert (rings[0][0], rings[0][2]) == ([0, 0], [64, 64])
    for ring, box in zip(rings[1:], field["selected"], strict=True):
        right, bottom = box["x"] + box["width"], box["y"] + box["height"]
        assert (ring[0], ring[2]) == ([box["x"] / 2, box["y"]], [right / 2, bottom])


@pytest.mark.parametrize(("options", "frames"), [(("--budget", "8"), "1, 3, 6, 8"), (("--slice", "0:9"), "1, 3, 5, 7")])
def test_a_montage_shows_slices_of_all_of_the_volume(study: Path, options: tuple[str, str], frames: str) -> None:
    """Whatever the budget is: what does not fit is left out between the slices, and not behind them."""
    outcome = dragonfly("ask", study, "Is there a tumour?", "--montage", "2x2", *options)
    assert f"of frames {frames} of 10" in outcome.stderr
    assert "4 of " in outcome.stderr and "a --montage of more tiles" in outcome.stderr


def test_of_a_montage_places_are_told_in_the_montage(study: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen.geojson"
    outcome = dragonfly("ask", study, "Is there a tumour?", "--montage", "2x2", "--geojson", seen, "--json")
    told = json.loads(seen.read_text())
    assert "scale" not in told["dragonfly"] and "as they are stored" not in outcome.stderr
    assert told["features"][0]["geometry"]["coordinates"][0][2] == [96, 64]


def test_the_first_slice_may_be_the_broken_one(study: Path) -> None:
    dataset = pydicom.dcmread(study / "IM9")
    dataset.PixelData = b""
    dataset.save_as(study / "IM9")
    facts = dragonfly("info", study, "--json").json
    assert (facts["frames"], facts["window"]["width"]) == (10, 101)


@pytest.mark.slow
def test_a_slice_that_cannot_be_read_is_left_out_unless_it_was_asked_for(study: Path) -> None:
    dataset = pydicom.dcmread(study / "IM4")
    dataset.PixelData = dataset.PixelData[:100]
    dataset.save_as(study / "IM4")
    outcome = dragonfly("ask", study, "Is there a tumour?", "--slice", "3:8", "--json")
    assert [field["frame"] for field in outcome.json["fields"]] == [3, 4, 6, 7]
    assert any("1 of 5 frames could not be read" in warning for warning in outcome.json["warnings"])
    expect_error(dragonfly("ask", study, "Is there a tumour?", "--slice", "5"), 4, "IM4", "cut short")


def test_a_montage_shows_slices_in_reading_order(study: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen.png"
    command = ("view", study, "--what", "display", "--montage", "3x2", "--slice", "4:9", "-o", seen)
    assert dragonfly(*command).code == 0
    picture = np.asarray(Image.open(seen).convert("L"))
    assert picture.shape == (64, 144)
    tiles = [round(float(picture[32 * row + 16, 48 * column + 24]) / 2.55) for row in (0, 1) for column in (0, 1, 2)]
    assert tiles == [50, 60, 70, 80, 90, 0]
    file = tmp_path / "answer.json"
    assert dragonfly("ask", study, "Is there a tumour?", "--montage", "2x2", "--json", "-o", file).code == 0
    record = json.loads(file.read_text())
    assert dragonfly("verify", file).code == 0
    (field,) = record["fields"]
    assert field["box"] == {"x": 0, "y": 0, "width": 96, "height": 64}
    assert any("montage, 2 x 2, of frames 1, 3, 6, 8 of 10" in warning for warning in record["warnings"])


MONTAGE = ("--montage", "4x3")


def test_a_film_by_itself_is_no_montage_of_black_tiles(tmp_path: Path) -> None:
    film = write_dicom(tmp_path / "film.dcm", np.random.default_rng(0).integers(0, 255, (40, 50), np.uint8))
    plain, arranged = (dragonfly("ask", film, "Is there a tumour?", "--json", *more) for more in ((), MONTAGE))
    assert arranged.json["probabilities"] == plain.json["probabilities"]
    assert any("--montage is for several frames" in warning for warning in arranged.json["warnings"])
    expect_error(dragonfly("ask", film, "Is it?", "--slice", "2:5", *MONTAGE), 2, "--slice 2:5", "has 1")


WRONG_USAGE = {
    "a slice that is no slice": ("--slice", "a:b"),
    "a step of nothing": ("--slice", "0:5:0"),
    "a montage that is none": ("--montage", "3"),
    "a frame and a slice": ("--frame", "1", "--slice", "2"),
    "a slice beyond the last": ("--slice", "10"),
    "a frame beyond the last": ("--frame", "10"),
}


@pytest.mark.parametrize("name", WRONG_USAGE)
def test_wrong_usage_is_told_before_a_model_is_loaded(study: Path, name: str) -> None:
    expect_error(dragonfly("ask", study, "Is it?", *WRONG_USAGE[name]), 2, WRONG_USAGE[name][0])


@given(st.integers(1, 60), st.integers(0, 70), st.integers(0, 70), st.integers(1, 9))
def test_slices_are_counted_as_python_counts(count: int, first: int, last: int, step: int) -> None:
    expected = list(range(count))[first:last:step]
    if expected:
        assert pick(range(count), f"{first}:{last}:{step}", "x") == expected
    else:
        with pytest.raises(UsageError):
            pick(range(count), f"{first}:{last}:{step}", "x")
    assert parse_slices(str(first)) == first


def test_slices_that_end_before_they_begin_are_not_said_to_be_beyond_the_last(study: Path) -> None:
    expect_error(dragonfly("ask", study, "Is it?", "--slice", "5:2"), 2, "--slice 5:2: it ends before it begins")


def test_a_batch_has_one_item_for_a_series(study: Path, tmp_path: Path) -> None:
    for number in range(3):
        write_slice(study / f"z{number}", 10 * number, "8.8")
    write_slice(study / "alone", 10, "7.7")
    Image.new("RGB", (64, 48), "pink").save(study / "photo.png")
    command = ("batch", study, "-q", "Is there a tumour?", "--budget", "2", "-o", tmp_path / "out.csv")
    assert dragonfly(*command).code == 0
    rows = list(csv.DictReader((tmp_path / "out.csv").open(newline="", encoding="utf-8")))
    names = [f"{study}#1", f"{study}/alone", f"{study}/photo.png", f"{study}#3"]
    assert [row["image"] for row in rows] == names
    numbered = dragonfly("info", study, "--json").json["series"]  # as info and --series count them
    assert [(each["number"], each["slices"]) for each in numbered] == [(1, 10), (2, 1), (3, 3)]
    assert [row["status"] for row in rows] == ["ok"] * 4
    again = dragonfly(*command)
    assert "4 of 4 images are done" in again.stderr
    assert len(list(csv.DictReader((tmp_path / "out.csv").open(newline="", encoding="utf-8")))) == 4


def test_a_number_that_is_now_another_series_is_not_taken_for_done(study: Path, tmp_path: Path) -> None:
    """A study that is still being sent: one that comes before the others by name moves their numbers."""
    for number in range(2):
        write_slice(study / f"z{number}", 10 * number, "8.8")
    command = ("batch", study, "-q", "Is there a tumour?", "--budget", "1", "-o", tmp_path / "out.csv")
    assert dragonfly(*command).code == 0
    write_slice(study / "zz0", 10, "9.9")
    write_slice(study / "zz1", 20, "9.9")
    assert "2 of 3 images are done" in dragonfly(*command).stderr  # a later one is only more to do
    for number in range(2):
        write_slice(study / f"A{number}", 10 * number, "7.7")
    expect_error(dragonfly(*command), 7, "out.csv", "other settings", "series")


def test_a_batch_of_one_series_is_called_by_its_folder(study: Path, tmp_path: Path) -> None:
    for number in range(10):  # the same pictures of somebody else: a zip of what lies there is left out
        write_slice(tmp_path / "other" / f"IM{number}", 100 - 10 * number, "1.2.4")
    archive = packed(tmp_path / "other", "zip")
    outcome = dragonfly(
        "batch", study, archive, "-q", "Is there a tumour?", "--budget", "1", "-o", tmp_path / "out.csv"
    )
    assert outcome.code == 0
    rows = list(csv.DictReader((tmp_path / "out.csv").open(newline="", encoding="utf-8")))
    assert [row["image"] for row in rows] == [str(study), str(archive)]
    assert rows[0]["p_yes"] == rows[1]["p_yes"]


@pytest.mark.slow
def test_nothing_of_the_patient_is_told(study: Path) -> None:
    uid = "1.2.826.0.1.3680043.8.498.4711"
    for path in list(study.iterdir()):
        dataset = pydicom.dcmread(path)
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID = uid, uid + ".1"
        dataset.SeriesDescription = dataset.InstitutionName = dataset.ReferringPhysicianName = "Nobody Secret"
        dataset.AccessionNumber = "ID-4711-SECRET"
        dataset.save_as(path)
    write_slice(study / "other", 5, "7.7", SeriesDescription="Nobody Secret")
    told = [dragonfly("info", study), dragonfly("info", study, "--json"), dragonfly("ask", study, "Is it?", "--json")]
    told += [dragonfly("info", study, "--series", "9"), dragonfly("ask", study, "Is it?", "-v")]
    text = " ".join(outcome.stdout + outcome.stderr for outcome in told)
    assert not [word for word in ("Nobody", "SECRET", "4711", "1.2.826", "7.7") if word in text]
    assert json.loads(told[1].stdout)["series"][0]["modality"] == "CT"
