"""A label -> questions in many wordings, with the answer that the label allows.

Pure functions of a label and a random generator. An ``Exchange`` is one question with its answer; a block of the
training sequence is one or two exchanges, as in a conversation.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from demo_training import facts

CAPTION_QUESTION = "Provide a brief description of the given image."

WORDINGS = tomllib.loads(Path(__file__).with_name("wordings.toml").read_text(encoding="utf-8"))
YES_NO_ENDINGS = ("", "", "", "", "", "", " Answer yes or no.", " Answer with yes or no.", " Yes or no?")

OPEN = {
    "modality": facts.MODALITY,
    "organ": facts.ORGAN,
    "diagnosis": facts.DIAGNOSIS,
    "caption": facts.CAPTION,
    "grade": facts.GRADE,
    "pneumonia_kind": facts.PNEUMONIA_KIND,
    "stain": facts.STAIN,
}
ALWAYS_ASKED = ("modality", "organ", "diagnosis", "caption")
SOMETIMES_ASKED = ("grade", "pneumonia_kind", "stain")


@dataclass(frozen=True)
class Exchange:
    """One question and the answer to learn."""

    question: str
    answer: str


def vary(question: str, rng: np.random.Generator) -> str:
    """The same question as a hurried user types it: sometimes all lower case, sometimes without its full stop."""
    if rng.random() < 0.15:
        question = question.lower()
    if rng.random() < 0.12 and question[-1] in "?.":
        question = question[:-1]
    return question


def open_question(kind: str, label: str, rng: np.random.Generator) -> Exchange:
    """A question of one of the kinds in ``OPEN``."""
    question = str(rng.choice(WORDINGS["open"][kind]))
    return Exchange(vary(question, rng), OPEN[kind].get(label, facts.NOT_TRAINED))


def yes_no_question(concept: facts.Concept, label: str, rng: np.random.Generator) -> Exchange:
    """A yes/no question for one concept."""
    wording = str(rng.choice(WORDINGS["yes_no"][concept.kind]))
    question = wording.format(x=rng.choice(concept.phrases))
    return Exchange(vary(question, rng) + str(rng.choice(YES_NO_ENDINGS)), concept.answer(label))


def yes_no_questions(label: str, pairs: int, unknown: int, rng: np.random.Generator) -> list[Exchange]:
    """``pairs`` questions to be answered with yes, as many with no, and at most ``unknown`` that cannot be answered."""
    by_answer: dict[str, list[facts.Concept]] = {"Yes": [], "No": [], facts.NOT_TRAINED: []}
    for concept in facts.CONCEPTS:
        by_answer[concept.answer(label)].append(concept)
    asked = []
    for answer, count in (("Yes", pairs), ("No", pairs), (facts.NOT_TRAINED, unknown)):
        concepts = by_answer[answer]
        if concepts:
            hard = hard_weights(concepts, label) if answer == "No" else None
            for i in rng.choice(len(concepts), count, p=hard):
                asked.append(yes_no_question(concepts[i], label, rng))
    return asked


def hard_weights(concepts: list[facts.Concept], label: str) -> np.ndarray:
    """Drawing weights that prefer concepts true of labels of the same kind: cancer for benign tissue, say."""
    kindred = next(
        (group for group in (facts.TISSUE, facts.CHILD_CHEST, facts.RADIOLOGY) if label in group), facts.EVERYTHING
    )
    weights = np.array([3.0 if concept.yes & kindred else 1.0 for concept in concepts])
    return weights / weights.sum()


def exchanges_about(label: str, off_topic: list[str], rng: np.random.Generator) -> list[Exchange]:
    """About eighteen questions on one picture, in random order."""
    asked = [open_question(kind, label, rng) for kind in ALWAYS_ASKED]
    asked.append(open_question(str(rng.choice(ALWAYS_ASKED)), label, rng))
    asked.append(open_question(str(rng.choice(SOMETIMES_ASKED)), label, rng))
    asked += yes_no_questions(label, pairs=4, unknown=2, rng=rng)
    asked += [Exchange(vary(str(question), rng), facts.NOT_TRAINED) for question in rng.choice(off_topic, 2)]
    return [asked[i] for i in rng.permutation(len(asked))]


def blocks_about(label: str, off_topic: list[str], rng: np.random.Generator) -> list[list[Exchange]]:
    """The same questions as blocks: most alone, some as the two turns of a conversation."""
    waiting = exchanges_about(label, off_topic, rng)
    blocks = []
    while waiting:
        turns = 2 if len(waiting) > 1 and rng.random() < 0.15 else 1
        blocks.append([waiting.pop() for _ in range(turns)])
    return blocks
