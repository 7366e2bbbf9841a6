"""``--aggregate synthesise``: free answers about several fields, put together by the language model from their text."""

import csv
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from make_files import write_dicom
from run_dragonfly import Outcome, dragonfly, expect_error

from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.engine.model import Model, load_model

SYNTHESISE = ("--aggregate", "synthesise")


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(find_checkpoint("demo"), "cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five frames of which no two look alike, so that not all answers are the same."""
    row = np.linspace(0, 255, 80)
    frames = [
        np.random.default_rng(0).integers(0, 255, (60, 80)),
        np.tile(row, (60, 1)),
        np.where(np.hypot(*np.mgrid[-30:30, -40:40]) < 25, 200, 10),
        np.zeros((60, 80)),
        np.tile(row[::-1], (60, 1)) * (np.arange(60)[:, None] % 8 < 4),
    ]
    return write_dicom(tmp_path_factory.mktemp("clip") / "clip.dcm", np.array(frames).astype(np.uint8))


@pytest.fixture(scope="module")
def captioned(clip: Path) -> Outcome:
    outcome = dragonfly("caption", clip, *SYNTHESISE, "--json")
    assert outcome.code == 0, outcome.stderr
    return outcome


def test_the_language_model_reads_what_was_said_of_every_field(captioned: Outcome) -> None:
    record = captioned.json
    said = Counter(field["answer"] for field in record["fields"])
    assert len(record["fields"]) == 5 and len(said) > 1
    assert record["aggregate"] == "synthesise"
    for text, count in said.items():
        assert f"- {count} part{'s' * (count > 1)}: {text}\n" in record["synthesis"]["prompt"]
    assert (record["synthesis"]["answers"], record["synthesis"]["left_out"]) == (len(said), 0)


def test_the_answer_is_what_the_network_writes_after_that_text_alone(captioned: Outcome, model: Model) -> None:
    record = captioned.json
    ids = torch.tensor([model.processor.text_ids(record["synthesis"]["prompt"])])
    with torch.inference_mode():
        written = model.network.generate(ids, max_new_tokens=256, do_sample=False)[0, ids.shape[1] :]
    assert record["answer"] == model.processor.decode(written, skip_special_tokens=True).strip()


def test_no_probability_is_made_up_and_the_limits_are_told(captioned: Outcome) -> None:
    record = captioned.json
    assert record["probabilities"] is None and record["option_mass"] is None
    known = re.findall("[a-z]+", " ".join(field["answer"] for field in record["fields"]).lower())
    own = re.findall("[a-z]+", record["answer"].lower())
    assert record["synthesis"]["from_fields"] == pytest.approx(np.mean([word in known for word in own]))
    assert any("not taught to put answers together" in warning for warning in record["warnings"])


def test_a_record_of_it_can_be_verified(captioned: Outcome, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(captioned.stdout)
    assert dragonfly("verify", tmp_path / "record.json").stdout.startswith("same")


def test_a_batch_puts_answers_together_as_caption_does(captioned: Outcome, clip: Path, tmp_path: Path) -> None:
    assert dragonfly("batch", clip, "-o", tmp_path / "out.csv", *SYNTHESISE).code == 0
    (row,) = csv.DictReader((tmp_path / "out.csv").open(newline=""))
    assert row["answer"] == captioned.json["answer"]


def test_where_all_fields_say_the_same_nothing_is_written(tmp_path: Path) -> None:
    clip = write_dicom(tmp_path / "clip.dcm", np.tile(np.arange(0, 240, 3, np.uint8), (3, 60, 1)))
    record = dragonfly("caption", clip, *SYNTHESISE, "--json").json
    assert {field["answer"] for field in record["fields"]} == {record["answer"]}
    assert (record["synthesis"]["prompt"], record["synthesis"]["from_fields"]) == (None, 1.0)
    (tmp_path / "schema.json").write_text('{"const": "a  b"}')
    held = dragonfly("ask", clip, "What?", *SYNTHESISE, "--schema", tmp_path / "schema.json", "--json").json
    assert (held["synthesis"]["prompt"], held["answer"]) == (None, '"a  b"')  # and not as it is listed in a prompt


def test_answers_that_cannot_be_read_together_are_counted(clip: Path, model: Model) -> None:
    words = "Describe" + " the picture" * 480
    while len(model.processor.text_ids(model.processor.prompt(words))) > 500:  # it is put twice, of 1023 in all
        words = words.removesuffix(" the picture")
    varied = ("--temperature", "2", "--max-tokens", "12")
    record = dragonfly("ask", clip, words, *SYNTHESISE, "--json", *varied).json
    most = Counter(field["answer"] for field in record["fields"]).most_common()
    synthesis = record["synthesis"]
    assert synthesis["left_out"] == synthesis["answers"] - 1 == len(most) - 1 > 0
    assert record["answer"] == most[0][0]
    assert any(f"{synthesis['left_out']} of {len(most)} different answers" in each for each in record["warnings"])


@pytest.mark.parametrize(
    "arguments", [["Is there a tumour?"], ["What is it?", "Is it red?"], ["What is it?", "--options", "bone,lung"]]
)
def test_answers_with_probabilities_are_not_put_together(arguments: list[str]) -> None:
    outcome = dragonfly("ask", "nowhere.svs", *arguments, *SYNTHESISE)
    expect_error(outcome, 2, "--aggregate synthesise is for free answers")
    assert "--type open" in outcome.error_lines[1]


def test_a_batch_refuses_it_as_well(clip: Path, tmp_path: Path) -> None:
    outcome = dragonfly("batch", clip, "-q", "Is it red?", "-o", tmp_path / "out.csv", *SYNTHESISE)
    assert outcome.code == 2 and '"Is it red?" is answered by probabilities' in outcome.stderr
