"""Every rule by which the answers about several fields become one, on answers made up for it."""

from dataclasses import replace
from typing import Any

import pytest

from dragonfly_cli.engine.aggregation import aggregate
from dragonfly_cli.engine.answering import FieldAnswer, Timing
from dragonfly_cli.engine.choices import presentations
from dragonfly_cli.engine.questions import Question, as_question
from dragonfly_cli.fields import Field
from dragonfly_cli.geometry import Box
from dragonfly_cli.option_values import Aggregate
from dragonfly_cli.output.votes import support

YES_NO = as_question("Is there necrosis?")
OPTIONS = Question("options", "Which organ?", ("lung", "liver", "bone"))


def said(number: int, question: Question, *p: float, mass: float = 1.0, look_of: int | None = None) -> FieldAnswer:
    """What is said of a field: the probability of each option, of yes alone where yes or no was asked."""
    probabilities = dict(zip(question.options, (*p, 1 - sum(p)), strict=True))
    text = max(probabilities, key=lambda option: probabilities[option])
    field = Field(number, "zoom", 0, Box(0, 0, 9, 9), look_of)
    plan: Any = None  # of the views, which has no part in it
    return FieldAnswer(field, plan, question, "", text, probabilities, mass, [], Timing(0, 0, 0))


@pytest.mark.parametrize(
    ("rule", "yes"),
    [
        (Aggregate.auto, (0.9 + 0.8 + 0.6) / 3),
        (Aggregate.top3_mean, (0.9 + 0.8 + 0.6) / 3),
        (Aggregate.mean, (0.9 + 0.8 + 0.6 + 0.2 + 0.1) / 5),
        (Aggregate.max, 0.9),
        (Aggregate.any, 1 - 0.1 * 0.2 * 0.4 * 0.8 * 0.9),
        (Aggregate.vote, 3 / 5),
        (Aggregate.confirmed, (0.9 + 0.8 + 0.6) / 3),  # no field was looked at twice
    ],
)
def test_yes_by_every_rule(rule: Aggregate, yes: float) -> None:
    told = aggregate([said(number, YES_NO, p) for number, p in enumerate((0.2, 0.9, 0.6, 0.1, 0.8))], rule)
    assert told.probabilities == pytest.approx({"yes": yes, "no": 1 - yes})
    assert told.text == "Yes"


def test_what_is_confirmed_is_the_lower_of_two_looks() -> None:
    first = [said(0, YES_NO, 0.95), said(1, YES_NO, 0.7), said(2, YES_NO, 0.99)]
    second = [said(3, YES_NO, 0.2, look_of=0), said(4, YES_NO, 0.8, look_of=1)]
    told = aggregate([*first, *second], Aggregate.confirmed)
    assert (told.probabilities, told.aggregate) == (pytest.approx({"yes": 0.7, "no": 0.3}), Aggregate.confirmed)
    drawn: dict[str, Any] = {"fields": [_as_recorded(each) for each in (*first, *second)]}
    assert [support(drawn, field) for field in drawn["fields"][:3]] == [0.2, 0.7, 0.99]


def _as_recorded(answer: FieldAnswer) -> dict[str, Any]:
    return {
        "id": answer.field.id,
        "second_look_of": answer.field.second_look_of,
        "answer": answer.text,
        "probabilities": answer.probabilities,
    }


@pytest.mark.parametrize("rule", [Aggregate.auto, Aggregate.mean, Aggregate.max])
def test_options_take_the_mean_of_all_fields(rule: Aggregate) -> None:
    answers = [said(0, OPTIONS, 0.6, 0.3), said(1, OPTIONS, 0.5, 0.1), said(2, OPTIONS, 0.0, 0.9)]
    told = aggregate(answers, rule)
    assert told.probabilities == pytest.approx({"lung": 1.1 / 3, "liver": 1.3 / 3, "bone": 0.6 / 3})
    assert (told.text, told.aggregate) == ("liver", Aggregate.mean)


def test_options_by_the_votes_of_fields() -> None:
    answers = [said(0, OPTIONS, 0.6, 0.3), said(1, OPTIONS, 0.5, 0.1), said(2, OPTIONS, 0.0, 0.9)]
    told = aggregate(answers, Aggregate.vote)
    assert told.probabilities == pytest.approx({"lung": 2 / 3, "liver": 1 / 3, "bone": 0})
    assert (told.text, told.aggregate) == ("lung", Aggregate.vote)


def test_how_well_the_options_fit_is_the_mean_over_fields() -> None:
    told = aggregate([said(0, YES_NO, 0.9, mass=0.2), said(1, YES_NO, 0.9, mass=0.6)], Aggregate.max)
    assert told.option_mass == pytest.approx(0.4)


def test_a_free_answer_is_the_commonest_and_of_equals_the_first() -> None:
    free = Question("open", "What is it?")
    texts = ["a gland", "stroma", "a gland", "stroma", "fat"]
    answers = [replace(said(n, OPTIONS, 0.5, 0.3), question=free, text=t) for n, t in enumerate(texts)]
    answers = [replace(each, probabilities=None, option_mass=None) for each in answers]
    told = aggregate(answers, Aggregate.max)
    assert (told.text, told.probabilities, told.aggregate) == ("a gland", None, Aggregate.vote)


def test_a_scale_is_asked_upwards_and_downwards() -> None:
    scale = Question("scale", "How much?", ("1", "2", "3"))
    up, down = presentations(scale)
    assert "a number from 1 to 3." in up and "a number from 3 to 1." in down
