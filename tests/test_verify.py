"""``verify`` asks again what a record holds, and tells drift of the answer, the image and the model."""

import json
from pathlib import Path

import numpy as np
import PIL
import pytest
from batch_runs import TINY
from make_files import write_dicom, write_dicom_slide, write_svs
from PIL import Image
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.option_values import Attention
from dragonfly_cli.options import AnswerOptions, LookOptions
from dragonfly_cli.output.record import source_record
from dragonfly_cli.readers import open_source
from dragonfly_cli.recorded import options_from

QUESTION = "Is there a tumour?"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.effect_noise((200, 150), 80).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def record_of(image: Path, *arguments: str | Path) -> Path:
    file = image.with_name("record.json")
    assert dragonfly("ask", image, *arguments, "--json", "-o", file).code == 0
    return file


def written(image: Path) -> Path:
    """A record made up for ``image``, as far as it is read before a model is loaded."""
    content = {
        "schema_version": 1,
        "image": str(image),
        "source": source_record(open_source(image)),
        "question": QUESTION,
        "answer": "Yes",
        "probabilities": {"yes": 0.75, "no": 0.25},
        "fields": [
            {
                "id": 0,
                "role": "whole",
                "frame": 0,
                "box": {"x": 0, "y": 0, "width": 200, "height": 150},
                "probabilities": {"yes": 0.75, "no": 0.25},
            }
        ],
        "model": {"id": "demo", "sha256": None, "dtype": "float32"},
        "settings": {"type": "yesno", "options": ["yes", "no"], "schema": None, "system": None, "earlier": []},
    }
    file = image.with_name("record.json")
    file.write_text(json.dumps(content))
    return file


def changed(file: Path, **values: object) -> Path:
    content = json.loads(file.read_text())
    other = file.with_name("changed.json")
    other.write_text(json.dumps(content | values))
    return other


@pytest.mark.slow
def test_what_was_answered_is_answered_again(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGONFLY_MODEL", str(TINY))
    schema = photo.with_name("schema.json")
    schema.write_text('{"enum": ["lung", "liver"]}')
    for arguments in (
        [QUESTION, "Is it bone?", "What is it?", "--control", "blank"],
        ["Which?", "--options", "lung,liver", "--abstain", "0.5"],
        ["How?", "--scale", "0-3"],
        ["Which organ?", "--schema", schema],
        ["What is it?", "--temperature", "1.5", "--seed", "7", "--max-tokens", "9"],
    ):
        outcome = dragonfly("verify", record_of(photo, *arguments))
        assert outcome.code == 0, outcome.stderr
        assert all(line.startswith("same  ") for line in outcome.stdout.splitlines())


def test_every_frame_that_was_looked_at_is_looked_at_again(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 40, 50), np.uint8)
    clip = write_dicom(tmp_path / "clip.dcm", pixels)
    file = record_of(clip, QUESTION, "--budget", "2", "--aggregate", "max")
    report = dragonfly("verify", file, "--json").json
    assert [each["same"] for each in report] == [True]
    assert report[0]["largest_difference"] < 1e-4


def test_the_fields_of_a_slide_are_looked_at_again_without_a_search(tmp_path: Path) -> None:
    file = record_of(write_svs(tmp_path / "slide.svs"), QUESTION, "--budget", "3")
    assert len(json.loads(file.read_text())["fields"]) > 1
    (compared,) = dragonfly("verify", file, "--json").json
    assert compared["same"]


def test_a_montage_is_put_together_again(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (4, 40, 50), np.uint8)
    file = record_of(write_dicom(tmp_path / "clip.dcm", pixels), QUESTION, "--montage", "2x2")
    assert json.loads(file.read_text())["fields"][0]["box"]["width"] > 50
    assert dragonfly("verify", file).code == 0


def test_answers_are_the_same_to_the_last_digit_when_asked_again(photo: Path) -> None:
    first, again = (dragonfly("ask", photo, QUESTION, "What is it?", "--json").json for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert one | {"timing": 0} == other | {"timing": 0}


def test_lines_of_json_and_a_moved_image(photo: Path, tmp_path: Path) -> None:
    lines = tmp_path / "records.jsonl"
    assert dragonfly("ask", photo, QUESTION, "Is it?", "-f", "jsonl", "-o", lines).code == 0
    photo.rename(tmp_path / "moved.png")
    expect_error(dragonfly("verify", lines), 3, "photo.png")
    outcome = dragonfly("verify", lines, "--image", tmp_path / "moved.png")
    assert (outcome.code, len(outcome.stdout.splitlines())) == (0, 2)


def test_drift_is_told(photo: Path) -> None:
    file = record_of(photo, QUESTION)
    for other in (
        changed(file, answer="Perhaps"),
        changed(file, probabilities={"yes": 0.5, "no": 0.5}),
    ):
        outcome = dragonfly("verify", other)
        assert outcome.code == 9
        assert outcome.stdout.startswith("drift ")
        assert "1 of 1 answers differ" in outcome.stderr


def test_drift_of_what_led_to_an_answer_is_told(photo: Path) -> None:
    file = record_of(photo, QUESTION)
    record = json.loads(file.read_text())
    (field,) = record["fields"]
    moved = [field["selected"][0] | {"x": field["selected"][0]["x"] + 1}, *field["selected"][1:]]
    for other, word in (
        ({"prompt": "Is it?"}, "different prompt"),
        ({"fields": [field | {"selected": moved}]}, "different boxes"),
        ({"fields": [field | {"answer": "Perhaps"}]}, "different answers about fields"),
        ({"option_mass": record["option_mass"] / 2}, "probabilities at most"),
    ):
        outcome = dragonfly("verify", changed(file, **other))
        assert outcome.code == 9
        assert outcome.stdout.startswith("drift ") and word in outcome.stdout


FALSE = {  # of a record about a slide of several fields, what is told where it was changed
    "aggregate": "different aggregate",
    "abstained": "different abstained",
    "width": "different image width",
    "height": "different image height",
    "frames": "different image frames",
    "mpp": "different image mpp",
    "mpp_source": "different image mpp_source",
    "box_um": "different boxes in microns",
    "selected_um": "different zoomed-in boxes in microns",
    "scale": "different scales of fields",
    "no answer": "different answers about fields",
    "no selected": "different boxes",
}


def test_false_evidence_is_told(tmp_path: Path) -> None:
    file = record_of(write_svs(tmp_path / "slide.svs"), QUESTION, "--budget", "2")
    record = json.loads(file.read_text())
    first, zoom = record["fields"]
    source = record["source"]
    microns = [box | {"x": box["x"] + 0.5} for box in zoom["selected_um"]]
    false = {
        "aggregate": {"aggregate": "max"},
        "abstained": {"abstained": True},
        "width": {"source": source | {"width": source["width"] + 1}},
        "height": {"source": source | {"height": source["height"] + 1}},
        "frames": {"source": source | {"frames": 2}},
        "mpp": {"source": source | {"mpp": [0.25, 0.25]}},
        "mpp_source": {"source": source | {"mpp_source": "option"}},
        "box_um": {"fields": [first, zoom | {"box_um": zoom["box_um"] | {"width": 1.0}}]},
        "selected_um": {"fields": [first, zoom | {"selected_um": microns}]},
        "scale": {"fields": [first, zoom | {"mpp": zoom["mpp"] * 1.01}]},
        "no answer": {"fields": [without(field, "answer") for field in record["fields"]]},
        "no selected": {"fields": [first, without(zoom, "selected")]},
    }
    records = [record | part for part in false.values()]
    file.write_text(json.dumps(records))
    outcome = dragonfly("verify", file)
    assert outcome.code == 9
    told = outcome.stdout.splitlines()
    assert [line[:5] for line in told] == ["drift"] * len(FALSE)
    assert [word for word, line in zip(FALSE.values(), told, strict=True) if not line.endswith(f"; {word})")] == []


def test_what_was_said_without_the_picture_is_compared(photo: Path) -> None:
    file = record_of(photo, QUESTION, "What is it?", "--control", "blank")
    typed, free = json.loads(file.read_text())
    turned = {"probabilities": {"yes": 0.5, "no": 0.5}}
    records = [record | {"control": record["control"] | {"answer": "Perhaps"}} for record in (typed, free)]
    file.write_text(json.dumps([*records, typed | {"control": typed["control"] | turned}, typed, free]))
    outcome = dragonfly("verify", file)
    assert outcome.code == 9
    told = outcome.stdout.splitlines()
    assert [line[:5] for line in told] == ["drift", "drift", "drift", "same ", "same "]
    assert all("different answer to the control)" in line for line in told[:2])
    assert "probabilities at most" in told[2]


def test_how_one_answer_was_written_of_several_is_compared(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 40, 50), np.uint8)
    clip = write_dicom(tmp_path / "clip.dcm", pixels)
    file = record_of(clip, "What is it?", "--budget", "3", "--aggregate", "synthesise", "-m", TINY, "--max-tokens", "3")
    assert dragonfly("verify", file).code == 0
    synthesis = json.loads(file.read_text())["synthesis"]
    for part in ({"answers": synthesis["answers"] + 1}, {"prompt": "Is it?"}, {"from_fields": 0.123}):
        outcome = dragonfly("verify", changed(file, synthesis=synthesis | part))
        assert outcome.code == 9 and "different synthesis" in outcome.stdout


def without(content: dict[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in content.items() if name not in names}


def test_a_record_of_a_version_that_knew_less_can_be_verified(photo: Path) -> None:
    file = record_of(photo, QUESTION)
    record = without(json.loads(file.read_text()), "aggregate", "abstained", "option_mass")
    record["source"] = without(record["source"], "mpp_source", "mpp")
    record["fields"] = [without(field, "box_um", "selected_um", "second_look_of") for field in record["fields"]]
    file.write_text(json.dumps(record))
    assert dragonfly("verify", file).code == 0


def test_a_record_cannot_widen_what_it_is_compared_with(photo: Path) -> None:
    """Numbers of 16 bits are less exact, but it was this device that answered, in 32."""
    file = record_of(photo, QUESTION)
    record = json.loads(file.read_text())
    yes = record["probabilities"]["yes"] + 0.015
    moved = {"probabilities": {"yes": yes, "no": 1 - yes}}
    less_exact = record["model"] | {"dtype": "bfloat16"}
    assert dragonfly("verify", changed(file, **moved, model=less_exact)).code == 9
    assert dragonfly("verify", changed(file, **moved, model=less_exact | {"device": "cuda"})).code == 0


def test_the_records_of_a_batch_are_asked_again(tmp_path: Path) -> None:
    """Those of a picture, of two series in one folder, and of what failed, which has no answer to compare."""
    study, table, records = tmp_path / "study", tmp_path / "answers.csv", tmp_path / "records.jsonl"
    study.mkdir()
    for number in range(4):
        place = {"SeriesInstanceUID": f"1.{number // 2}", "ImagePositionPatient": [0, 0, number]}
        place |= {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "SOPInstanceUID": f"1.9.{number}"}
        write_dicom(study / f"{number}.dcm", np.full((40, 40), 60 * number, np.uint8), **place)
    (study / "broken.png").write_text("broken")
    asked = ("-q", QUESTION, "-m", TINY, "-o", table, "--records", records)
    assert dragonfly("batch", study, *asked).code == 8
    compared = dragonfly("verify", records, "--json").json
    assert [(Path(each["image"]).name, each["same"]) for each in compared] == [("study#1", True), ("study#2", True)]
    records.write_text("".join(line for line in records.read_text().splitlines() if "broken.png" in line))
    expect_error(dragonfly("verify", records), 4, "only failed rows")


def test_rows_about_one_image_are_told_apart_by_their_options(tmp_path: Path) -> None:
    write_dicom(tmp_path / "clip.dcm", np.arange(3 * 40 * 40, dtype=np.uint16).reshape(3, 40, 40))
    (tmp_path / "rows.csv").write_text(f"image,frame\n{tmp_path / 'clip.dcm'},0\n{tmp_path / 'clip.dcm'},2\n")
    records = tmp_path / "records.jsonl"
    asked = ("-q", "Is it\nred?", "-m", TINY, "-o", tmp_path / "t.csv", "--records", records)
    assert dragonfly("batch", tmp_path / "rows.csv", *asked).code == 0
    assert [each["row_options"] for each in dragonfly("verify", records, "--json").json] == ["frame=0", "frame=2"]
    lines = dragonfly("verify", records).stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["same  Is it red? [frame=0]", "same  Is it red? [frame=2]"]


def test_of_records_whose_last_line_is_cut_off_the_whole_ones_are_asked_again(tmp_path: Path) -> None:
    """As a run leaves them that was killed while it wrote: here in the middle of a letter."""
    for name in ("a.png", "ü.png"):
        Image.effect_noise((60, 50), 80).convert("RGB").save(tmp_path / name)
    records = tmp_path / "records.jsonl"
    asked = ("-q", QUESTION, "-m", TINY, "-o", tmp_path / "t.csv", "--records", records)
    assert dragonfly("batch", tmp_path, *asked).code == 0
    content = records.read_bytes()
    records.write_bytes(content[: content.index("ü".encode()) + 1])
    outcome = dragonfly("verify", records)
    assert (outcome.code, outcome.stdout[:5]) == (9, "same ")
    assert "records.jsonl, line 2, is cut off" in outcome.error_lines[0]
    first = json.loads(content.splitlines()[0]) | {"answer": "Perhaps"}
    records.write_text(json.dumps(first) + "\n{")
    outcome = dragonfly("verify", records)
    assert outcome.code == 9
    assert "1 of 1 answers differ now; " in outcome.error_lines[0] and "line 2, is cut off" in outcome.error_lines[0]


def test_a_record_names_the_versions_of_what_read_the_picture(photo: Path) -> None:
    versions = json.loads(record_of(photo, QUESTION).read_text())["versions"]
    assert {"dragonfly-cli", "torch", "transformers", "pillow", "pydicom", "openslide-python"} <= set(versions)
    assert versions["pillow"] == PIL.__version__
    assert "bitsandbytes" not in versions  # no number of 4 bits had a part in it


def test_another_image_is_told_before_it_is_asked_about(photo: Path) -> None:
    file = record_of(photo, QUESTION)
    answer = json.loads(file.read_text())["answer"]
    Image.new("RGB", (200, 150)).save(photo)
    outcome = dragonfly("verify", file)
    assert (outcome.code, outcome.stdout) == (
        9,
        f"drift {QUESTION}: was {answer}, not asked again (different image sha256)\n",
    )
    assert "photo.png has changed" in outcome.stderr
    (compared,) = dragonfly("verify", file, "--json").json
    assert not compared["same"] and compared["now"] is None and compared["differing"] == ["image sha256"]


def test_of_several_images_one_that_is_gone_does_not_keep_the_others_from_being_asked(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.effect_noise((60, 50), 80).convert("RGB").save(tmp_path / "study" / name)
    records = tmp_path / "records.jsonl"
    asked = ("-q", QUESTION, "-m", TINY, "-o", tmp_path / "t.csv", "--records", records)
    assert dragonfly("batch", tmp_path / "study", *asked).code == 0
    (tmp_path / "study" / "a.png").unlink()
    (tmp_path / "study" / "c.png").write_text("oops")
    outcome = dragonfly("verify", records)
    assert outcome.code == 9 and "a.png" in outcome.stderr
    gone, there, damaged = outcome.stdout.splitlines()
    study = tmp_path / "study"
    expect_error(dragonfly("verify", records, "--image", study / "b.png"), 2, "--image", "about several")
    assert gone.startswith(f"drift {study / 'a.png'}: {QUESTION}: was ") and "not there" in gone
    assert there.startswith(f"same  {study / 'b.png'}: {QUESTION}: ")
    assert damaged.startswith(f"drift {study / 'c.png'}: {QUESTION}: was ") and "not an image" in damaged


def test_all_levels_of_a_dicom_slide_are_part_of_its_hash(tmp_path: Path) -> None:
    for number, side in enumerate((256, 64)):
        pixels = np.full((side, side, 3), 90, np.uint8)
        write_dicom_slide(tmp_path / f"level{number}.dcm", pixels, "1.2.3", number)
    file = record_of(tmp_path / "level0.dcm", QUESTION)
    assert dragonfly("verify", file).code == 0
    write_dicom_slide(tmp_path / "level1.dcm", np.full((64, 64, 3), 200, np.uint8), "1.2.3", 2)
    outcome = dragonfly("verify", file)
    assert outcome.code == 9 and "different image quickhash" in outcome.stdout


def test_another_model_is_told(photo: Path) -> None:
    file = record_of(photo, QUESTION)
    model = json.loads(file.read_text())["model"]
    expect_error(dragonfly("verify", changed(file, model=model | {"sha256": "0" * 64})), 5, "demo", "not those")
    expect_error(dragonfly("verify", changed(file, model=model | {"id": "gone"})), 5, "gone")


def test_what_is_no_record(tmp_path: Path, photo: Path) -> None:
    for number, (text, word) in enumerate(
        [("hello", "not JSON"), ("[]", "empty"), ("{}", "no schema_version"), ("3", "no schema_version")]
    ):
        file = tmp_path / f"{number}.json"
        file.write_text(text)
        expect_error(dragonfly("verify", file), 4, file.name, word)
    file.write_text(json.dumps(json.loads(written(photo).read_text())) + "\noops\n")
    expect_error(dragonfly("verify", file), 4, f"{file.name}, line 2", "not JSON")
    expect_error(dragonfly("verify", tmp_path / "gone.json"), 3, "gone.json")
    expect_error(dragonfly("verify", changed(record_of(photo, QUESTION), schema_version=99)), 4, "99")


@pytest.mark.parametrize(
    "part",
    [
        {"settings": []},
        {"settings": {}},
        {"fields": []},
        {"fields": "none"},
        {"model": "demo"},
        {"image": 3},
        {"image": "a\0.png"},
        {"image": "\ud800.png"},
        {"question": ["Is it?"]},
        {"question": "Is it \ud800?"},
        {"source": None},
        {"probabilities": None},
        {"probabilities": {"yes": 0.5}},
        {"probabilities": {"yes": "0.5", "no": "0.5"}},
        {"probabilities": {"yes": 0.5, "no": float("nan")}},
        {"option_mass": "most"},
        {"option_mass": []},
    ],
)
def test_a_damaged_record_is_told(photo: Path, part: dict[str, object]) -> None:
    file = written(photo)
    lines = f"{json.dumps(json.loads(file.read_text()))}\n{json.dumps(json.loads(changed(file, **part).read_text()))}\n"
    file.write_text(lines)
    expect_error(dragonfly("verify", file), 4, "record.json, line 2: ", "damaged")


@pytest.mark.parametrize(
    ("group", "part"),
    [
        ("settings", {"max_tokens": "many"}),
        ("settings", {"max_tokens": None}),
        ("settings", {"seed": 1.5}),
        ("settings", {"model": ["demo"]}),
        ("settings", {"bounds_offset": "no"}),
        ("settings", {"abstain": True}),
        ("settings", {"window": 3}),
        ("settings", {"region": "0,0,9,9"}),
        ("settings", {"region": [0, 0, 9, 9]}),
        ("settings", {"type": "yes or no"}),
        ("settings", {"system": 3}),
        ("settings", {"earlier": [[1, 2]]}),
        ("settings", {"roi": 3}),
        ("fields", {"id": "first"}),
        ("fields", {"frame": "0"}),
        ("fields", {"frame": 0.5}),
        ("fields", {"role": None}),
        ("fields", {"second_look_of": "0"}),
        ("fields", {"box": {"x": 0.5, "y": 0, "width": 20, "height": 15}}),
        ("model", {"dtype": ["float32"]}),
        ("model", {"sha256": ["0"]}),
    ],
)
def test_what_is_of_another_type_in_a_record_is_told(photo: Path, group: str, part: dict[str, object]) -> None:
    file = written(photo)
    was = json.loads(file.read_text())[group]
    now = [was[0] | part] if group == "fields" else was | part
    expect_error(dragonfly("verify", changed(file, **{group: now})), 4, "changed.json", "damaged")


@pytest.mark.parametrize("schema", [5, "x", {"enum": ["\ud800"]}, {"type": "nonsense"}])
def test_a_schema_that_is_none_is_told(photo: Path, schema: object) -> None:
    file = written(photo)
    content = json.loads(file.read_text())
    free = {"probabilities": None}
    settings = content["settings"] | {"type": "open", "options": [], "schema": schema}
    fields = [content["fields"][0] | free]
    told = dragonfly("verify", changed(file, **free, fields=fields, settings=settings))
    expect_error(told, 4, "changed.json", "damaged")


@pytest.mark.parametrize("options", [["", "a"], ["a"], ["a", "A"]])
@pytest.mark.parametrize("kind", ["options", "yesno"])
def test_options_between_which_nothing_can_be_chosen_are_told(photo: Path, kind: str, options: list[str]) -> None:
    file = written(photo)
    content = json.loads(file.read_text())
    said = {"probabilities": dict.fromkeys(options, 1 / len(options))}
    settings = content["settings"] | {"type": kind, "options": options}
    fields = [content["fields"][0] | said]
    expect_error(dragonfly("verify", changed(file, **said, fields=fields, settings=settings)), 4, "damaged")


def test_a_record_cannot_have_looked_beside_the_image(photo: Path) -> None:
    file = written(photo)
    (field,) = json.loads(file.read_text())["fields"]
    for part in ({"frame": 9}, {"box": {"x": 100, "y": 0, "width": 200, "height": 150}}):
        expect_error(dragonfly("verify", changed(file, fields=[field | part])), 9, photo.name, "not part of it")


def test_drift_of_one_field_is_drift(photo: Path) -> None:
    file = record_of(photo, QUESTION)
    (field,) = json.loads(file.read_text())["fields"]
    other = changed(file, fields=[field | {"probabilities": {"yes": 0.9, "no": 0.1}}])
    outcome = dragonfly("verify", other)
    assert (outcome.code, outcome.stdout[:5]) == (9, "drift")


def test_lines_of_json_end_with_a_line_end_alone(photo: Path) -> None:
    file = photo.with_name("record.jsonl")
    assert dragonfly("ask", photo, "Is it\u2028red?", "Is it?", "-f", "jsonl", "-o", file).code == 0
    assert dragonfly("verify", file).code == 0


def test_options_come_back_from_settings() -> None:
    options = options_from(AnswerOptions, {"attn": "eager", "max_tokens": 3, "something": "else"})
    assert options.attn is Attention.eager
    assert options == AnswerOptions(attn=Attention.eager, max_tokens=3)
    assert options_from(LookOptions, {"frame": None}) == LookOptions()
