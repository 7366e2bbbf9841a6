"""What the built-in model is taught: questions whose answers follow from a label, and nothing that contradicts it."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from demo_training import crop_stream, facts
from demo_training.crop_stream import Crops
from demo_training.cross_validate import folds
from demo_training.dataset import ImageRow, vqa_split
from demo_training.encoder import Student, some_patches
from demo_training.facts import BENIGN, MALIGNANT
from demo_training.focus_map import FocusMap
from demo_training.labels import COLUMNS, OUTPUTS, label_mask, targets
from demo_training.projector import make_projector
from demo_training.question_prior import priors_of_others
from demo_training.questions import SEEN, UNSEEN, questions_about, telling_question
from demo_training.schedule import make_optimizers, step
from demo_training.train_encoder import crop_loss
from demo_training.train_language import new_model
from demo_training.variants import Mosaics, counterparts, crop_and_flip, lay_on_plate
from dragonfly_med.modeling import rank_and_keep

LABELS = sorted(facts.EVERYTHING | facts.VQA)


def about(label: str, words=SEEN, rounds: int = 20):
    rng = np.random.default_rng(0)
    row = ImageRow("x.png", "any", label, "train", "group", {"WBC": 1, "RBC": 12})
    return [exchange for _ in range(rounds) for exchange in questions_about(row, words, rng)]


def test_the_encoder_and_the_questions_know_the_same_labels():
    assert sorted(COLUMNS) == LABELS


@pytest.mark.parametrize("label", LABELS)
def test_yes_and_no_are_asked_for_equally_often(label):
    answers = [exchange.answer for exchange in about(label) if exchange.kind == "yes_no"]
    assert set(answers) <= {"Yes", "No"}
    assert answers.count("Yes") == answers.count("No") > 0


@pytest.mark.parametrize("label", LABELS)
def test_one_question_never_has_two_answers(label):
    answers: dict[str, set[str]] = {}
    for exchange in about(label):
        answers.setdefault(exchange.question.lower(), set()).add(exchange.answer.lower())  # spelt as it was listed
    assert [question for question, given in answers.items() if len(given) > 1] == []


def test_a_label_decides_what_is_there():
    necrosis, tumour = facts.CONCEPTS[0], facts.CONCEPTS[1]
    assert "necrosis" in necrosis.phrases and "a tumour" in tumour.phrases
    assert necrosis.answer("necrotic_tumour") == necrosis.answer("generated_necrosis") == "Yes"
    assert necrosis.answer("viable_tumour") == necrosis.answer("blank") == tumour.answer("colon_benign") == "No"
    assert necrosis.answer("chest_ct") == facts.NOT_TRAINED


def test_what_measures_unseen_wordings_is_not_among_the_seen():
    for kind in ("yes_no", "open"):
        for name, wordings in UNSEEN.wordings[kind].items():
            assert not set(wordings) & set(SEEN.wordings[kind][name])
    assert not {*UNSEEN.off_topic, *UNSEEN.unknown} & {*SEEN.off_topic, *SEEN.everyday, *SEEN.unknown}
    assert not set(UNSEEN.unknown_findings) & set(SEEN.unknown_findings)


def test_one_sick_tile_makes_no_field_that_is_sick_all_over():
    """Whole fields are asked about only as to whether all of it is healthy."""
    whole = [concept for concept in facts.CONCEPTS if concept.kind == "whole"]
    assert whole and all(concept.yes <= facts.BENIGN | {"normal"} for concept in whole)
    kinds = [words.wordings["yes_no"] for words in (SEEN, UNSEEN)]
    others = [wording for each in kinds for kind, own in each.items() if kind != "whole" for wording in own]
    assert not [wording for wording in others if re.search("every|all of|full", wording)]


def test_no_list_holds_two_right_answers():
    for label, pair in (("colon_benign", "Light microscopy"), ("chest_xray", "Lung"), ("abdomen_ct", "Colon")):
        listed = [e.question for e in about(label, rounds=60) if e.kind == "options"]
        assert listed and not [question for question in listed if pair in question]


def test_a_smear_is_counted_in_the_whole_picture():
    row = ImageRow("smear.jpg", "bccd", "blood_smear", "train", "one", counts={"WBC": 1})
    smear = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))
    for seed in range(20):
        part, _ = crop_and_flip(smear, row, np.random.default_rng(seed))
        assert sorted(part.size) == sorted(smear.size)  # it may be turned


def test_a_film_on_a_plate_is_nearly_all_to_be_seen():
    film = Image.new("RGB", (200, 150), "white")
    for seed in range(60):
        plate = lay_on_plate(film, np.random.default_rng(seed))
        assert plate.width > film.width and plate.height > film.height
        brightness = np.asarray(plate.convert("L"))
        assert (brightness > 200).sum() > 0.6 * film.width * film.height  # of one that is aslant a corner may be cut
        assert (brightness < 140).any()


def test_a_vqa_picture_is_on_one_side_always():
    names = [f"synpic{number}.jpg" for number in range(300)]
    held_out = [name for name in names if vqa_split(name) == "val"]
    assert 20 < len(held_out) < 80
    assert held_out == [name for name in names if vqa_split(name) == "val"]


def test_what_is_usual_is_learnt_from_other_pictures():
    asked = {f"{number:02}": [("Is there an effusion?", "Yes"), ("Is it normal?", "No")] for number in range(18)}
    asked["05"] = [("Is there an effusion?", "No")]
    priors = priors_of_others(asked)
    assert set(priors) == set(asked)
    assert priors["05"].p_yes(["Is there an effusion?"])[0] > 0.9  # as everywhere else
    effusion, normal = priors["06"].p_yes(["Is there an effusion?", "Is it normal?"])
    assert effusion > 0.7 and normal < 0.1
    assert priors["06"].foretell(["An effusion?", "Normal?"]) == ["Yes", "No"]


@pytest.mark.parametrize("label", LABELS)
def test_the_right_answer_stands_once_in_a_list_in_any_place(label):
    listed = [exchange for exchange in about(label, rounds=60) if exchange.kind == "options"]
    places = set()
    for exchange in listed:
        options = exchange.question.rsplit(" Answer with one of: ", 1)[1].removesuffix(".").split(", ")
        assert options.count(exchange.answer) == 1 and len(set(options)) == len(options) > 1
        assert facts.NOT_TRAINED not in options
        places.add(options.index(exchange.answer))
    assert len(places) > 1 or not listed
    assert listed or label in facts.VQA


def test_a_part_of_generated_tissue_is_labelled_by_what_is_in_it(tmp_path):
    tumour = np.zeros((100, 200), np.float32)
    tumour[:40, :40] = 1
    necrosis = np.zeros((100, 200), np.float32)
    necrosis[60:, 160:] = 1
    FocusMap.of({"tumour": tumour, "necrosis": necrosis}).save(tmp_path / "map.png")
    row = ImageRow("x.jpg", "generated", "any", "train", "group", foci=FocusMap.read(tmp_path / "map.png"))
    assert row.within((0, 0, 1, 1)).label == "generated_tumour_and_necrosis"
    assert row.within((0, 0, 0.5, 1)).label == "generated_tumour"
    assert row.within((0.5, 0.5, 1, 1)).label == "generated_necrosis"
    assert row.within((0.3, 0, 0.7, 0.5)).label == "generated_normal"
    assert row.within((0, 0, 0.5, 1)).within((0.5, 0, 1, 1)).label == "generated_normal"


def test_the_projector_makes_zoom_in_selection_look_for_disease():
    torch.manual_seed(0)
    student = {name: torch.randn(OUTPUTS, 256) for name in ("head.weight", "mean_head.weight")}
    disease = student["mean_head.weight"][-1] / 256**0.5
    sick = torch.rand(80, 29) < 0.5
    features = torch.randn(80, 29, 50, 256) + torch.where(sick, 0.5, -0.5)[:, :, None, None] * disease
    weight, bias = make_projector(student, features[:20], 192)
    field = features[~sick[:, 1:5].any(1)][0]  # what is sick is not seen in the middle crops
    field[5:] = features[~sick][:24]
    field[5 + 16] = features[sick][0]
    assert 16 in rank_and_keep((field @ weight.T + bias)[None])[0].tolist()
    assert 16 not in rank_and_keep((field @ weight.T + bias - 2 * (bias > 1) * bias)[None])[0].tolist()


def test_disease_is_learnt_from_what_a_label_says_of_it_alone():
    known = targets(["oral", "oral", "mednist"], ["oral_normal", "oral_squamous_cell_carcinoma", "hand_xray"])[:, -1]
    assert known[0] < 0.1 and known[1] > 0.9 and known[2].isnan()


def test_a_mosaic_is_labelled_by_its_odd_tile_and_asked_about_it(tmp_path):
    rows = []
    for number, label in enumerate(sorted(BENIGN | MALIGNANT)):
        colour = (40, 200, 40) if label in BENIGN else (200, 40, 40)
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{number}.png")
        rows.append(ImageRow(f"{number}.png", "oral", label, "train", label))
    mosaics = Mosaics(tmp_path, rows, np.random.default_rng(0))
    for draw in (mosaics.draw, mosaics.draw_cut) * 20:
        field, row = draw()
        red = (np.asarray(field)[..., 0] > 100).mean()
        assert (red > 0.01) == (row.label in MALIGNANT) and red < 0.3
        asked = telling_question(row, counterparts(row.label), SEEN, mosaics.rng)
        assert asked.answer in ("Yes", "No")


def test_a_crop_of_tiles_is_labelled_by_its_odd_tile(tmp_path, monkeypatch):
    monkeypatch.setattr(crop_stream, "TILED", 1.0)
    rows = []
    for label, colour in (("colon_benign", "blue"), ("colon_adenocarcinoma", "red")):
        Image.new("RGB", (60, 60), colour).save(tmp_path / f"{label}.png")
        rows.append(ImageRow(f"{label}.png", "lc25000", label, "train", label))
    stream = crop_stream.CropStream(tmp_path, rows, 1, seed=0)
    seen = set()
    for _ in range(30):
        crop, row = stream.cut(0, (0, 0, 1, 1), rows[0])
        assert (row.label == "colon_adenocarcinoma") == bool((crop[..., 0] > 128).any())
        seen.add(row.label)
    assert len(seen) == 2


def test_behind_the_encoder_the_language_model_alone_learns():
    student = Student().state_dict()
    model = new_model(student, torch.randn(20, 29, 50, 256))
    tower = model.image_encoder.vision_model.state_dict()
    assert all(torch.equal(tower[name], student[f"encoder.{name}"]) for name in tower)
    learnt = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learnt == {name for name, _ in model.named_parameters() if name.startswith("language_model.")}


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon since 2.9")
@pytest.mark.parametrize("patches", [24, 49])
def test_all_that_the_features_come_from_learns_and_nothing_else(patches):
    student = Student()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    optimizers = make_optimizers(student, student.layers)
    mask = label_mask(["oral"] * 4)
    target = targets(["oral"] * 4, ["oral_normal", "oral_squamous_cell_carcinoma"] * 2)
    crops = Crops(torch.randn(4, 3, 112, 112), target, mask, ["oral"] * 4)
    step(optimizers, crop_loss(student, crops, patches), done=0.5)
    matrices = {name: value for name, value in student.named_parameters() if value.ndim > 1}
    moved = {name for name, value in matrices.items() if not torch.equal(value, before[name])}
    assert moved == {name for name in matrices if "layers.6." not in name}  # the features are read before that layer


def test_an_encoder_that_sees_some_patches_knows_where_they_are():
    embedded = torch.arange(3 * 50).view(3, 50, 1).expand(-1, -1, 8)
    kept = some_patches(embedded, 24)
    assert kept.shape == (3, 25, 8)
    for crop in range(3):
        places = (kept[crop, :, 0] - 50 * crop).tolist()
        assert places[0] == 0 and len(set(places)) == 25 and set(places) <= set(range(50))
    assert not torch.equal(kept[0] + 50, kept[1])


def test_a_fold_of_the_cross_validation_holds_every_label_and_no_picture_twice():
    labels = ["viable_tumour"] * 13 + ["necrotic_tumour"] * 9 + ["non_tumour"] * 17
    rows = [ImageRow(f"{n}.jpg", "osteosarcoma", label, "train", "p") for n, label in enumerate(labels)]
    dealt = folds(rows, 4)
    assert sorted(row.path for fold in dealt for row in fold) == sorted(row.path for row in rows)
    for label in set(labels):
        counts = [sum(row.label == label for row in fold) for fold in dealt]
        assert min(counts) > 0 and max(counts) - min(counts) <= 1
