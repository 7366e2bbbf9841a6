"""What the built-in model is taught: questions whose answers follow from a label, and nothing that contradicts it."""

import numpy as np
import pytest

from demo_training import facts
from demo_training.dataset import ImageRow, vqa_split
from demo_training.labels import COLUMNS
from demo_training.questions import SEEN, UNSEEN, questions_about

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
        answers.setdefault(exchange.question.lower(), set()).add(exchange.answer)
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
    assert not set(UNSEEN.off_topic) & set(SEEN.off_topic)
    assert not set(UNSEEN.unknown_findings) & set(SEEN.unknown_findings)


def test_a_vqa_picture_is_on_one_side_always():
    names = [f"synpic{number}.jpg" for number in range(300)]
    held_out = [name for name in names if vqa_split(name) == "val"]
    assert 20 < len(held_out) < 80
    assert held_out == [name for name in names if vqa_split(name) == "val"]
