"""What rows ``dragonfly finetune`` takes, which it names and refuses, and how it divides them."""

import json
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
from batch_runs import may_not_write_everywhere
from make_files import GOLDEN, write_dicom, write_svs
from make_series import packed, write_ct, write_slice
from PIL import Image
from run_dragonfly import expect_error
from tuning_data import finetune, make_data, pattern, record_of, taught, write_rows

from dragonfly_cli.datasets.data_file import read_data
from dragonfly_cli.datasets.rows import Turn
from dragonfly_cli.engine.questions import CAPTION_INSTRUCTION
from dragonfly_cli.errors import InputError
from dragonfly_cli.finetuning.hashes import data_hashes
from dragonfly_cli.finetuning.splits import Split, split_rows
from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.dicom.patients import patients_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.mark.slow
def test_every_form_of_row_is_read(folder: Path, tmp_path: Path) -> None:
    turns = "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>"
    Image.fromarray(pattern(True, 1)).save(folder / "wide.png")
    write_dicom(folder / "film.dcm", np.tile(np.arange(64, dtype=np.uint16), (64, 1)), window=(32, 64))
    rows = [
        {
            "image": "0.png",
            "conversations": [{"from": "human", "value": "<image>\nHi?"}, {"from": "gpt", "value": "Yes"}],
        },
        {"image": "1.png", "conversations": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"image_url": "2.png", "conversations": turns.format("user", "c") + turns.format("assistant", "d")},
        {"image_url": "3.png", "text": "A caption.", "source": "somewhere"},
        {"image": "film.dcm", "question": "How many?", "answer": 3},
        {"image": "wide.png", "question": "e", "answer": "f", "region": [10, 10, 40, 30], "frame": 0},
    ]
    outcome = finetune(write_rows(folder / "forms.jsonl", rows), tmp_path / "out", "--steps", "1", "--hold-out", "0")
    assert outcome.code == 0, outcome.stderr
    assert record_of(tmp_path / "out")["rows"]["train"] == 6
    assert record_of(tmp_path / "out")["bad_rows"] == []
    written = b"".join(file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file())
    secret = ["ID-4711-SECRET", *patients_in(folder / "film.dcm")]
    assert len(secret) == 3
    assert not any(each.encode() in written for each in secret)


@pytest.mark.slow
def test_a_row_is_about_its_region_its_frame_and_the_window(tmp_path: Path) -> None:
    """It teaches, and is scored, as a file that holds nothing else; and nothing seen otherwise is made use of."""
    left, right = (pattern(*which)[..., 0].astype(np.uint16) for which in ((True, 1), (False, 2)))
    wide, narrow = (150, 400), (200, 90)
    write_dicom(tmp_path / "both.dcm", np.concatenate([left, right], axis=1), window=wide)
    write_dicom(tmp_path / "frames.dcm", np.stack([left, right]), window=wide)
    write_dicom(tmp_path / "other.dcm", left + 1, window=wide)
    write_dicom(tmp_path / "left.dcm", left, window=narrow)
    write_dicom(tmp_path / "right.dcm", right, window=narrow)
    regions = ({"region": [0, 0, 96, 96]}, {"region": [96, 0, 96, 96]})
    parts = [*({"image": "both.dcm", **region} for region in regions), {"image": "frames.dcm", "frame": 1}]
    whole = [{"image": name} for name in ("left.dcm", "right.dcm", "right.dcm")]
    arguments = ("--recipe", "stage1", "--steps", "1")
    losses = []
    for name, rows, window in (("parts", parts, ("--window", "90,200")), ("whole", whole, ())):
        held_out = [{**taught(number, split="val", patient="b"), **row} for number, row in enumerate(rows)]
        learnt = {**taught(0, split="train", patient="a"), "image": "other.dcm"}
        data = write_rows(tmp_path / f"{name}.jsonl", [learnt, *held_out])
        outcome = finetune(data, tmp_path / name, *arguments, *window)
        assert outcome.code == 0, outcome.stderr
        losses.append(record_of(tmp_path / name)["metrics"]["before"]["loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    other = finetune(tmp_path / "parts.jsonl", tmp_path / "parts", *arguments, "--window", "90,201")
    expect_error(other, 7, "other settings (opening)")


PART = [300, 300, 400, 300]


@pytest.mark.slow
def test_of_a_slide_a_region_or_the_overview_is_learnt_from(tmp_path: Path) -> None:
    """What is looked at, and so what is warned of, depends on the region and on how large a field the model sees."""
    pixels = np.full((1600, 2400, 3), 245, np.uint8)
    pixels[200:1400, 200:2200] = (200, 110, 160)  # tissue without any detail
    write_svs(tmp_path / "slide.svs", pixels=pixels)
    part, whole = ({"image": "slide.svs", "question": "a", "answer": "b", **more} for more in ({"region": PART}, {}))
    arguments = ("--recipe", "stage1", "--steps", "1", "--hold-out", "0")
    for name, rows, model, warns in (
        ("part", [part], GOLDEN / "v1", False),
        ("both", [part, whole], GOLDEN / "v1", True),
        ("wide", [whole], GOLDEN / "v2", False),
    ):
        data = write_rows(tmp_path / "rows.jsonl", rows)
        outcome = finetune(data, tmp_path / name, *arguments, model=model / "checkpoint")
        assert outcome.code == 0, outcome.stderr
        assert ("warning: 1 picture: of a slide only the overview is learnt from" in outcome.stderr) == warns
        assert ("out of focus" in outcome.stderr) == warns


BAD_ROWS = [
    ("this is no JSON", "not JSON"),
    ({"question": "a", "answer": "b"}, "image"),
    ({"image": "0.png", "question": "a"}, "answer is no text"),
    ({"image": "0.png", "question": "a", "answer": "  "}, "answer is empty"),
    ({"image": "0.png", "question": "a <|eot_id|>", "answer": "b"}, "structure a prompt"),
    ({"image": "0.png"}, "no question"),
    ({"image": "0.png", "question": "a", "answer": "b", "split": "perhaps"}, "split"),
    ({"image": "0.png", "question": "a", "answer": "b", "frame": -1}, "frame"),
    ({"image": "0.png", "question": "a", "answer": "b", "region": [0, 0, 0, 4]}, "region is empty"),
    ({"image": "0.png", "conversations": [{"from": "human", "value": "a"}]}, "no answer"),
    ({"image": "0.png", "conversations": "free text"}, "Llama 3"),
    ({"image": "gone.png", "question": "a", "answer": "b"}, "gone.png"),
    ({"image": "0.png", "question": "a", "answer": float("nan")}, "answer is no text"),
    ("[" * 100_000, "it is not JSON"),
    ('{"image": "0.png", "question"', "it is not JSON"),
    ([taught(0), taught(1)], "not an object"),
    (
        {"image": "0.png", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": float("nan")}]},
        "no text",
    ),
    ({"image": "0.png", "question": "half a smile \ud83d", "answer": "b"}, "half a character"),
    ({"image": "0.png\0", "question": "a", "answer": "b"}, "zero byte"),
    ('{"image": "0.png", "question": "a", "answer": "b", "answer": "c"}', "two columns have the same name"),
    ({"image": "0.png", "Image": "1.png", "question": "a", "answer": "b"}, "two columns have the same name"),
    ({"image": "0.png", "question": "a", "answer": 10**400}, "no text"),
    ({"image": "0" * 300, "question": "a", "answer": "b"}, "too long"),
    ({"image": "half a smile \ud83d.png", "question": "a", "answer": "b"}, "half a letter"),
    ({"image": "pipe", "question": "a", "answer": "b"}, "a pipe or a device"),
    ({"image": "/dev/zero", "question": "a", "answer": "b"}, "a pipe or a device"),
    ({"image": "0.png", "question": "a", "answer": "b", "region": "0,0,9,9"}, "a list of four whole numbers"),
    ({"image": "0.png", "question": "a", "answer": "b", "region": [0, 0, 9.5, 9]}, "a list of four whole numbers"),
    ({"image": "0.png", "question": "a", "answer": "b", "region": [0, 0, float("inf"), 9]}, "four whole numbers"),
    ({"image": "0.png", "question": "a", "answer": "", "text": "c", "conversations": []}, "answer is empty"),
    ({"image": "0.png", "question": "<image>", "answer": "b"}, "question is empty"),
    ({"image": "0.png", "question": "", "answer": "b", "text": None, "conversations": []}, "column question is empty"),
    ({"image": "0.png", "conversations": []}, "column conversations is empty"),
    ({"image": "0.png", "conversations": " "}, "column conversations is empty"),
    ({"image": "0.png", "text": ""}, "column text is empty"),
    ({"image": "", "question": "a", "answer": "b"}, "image holds no path"),
    ({"image": "0.png", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": ""}]}, "is empty"),
]


@pytest.mark.parametrize(("row", "why"), BAD_ROWS)
def test_a_bad_row_is_named_and_refused_before_training(folder: Path, tmp_path: Path, row: Any, why: str) -> None:
    if not (folder / "pipe").exists():
        os.mkfifo(folder / "pipe")
    data = write_rows(folder / "bad.jsonl", [taught(0), row])
    outcome = finetune(data, tmp_path / "out", "--max-errors", "0")
    expect_error(outcome, 4, "1 row cannot be used", "row 2", why)
    assert not (tmp_path / "out").exists()


def test_a_file_of_another_form_is_told_what_a_row_looks_like(folder: Path, tmp_path: Path) -> None:
    (folder / "array.json").write_text(json.dumps([taught(number) for number in range(6)], indent=1))
    outcome = finetune(folder / "array.json", tmp_path / "out")
    expect_error(outcome, 4, "32 rows cannot be used", "row 1: it is not JSON")
    assert 'every line is a row of its own, {"image"' in outcome.stderr
    (folder / "other.jsonl").write_bytes(json.dumps(taught(0)).encode("utf-16"))
    outcome = finetune(folder / "other.jsonl", tmp_path / "out")
    expect_error(outcome, 4, "not UTF-8")
    assert "give JSONL in UTF-8" in outcome.stderr


@pytest.mark.slow
def test_bad_rows_are_left_out_up_to_a_number(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("white", "pink")]
    frames[0].save(folder / "frames.tif", save_all=True, append_images=frames[1:])
    bad = [
        "not JSON",
        {"image": "frames.tif", "question": "which of them?", "answer": "b"},
        {"image": "broken.png", "question": "a", "answer": "b"},
        {"image": "0.png", "question": "long " * 900, "answer": "b"},
        {"image": "0.png", "question": "a", "answer": "b", "region": [90, 90, 40, 40]},
    ]
    data = write_rows(folder / "some_bad.jsonl", [*bad, *(taught(number) for number in range(6))])
    outcome = finetune(data, tmp_path / "out", "--steps", "1", "--hold-out", "0", "--max-errors", "5")
    assert outcome.code == 0, outcome.stderr
    bad_rows = record_of(tmp_path / "out")["bad_rows"]
    assert [line.split(":")[0] for line in bad_rows] == ["row 1", "row 2", "row 3", "row 4", "row 5"]
    assert "has 2 frames" in bad_rows[1]
    assert outcome.stderr.count("warning: left out row") == 5
    refused = tmp_path / "refused"
    expect_error(finetune(data, refused, "--steps", "1", "--hold-out", "0", "--max-errors", "4"), 4, "5 rows")
    assert not refused.exists()


@pytest.mark.parametrize("data", ["{real}/rows.jsonl", "rows.jsonl", "../real/rows.jsonl", "{link}/rows.jsonl"])
@pytest.mark.parametrize(
    ("image", "shown"),
    [
        ("gone.png", "gone.png"),
        ("../gone.png", "../gone.png"),
        ("elsewhere/gone.png", "elsewhere/gone.png"),  # a link within the data stays as it is called there
        ("linked.png", "linked.png"),
        ("elsewhere/../real/gone.png", "gone.png"),
        ("{real}/gone.png", "gone.png"),
        ("{link}/gone.png", "gone.png"),
        ("{real}/elsewhere/gone.png", "elsewhere/gone.png"),
        ("{link}/linked.png", "linked.png"),
        ("{link}/elsewhere/gone.png", "elsewhere/gone.png"),
        ("{outside}/gone.png", "{outside}/gone.png"),
    ],
)
def test_a_picture_left_out_is_named_without_the_place_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, image: str, shown: str
) -> None:
    places = {name: tmp_path / name for name in ("real", "link", "outside")}
    places["real"].mkdir()
    places["outside"].mkdir()
    places["link"].symlink_to(places["real"])
    (places["real"] / "elsewhere").symlink_to(places["outside"])
    (places["real"] / "linked.png").symlink_to(places["outside"] / "gone.png")
    write_rows(places["real"] / "rows.jsonl", [{**taught(0), "image": image.format(**places)}])
    monkeypatch.chdir(places["real"])
    read = read_data(Path(data.format(**places)))
    read.leave_out({1: f"no such file: {read.rows[0].picture.path}"})
    assert read.bad_lines() == [f"row 1: no such file: {shown.format(**places)}"]


def test_a_lost_picture_is_named_alike_wherever_the_command_is_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write_rows(folder / "lost.jsonl", [taught(0), {**taught(1), "image": str(folder / "gone.png")}])
    monkeypatch.chdir(folder.parent)
    for data in (rows, rows.relative_to(folder.parent)):
        outcome = finetune(data, tmp_path / "out", "--max-errors", "0")
        expect_error(outcome, 4, "row 2: cannot read gone.png")


@pytest.mark.parametrize("column", ["patient", "slide", "group"])
def test_a_leak_between_the_splits_is_refused_without_quoting_it(folder: Path, tmp_path: Path, column: str) -> None:
    rows = [
        taught(0, split="train", **{column: "Secret^Name"}),
        taught(1, split="val", **{column: "other"}),
        taught(2, split="test", **{column: "Secret^Name"}),
    ]
    outcome = finetune(write_rows(folder / "leak.jsonl", rows), tmp_path / "out")
    expect_error(outcome, 4, f"column {column}", "row 3 with row 1")
    assert "Secret" not in outcome.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (7, 7.0),
        (7, "7"),
        ("P 7", " P 7 "),
        (7.0, "7 "),
        ("7.0", 7),
        ("7.00", "\uff17"),
        (normalize("NFC", "Jos\u00e9"), normalize("NFD", "Jos\u00e9")),
        ("P\u00a07", "P 7"),
    ],
)
def test_a_patient_is_the_same_however_the_column_is_written(
    folder: Path, tmp_path: Path, here: Any, there: Any
) -> None:
    rows = [taught(0, split="train", patient=here), taught(1, split="val", patient=there)]
    expect_error(finetune(write_rows(folder / "same.jsonl", rows), tmp_path / "out"), 4, "column patient leaks")


@pytest.mark.parametrize(("here", "there"), [("007", 7), ("7.5", "7"), ("1.2.0", "1.2"), ("1.0.0", "1")])
def test_patients_that_only_look_alike_are_two(folder: Path, here: Any, there: Any) -> None:
    rows = [taught(0, split="train", patient=here), taught(1, split="val", patient=there)]
    data = read_data(write_rows(folder / "alike.jsonl", rows))
    assert len(split_rows(data.path, data.rows, 0.1, 0).held_out) == 1


def test_gaps_in_a_table_of_numbers_are_no_group_and_no_frame(folder: Path) -> None:
    nan = float("nan")
    rows = [taught(0, split="train", patient=nan, frame=nan), taught(1, split="val", patient=nan, frame=0.0)]
    data = read_data(write_rows(folder / "gaps.jsonl", rows))
    assert not data.bad
    assert [row.picture.frame for row in data.rows] == [None, 0]
    assert len(split_rows(data.path, data.rows, 0.1, 0).held_out) == 1


ASKED, TOLD = [Turn("a", "b")], [Turn(CAPTION_INSTRUCTION, "c")]
SAID = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"question": "a", "answer": "b", "conversations": []}, ASKED),
        ({"question": "a", "answer": "b", "conversations": ""}, ASKED),
        ({"question": "a", "answer": "b", "text": "", "image_url": "", "frame": "", "region": "", "split": " "}, ASKED),
        ({"question": "a", "answer": "b", "region": [], "patient": ""}, ASKED),
        ({"question": "", "answer": "", "text": "c"}, TOLD),
        ({"question": " ", "answer": None, "text": "c", "conversations": []}, TOLD),
        ({"question": "", "answer": "", "text": "", "conversations": SAID}, ASKED),
        ({"conversations": [{**turn, "role": "", "content": ""} for turn in SAID]}, ASKED),
        ({"conversations": [{"from": "", "value": "", "role": t["from"], "content": t["value"]} for t in SAID]}, ASKED),
    ],
)
def test_an_empty_column_of_a_merged_table_is_as_none(folder: Path, row: dict[str, Any], turns: list[Turn]) -> None:
    data = read_data(write_rows(folder / "merged.jsonl", [{"image": "0.png", **row}]))
    assert not data.bad
    (read,) = data.rows
    assert list(read.turns) == turns
    assert (read.picture.frame, read.picture.region, read.is_held_out, read.groups) == (None, None, None, {})


def test_whole_numbers_of_a_region_may_have_a_fraction_of_nothing(folder: Path) -> None:
    regions = [[0.0, 1.0, 10.0, 12.0], {"x": 0.0, "y": 1, "width": 10.0, "height": 12}]
    rows = [taught(0, region=region) for region in regions]
    data = read_data(write_rows(folder / "regions.jsonl", rows))
    assert not data.bad
    assert [row.picture.region for row in data.rows] == [Box(0, 1, 10, 12)] * 2
    assert all(isinstance(row.picture.region.width, int) for row in data.rows)


def test_a_picture_on_both_sides_is_a_leak(folder: Path, tmp_path: Path) -> None:
    rows = [taught(0, split="train"), {**taught(1, split="val"), "image": "./0.png"}]
    expect_error(finetune(write_rows(folder / "twice.jsonl", rows), tmp_path / "out"), 4, "column image", "row 2")
    shutil.copy(folder / "0.png", folder / "copy.png")
    rows[1]["image"] = "copy.png"
    expect_error(finetune(write_rows(folder / "twice.jsonl", rows), tmp_path / "out"), 4, "column image", "row 2")


def test_large_scans_that_begin_and_end_alike_are_two_pictures(tmp_path: Path) -> None:
    for shade in (0, 90):
        pixels = np.full((5000, 4600, 3), 255, np.uint8)
        pixels[2000:3000] = shade
        Image.fromarray(pixels).save(tmp_path / f"{shade}.tif")
    (tmp_path / "copy.tif").hardlink_to(tmp_path / "0.tif")
    assert len(divided(tmp_path, "0.tif", "90.tif").held_out) == 1
    with pytest.raises(InputError, match="column image leaks"):
        divided(tmp_path, "0.tif", "copy.tif")


def test_files_and_folders_without_content_are_bad_rows_and_no_leak(folder: Path, tmp_path: Path) -> None:
    for name in ("empty", "hollow", "hollow/deeper"):
        (folder / name).mkdir()
    for name in ("nothing.png", "no_more.png", "hollow/deeper/IM0", "empty/.hidden"):
        (folder / name).touch()
    names = ("nothing.png", "no_more.png", "empty", "hollow")
    rows = [taught(0, split="train"), taught(1, split="val")]
    rows += [{**taught(0, split=("train", "val")[place % 2]), "image": name} for place, name in enumerate(names)]
    data = write_rows(folder / "empty.jsonl", rows)
    bad = [f"row {number}: cannot read {name}: it is empty" for number, name in enumerate(names, 3)]
    outcome = finetune(data, tmp_path / "out", "--max-errors", "3")
    expect_error(outcome, 4, "4 rows cannot be used", "; ".join(bad))
    read = read_data(data)
    data_hashes(read)
    assert read.bad_lines() == bad
    assert len(split_rows(data, read.rows, 0.1, 0).train) == 1


def test_a_folder_that_may_not_be_looked_into_is_a_bad_row(tmp_path: Path) -> None:
    with TemporaryDirectory() as name:  # pytest's own are closed to all others, from above
        place = Path(name)
        make_data(place)
        for closed, mode in (("closed", 0), ("named", 0o744)):
            write_dicom(place / "film.dcm", np.zeros((8, 8), np.uint8))
            (place / closed / "inner").mkdir(parents=True)
            shutil.copy(place / "film.dcm", place / closed / "inner")
            (place / closed / "inner").chmod(mode)
        place.chmod(0o777)
        rows = [taught(0), *({**taught(0), "image": closed} for closed in ("closed", "named"))]
        write_rows(place / "few.jsonl", rows)
        with may_not_write_everywhere():
            outcome = finetune(place / "few.jsonl", place / "out", "--max-errors", "1")
        expect_error(outcome, 4, "2 rows cannot be used", "row 2: cannot read closed/inner: Permission denied")
        assert "row 3: cannot read named/inner/film.dcm: Permission denied" in outcome.stderr


def test_the_hash_of_a_folder_is_one_of_every_pixel(folder: Path) -> None:
    pixels = np.zeros((300, 300), np.uint16)
    for name in ("IM0", "IM1"):
        write_slice(folder / "series" / name, 0, PixelData=pixels.tobytes(), Rows=300, Columns=300)
    data = read_data(write_rows(folder / "series.jsonl", [{**taught(0), "image": "series"}]))
    before = data_hashes(data)
    changed = bytearray((folder / "series" / "IM1").read_bytes())
    changed[-2] = 1
    (folder / "series" / "IM1").write_bytes(changed)
    after = data_hashes(data)
    assert after["file"] == before["file"]
    assert after["images_sha256"] != before["images_sha256"]
    (folder / "series" / ".DS_Store").write_text("no picture")
    assert data_hashes(data) == after


WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
UNNAMED = {"PatientID": None}


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures of ``folder``, and a series of one patient: as a folder, in archives, with a slide beside it."""
    place = make_data(tmp_path_factory.mktemp("studies"))
    write_ct(place / "series")
    packed(place / "series", "zip")
    packed(place / "series", "tgz")
    write_dicom(place / "slide.dcm", np.zeros((8, 8), np.uint8), SOPClassUID=WHOLE_SLIDE)
    return place


def divided(place: Path, *images: str, **split: str) -> Split:
    """Rows about these pictures, by turns for learning and held out, as ``finetune`` divides them."""
    rows = [{**taught(0), "image": image, "split": ("train", "val")[turn % 2]} for turn, image in enumerate(images)]
    data = read_data(write_rows(place / "divided.jsonl", [row | split for row in rows]))
    data_hashes(data)
    assert not data.bad
    return split_rows(data.path, data.rows, 0.1, 0)


def test_a_series_and_its_archive_are_a_leak_that_names_nobody(studies: Path, tmp_path: Path) -> None:
    rows = [{**taught(0, split="train"), "image": "series"}, {**taught(0, split="val"), "image": "series.zip"}]
    outcome = finetune(write_rows(studies / "leak.jsonl", rows), tmp_path / "out")
    expect_error(outcome, 4, "column image leaks: 1 held-out rows show the same patient or study", "row 2 with row 1")
    assert "4711" not in outcome.stderr
    assert not any(key in outcome.stderr for key in patients_in(studies / "series"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("here", "there"),
    [("series", "series/IM3"), ("series/IM0", "series/IM1"), ("series.tar.gz", "series.zip"), ("slide.dcm", "series")],
)
def test_a_patient_is_the_same_however_the_files_are_packed(studies: Path, here: str, there: str) -> None:
    with pytest.raises(InputError, match="the same patient or study"):
        divided(studies, here, there)


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ({"PatientID": "A7 "}, {"PatientID": "A7"}),
        ({"PatientID": normalize("NFC", "Jos\u00e9")}, {"PatientID": normalize("NFD", "Jos\u00e9")}),
        ({**UNNAMED, "StudyInstanceUID": "1.2.7"}, {"PatientID": "A7", "StudyInstanceUID": "1.2.7"}),
        ({"PatientID": "ANONYMOUS", "SeriesInstanceUID": "1.2.7"}, {**UNNAMED, "SeriesInstanceUID": "1.2.7"}),
        ({**UNNAMED, "SOPInstanceUID": "1.2.7"}, {"PatientID": "0", "SOPInstanceUID": "1.2.7", "Modality": "CT"}),
    ],
)
def test_pictures_of_one_patient_or_study_belong_together(
    tmp_path: Path, here: dict[str, Any], there: dict[str, Any]
) -> None:
    for name, elements in (("here.dcm", here), ("there.dcm", there)):
        write_dicom(tmp_path / name, np.zeros((8, 8), np.uint8), SpecificCharacterSet="ISO_IR 192", **elements)
    with pytest.raises(InputError, match="the same patient or study"):
        divided(tmp_path, "here.dcm", "there.dcm")


PLACEHOLDERS = ("", "ANONYMOUS", "Anon.", "0", "000000", "UNKNOWN", "n/a", "XXX", "De-Identified", "No ID")


@pytest.mark.parametrize("elements", [UNNAMED, *({"PatientID": text} for text in PLACEHOLDERS)])
def test_no_patient_is_made_of_those_whose_id_was_removed(tmp_path: Path, elements: dict[str, Any]) -> None:
    for study in ("1.2.7", "1.2.8"):
        write_dicom(tmp_path / study, np.zeros((8, 8), np.uint8), StudyInstanceUID=study, **elements)
    assert len(divided(tmp_path, "1.2.7", "1.2.8").held_out) == 1


def test_an_id_counts_with_who_gave_it(tmp_path: Path) -> None:
    for issuer in ("north", "south"):
        write_dicom(tmp_path / issuer, np.zeros((8, 8), np.uint8), PatientID="7", IssuerOfPatientID=issuer)
    assert len(divided(tmp_path, "north", "south").held_out) == 1


def test_a_column_says_more_than_a_header(tmp_path: Path) -> None:
    """Data may have the name of a trial for the id of everybody."""
    for name in ("north", "south"):
        write_dicom(tmp_path / name, np.full((8, 8), len(name), np.uint8), PatientID="TRIAL-7", InstitutionName=name)
    rows = [
        {**taught(0, split=side, patient=name), "image": name} for side, name in (("train", "north"), ("val", "south"))
    ]
    data = read_data(write_rows(tmp_path / "rows.jsonl", rows))
    data_hashes(data)
    assert len(split_rows(data.path, data.rows, 0.1, 0).held_out) == 1


def test_headers_count_where_one_of_two_rows_has_no_column(tmp_path: Path) -> None:
    for number, patient in enumerate(("7", "7", "8")):
        write_dicom(tmp_path / f"{number}.dcm", np.full((8, 8), number, np.uint8), PatientID=patient)
    rows = [
        {**taught(0, split="train", patient="A"), "image": "0.dcm"},
        {**taught(0, split="val"), "image": "1.dcm"},
        {**taught(0, split="val"), "image": "2.dcm"},
    ]
    outcome = finetune(write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out")
    expect_error(outcome, 4, "1 held-out rows show the same patient or study", "first row 2 with row 1")
    assert "say so in a column patient of every row" in outcome.stderr


def test_what_cannot_be_read_belongs_to_nobody(studies: Path, tmp_path: Path) -> None:
    film, archive = (studies / "slide.dcm").read_bytes(), (studies / "series.zip").read_bytes()
    damaged = {
        "cut.dcm": film[:200],
        "odd.dcm": film[:300] + bytes(range(256)),
        "no.dcm": b"no DICOM at all",
        "cut.zip": archive[:1000],
        "cut.tgz": (studies / "series.tar.gz").read_bytes()[:100],
        "odd.zip": b"PK\3\4" + bytes(range(256)),
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        assert patients_in(tmp_path / name) == frozenset()
    shutil.copytree(tmp_path, tmp_path / "all")
    shutil.copy(studies / "series" / "IM0", tmp_path / "all")
    assert patients_in(tmp_path / "all") == patients_in(studies / "series" / "IM0")
    assert patients_in(studies / "0.png") == patients_in(tmp_path / "gone") == frozenset()


def test_slices_of_a_patient_are_drawn_to_one_side(tmp_path: Path) -> None:
    for number in range(12):
        ids = {"PatientID": f"patient {number % 3}", "StudyInstanceUID": f"1.2.{number}"}
        write_dicom(tmp_path / f"{number}.dcm", np.full((8, 8), number, np.uint8), **ids)
    split = divided(tmp_path, *(f"{number}.dcm" for number in range(12)), split="")
    assert split.by == "drawn by image, patient in DICOM"
    assert len(split.held_out) == 4
    assert len({(row.number - 1) % 3 for row in split.held_out}) == 1
    assert not any(key in repr(row) for row in split.train for key in row.patients)
    alone = divided(tmp_path, "0.dcm", "3.dcm", "6.dcm", split="")
    assert alone.summary() == "3 rows, none held out (all belong together)"


def test_what_is_held_out_shares_nothing_with_the_rest(folder: Path) -> None:
    rows = [
        taught(number % 7, patient=f"p{number % 5}", **({"slide": "s"} if number in (3, 11) else {}))
        for number in range(20)
    ]
    data = read_data(write_rows(folder / "groups.jsonl", [*rows, *(taught(n, patient=f"q{n}") for n in (8, 9, 10))]))
    for seed in range(8):
        split = split_rows(data.path, data.rows, 0.1, seed)
        assert len(split.train) + len(split.held_out) == 23
        assert split.held_out
        for key in (
            lambda row: row.picture.path,
            lambda row: row.groups["patient"],
            lambda row: row.groups.get("slide"),
        ):
            shared = {key(row) for row in split.train} & {key(row) for row in split.held_out}
            assert shared <= {None}


def test_no_more_is_held_out_than_must_be(folder: Path) -> None:
    rows = [taught(number, patient="small" if number < 3 else "large") for number in range(12)]
    data = read_data(write_rows(folder / "uneven.jsonl", rows))
    for seed in range(8):
        assert {row.groups["patient"] for row in split_rows(data.path, data.rows, 0.1, seed).held_out} == {"small"}


def test_parquet_rows_are_read(folder: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    write_table(pyarrow.Table.from_pylist([taught(0, frame=None), taught(1, frame=0)]), folder / "rows.parquet")
    data = read_data(folder / "rows.parquet")
    assert not data.bad
    assert [row.turns[0].answer for row in data.rows] == ["No", "Yes"]
    assert [row.picture.frame for row in data.rows] == [None, 0]
    forms = [
        [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    ]
    table = pyarrow.Table.from_pylist([{"image": "0.png", "conversations": turns} for turns in forms])
    write_table(table, folder / "turns.parquet")  # in which every turn has all four columns
    assert [row.turns for row in read_data(folder / "turns.parquet").rows] == [(Turn("a", "b"),)] * 2
    (folder / "no.parquet").write_bytes(b"PAR1 and no more")
    expect_error(finetune(folder / "no.parquet", tmp_path / "out"), 4, "not a Parquet file")


def undecodable(kind: str) -> Any:
    """A column of two values: one that has no form in Python, and one that has."""
    pyarrow = pytest.importorskip("pyarrow")
    if kind == "invalid UTF-8":
        ends, letters = np.array([0, 2, 3], dtype=np.int32), b"\xff\xfea"
        return pyarrow.StringArray.from_buffers(2, pyarrow.py_buffer(ends), pyarrow.py_buffer(letters))
    types = {
        "nanoseconds": pyarrow.timestamp("ns"),  # with pandas these have a form
        "after the year 9999": pyarrow.timestamp("us"),
        "a zone of its own": pyarrow.timestamp("us", tz="Mars/Olympus"),
    }
    return pyarrow.array([2**62 if kind == "after the year 9999" else 1, 1000], types[kind])


@pytest.mark.parametrize("kind", ["nanoseconds", "invalid UTF-8", "after the year 9999", "a zone of its own"])
def test_columns_of_parquet_that_nobody_asked_for_are_not_read(folder: Path, kind: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    table = pyarrow.Table.from_pylist([taught(0), taught(1)]).append_column("acquired", undecodable(kind))
    write_table(table.append_column("image.size", pyarrow.array([1, 2])), folder / "extra.parquet")
    data = read_data(folder / "extra.parquet")
    assert not data.bad
    assert [row.picture.path.name for row in data.rows] == ["0.png", "1.png"]


@pytest.mark.parametrize("column", ["answer", "patient"])
def test_a_value_of_parquet_that_cannot_be_decoded_makes_its_row_a_bad_one(
    folder: Path, tmp_path: Path, column: str
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    table = pyarrow.Table.from_pylist([{"image": "0.png", "question": "a", "answer": "b"}] * 2)
    table = table.select([name for name in table.column_names if name != column])
    write_table(table.append_column(column, undecodable("invalid UTF-8")), folder / "torn.parquet")
    data = read_data(folder / "torn.parquet")
    assert [row.number for row in data.rows] == [2]
    assert data.bad_lines() == [f"row 1: the column {column} holds a value that cannot be decoded"]
    outcome = finetune(folder / "torn.parquet", tmp_path / "out", "--max-errors", "0")
    expect_error(outcome, 4, "1 row cannot be used", f"row 1: the column {column}")


def test_parquet_without_any_column_of_a_row_names_its_rows(folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    write_table(pyarrow.table({"picture": ["0.png", "1.png"]}), folder / "other.parquet")
    assert list(read_data(folder / "other.parquet").bad) == [1, 2]


def test_a_group_of_its_own_column_is_not_divided(folder: Path) -> None:
    rows = [taught(number, group="north" if number % 2 else "south") for number in range(10)]
    data = read_data(write_rows(folder / "groups.jsonl", rows))
    split = split_rows(data.path, data.rows, 0.5, 0)
    assert sorted(row.number % 2 for row in split.held_out) in ([0] * 5, [1] * 5)


def test_what_just_fits_the_share_is_held_out(folder: Path) -> None:
    data = read_data(write_rows(folder / "own.jsonl", [taught(number) for number in range(10)]))
    assert len(split_rows(data.path, data.rows, 0.3, 0).held_out) == 3
