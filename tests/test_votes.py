"""What a field is said to contribute where no field can have said the answer itself."""

import json
from pathlib import Path

import numpy as np
import pytest
from make_files import write_dicom
from run_dragonfly import dragonfly

from dragonfly_cli.output.votes import BETWEEN, colour, support


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 50), np.uint8)
    return write_dicom(tmp_path / "clip.dcm", pixels)


def test_fields_of_an_uncertain_choice_are_coloured_by_the_likeliest_option(clip: Path, drawn: list[str]) -> None:
    files = ("--geojson", clip.with_name("seen.geojson"), "--overlay", clip.with_name("seen.png"))
    asked = ("--options", "lung,liver,bone", "--abstain", "1", "--json")
    record = dragonfly("ask", clip, "Which?", *asked, *files).json
    assert record["answer"] == "uncertain"
    likeliest = max(record["probabilities"], key=lambda option: record["probabilities"][option])
    features = [each["properties"] for each in json.loads(clip.with_name("seen.geojson").read_text())["features"]]
    told = [each["measurements"]["support"] for each in features if each["objectType"] == "annotation"]
    assert told == [field["probabilities"][likeliest] for field in record["fields"]]
    assert {"says likeliest", "says other"} <= set(drawn) and "says so" not in drawn


def test_fields_of_a_synthesised_answer_are_coloured_by_the_commonest_of_theirs() -> None:
    fields = [{"answer": answer, "probabilities": None} for answer in ("gland", "stroma", "stroma")]
    record = {"answer": "Glands in a stroma.", "abstained": False, "aggregate": "synthesise", "fields": fields}
    assert [support(record, field) for field in fields] == [0.0, 1.0, 1.0]
    assert [colour(record, field) == BETWEEN for field in fields] == [True, False, False]


def test_yes_among_other_options_is_an_option_like_them(clip: Path) -> None:
    """Of a field that says maybe it is no answer "no", which is what P(yes) below a half means otherwise."""
    record = dragonfly("ask", clip, "Is there a tumour?", "--options", "yes,no,maybe", "--json").json
    for field, option in zip(record["fields"], ("maybe", "yes", "no"), strict=True):
        field["probabilities"] = dict.fromkeys(("yes", "no", "maybe"), 0.1) | {option: 0.8}
        field["answer"] = option
    record["answer"] = "maybe"
    assert [support(record, field) for field in record["fields"]] == [0.8, 0.1, 0.1]
    agrees, *others = (colour(record, field) for field in record["fields"])
    assert agrees[1] > agrees[0] and others[0] == others[1]


def test_the_picture_says_what_an_uncertain_answer_lies_between(clip: Path, drawn: list[str]) -> None:
    overlay = clip.with_name("seen.png")
    assert dragonfly("ask", clip, "Is there a tumour?", "--abstain", "1", "--overlay", overlay).code == 0
    title = next(text for text in drawn if text.startswith("Is there a tumour?"))
    assert "uncertain" in title and "yes " in title and "no " in title and "p = " not in title


def test_a_field_that_was_looked_at_twice_says_what_both_looks_agree_on() -> None:
    looks = [(0, None, 0.9), (1, None, 0.6), (2, 0, 0.3), (3, 1, 0.8)]
    fields = [
        {"id": number, "second_look_of": of, "probabilities": {"yes": yes, "no": 1 - yes}} for number, of, yes in looks
    ]
    record = {"fields": fields}
    assert [support(record, field) for field in fields[:2]] == [0.3, 0.6]
