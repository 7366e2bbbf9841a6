"""A picture -> questions in many wordings, with the answer that its label allows.

Pure functions of a row and a random generator. Wordings under ``unseen`` in wordings.toml, and the files named
``*_unseen.txt``, are for measuring only.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from demo_training import facts
from demo_training.dataset import ImageRow

HERE = Path(__file__).parent
WORDINGS = tomllib.loads((HERE / "wordings.toml").read_text(encoding="utf-8"))
YES_NO_ENDINGS = (
    " Answer yes or no.",
    " Answer with yes or no.",
    " Yes or no?",
    " Please answer yes or no.",
    " yes/no",
)
LEAD_INS = (
    "In this image, ",
    "In the image, ",
    "In this picture, ",
    "Please, ",
    "Based on the image, ",
    "Given this image, ",
    "On this slide, ",
    "From this image, ",
)
OPENINGS = ("Question: ", "Please answer: ", "Tell me: ", "Hello. ", "Please look at the image. ", "Doctor, ")

OPEN = {
    "modality": facts.MODALITY,
    "organ": facts.ORGAN,
    "diagnosis": facts.DIAGNOSIS,
    "caption": facts.CAPTION,
    "grade": facts.GRADE,
    "pneumonia_kind": facts.PNEUMONIA_KIND,
    "stain": facts.STAIN,
}
BOTH_TRUE = (  # answers of which no list of options holds both
    frozenset({"H&E histology", "Light microscopy"}),
    frozenset({"Chest", "Lung"}),
    frozenset({"Abdomen", "Colon"}),
    frozenset({"Head", "Oral cavity"}),
)
ALWAYS_ASKED = ("modality", "organ", "diagnosis", "caption")
SOMETIMES_ASKED = ("grade", "pneumonia_kind", "stain", "white_cells", "red_cells")
ASKED_WITH_OPTIONS = ("modality", "organ", "diagnosis", "diagnosis", "grade", "pneumonia_kind")
EVERYDAY = 0.5  # share of the questions off the topic that are about a thing of everyday life
GENERATED_FOR = 4.0  # how much more often it is asked for necrosis and tumours than for anything else
OFF_TOPIC_SHARE, UNKNOWN_SHARE = 0.45, 0.2  # of questions to decline; the others ask for findings that no label states
NEAR_OPTIONS = 0.7  # share of option lists whose wrong answers are true of other pictures of the kind
MOST_OPTIONS = 5
LOWER_CASE = 0.4  # share of option lists that are typed without capitals
TOO_VAGUE_FOR_TYPING = 8  # letters; shorter questions are not misspelt


def lines(name: str) -> list[str]:
    return (HERE / name).read_text(encoding="utf-8").splitlines()


@dataclass(frozen=True)
class Words:
    """Which wordings and which strange questions are in use."""

    wordings: dict[str, dict[str, list[str]]]
    off_topic: list[str]  # questions that have nothing to do with the picture, or with no label
    unknown: list[str]  # questions on findings that no label states
    unknown_findings: list[str]
    everyday: Sequence[str] = ()  # more questions off the topic, one for each pattern and thing of everyday life


SEEN = Words(
    WORDINGS,
    lines("off_topic.txt"),
    lines("unknown_questions.txt"),
    lines("unknown_findings.txt"),
    [pattern.format(x=word) for pattern in lines("everyday_patterns.txt") for word in lines("everyday_words.txt")],
)
UNSEEN = Words(
    WORDINGS["unseen"],
    lines("off_topic_unseen.txt"),
    lines("unknown_questions_unseen.txt"),
    lines("unknown_findings_unseen.txt"),
)


@dataclass(frozen=True)
class Exchange:
    """One question and its answer. ``kind`` is what the tables of the evaluation call it."""

    question: str
    answer: str
    kind: str


def pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def vary(question: str, rng: np.random.Generator) -> str:
    """The same question as a hurried user types it: led in, in lower case, without its full stop, misspelt."""
    if rng.random() < 0.12:
        question = pick(LEAD_INS, rng) + question[0].lower() + question[1:]
    elif rng.random() < 0.06:
        question = pick(OPENINGS, rng) + question
    if rng.random() < 0.15:
        question = question.lower()
    if rng.random() < 0.12 and question[-1] in "?.":
        question = question[:-1]
    if rng.random() < 0.06 and len(question) > TOO_VAGUE_FOR_TYPING:
        at = int(rng.integers(len(question) - 1))
        question = question[:at] + question[at + 1 :]
    return question


def open_question(kind: str, row: ImageRow, words: Words, rng: np.random.Generator) -> Exchange:
    """A question of one of the kinds in ``ALWAYS_ASKED`` and ``SOMETIMES_ASKED``."""
    question = pick(words.wordings["open"][kind], rng)
    if kind in OPEN:
        answer = OPEN[kind].get(row.label, facts.NOT_TRAINED)
    elif row.label in facts.BLOOD:
        answer = facts.white_cells(row.counts) if kind == "white_cells" else facts.red_cells(row.counts)
    else:
        answer = facts.NOT_TRAINED
    return Exchange(vary(question, rng), answer, kind)


def option_question(kind: str, row: ImageRow, words: Words, rng: np.random.Generator) -> Exchange | None:
    """An open question with its possible answers, the right one among them, in any order; None where none is right."""
    answers = OPEN[kind]
    if row.label not in answers:
        return None
    right = answers[row.label]
    kindred = next((group for group in (facts.TISSUE, facts.CHILD_CHEST, facts.RADIOLOGY) if row.label in group), None)
    true = frozenset({right}).union(*(both for both in BOTH_TRUE if right in both))
    near = sorted({answers[label] for label in kindred or () if label in answers} - true)
    far = sorted(set(answers.values()) - true - {facts.NOTHING})
    others = near if near and rng.random() < NEAR_OPTIONS else far
    wrong = [others[i] for i in rng.permutation(len(others))[: int(rng.integers(1, MOST_OPTIONS))]]
    options = [right, *wrong]
    if rng.random() < LOWER_CASE:
        options = [option[0].lower() + option[1:] if option[1].islower() else option for option in options]
    listed = ", ".join(options[i] for i in rng.permutation(len(options)))
    question = pick(words.wordings["open"][kind], rng)
    return Exchange(f"{question} Answer with one of: {listed}.", options[0], "options")


def yes_no_question(concept: facts.Concept, label: str, words: Words, rng: np.random.Generator) -> Exchange:
    """A yes/no question for one concept."""
    wording = pick(words.wordings["yes_no"][concept.kind], rng)
    question = vary(wording.format(x=pick(concept.phrases, rng)), rng)
    ending = pick(YES_NO_ENDINGS, rng) if rng.random() < 0.25 else ""
    answer = concept.answer(label)
    return Exchange(question + ending, answer, "declined" if answer == facts.NOT_TRAINED else "yes_no")


def yes_no_questions(row: ImageRow, counts: tuple[int, int], words: Words, rng: np.random.Generator) -> list[Exchange]:
    """``counts[0]`` questions to be answered with yes, as many with no, and ``counts[1]`` that cannot be answered."""
    by_answer: dict[str, list[facts.Concept]] = {"Yes": [], "No": [], facts.NOT_TRAINED: []}
    for concept in facts.CONCEPTS:
        by_answer[concept.answer(row.label)].append(concept)
    pairs, unknown = counts
    asked = []
    for answer, count in (("Yes", pairs), ("No", pairs), (facts.NOT_TRAINED, unknown)):
        concepts = by_answer[answer]
        if concepts:
            preferred = hard_weights(concepts, row.label) if answer != facts.NOT_TRAINED else None
            for i in rng.choice(len(concepts), count, p=preferred):
                asked.append(yes_no_question(concepts[i], row.label, words, rng))
    return asked


def telling_question(row: ImageRow, others: frozenset[str], words: Words, rng: np.random.Generator) -> Exchange:
    """A yes/no question that is answered otherwise for one of the labels ``others``."""
    telling = []
    for concept in facts.CONCEPTS:
        answers = {concept.answer(label) for label in (row.label, *others)}
        if len(answers) > 1 and facts.NOT_TRAINED not in answers:
            telling.append(concept)
    return yes_no_question(telling[int(rng.integers(len(telling)))], row.label, words, rng)


def hard_weights(concepts: list[facts.Concept], label: str) -> np.ndarray:
    """Drawing weights that prefer what is true of some labels of the same kind and not of others: cancer, say.

    Generated tissue is there to be asked for necrosis and tumours.
    """
    groups = (facts.TISSUE, facts.CHILD_CHEST, facts.RADIOLOGY)
    kindred = next((group for group in groups if label in group), facts.EVERYTHING)
    weights = np.array([4.0 if concept.yes & kindred and concept.no & kindred else 1.0 for concept in concepts])
    if label in facts.GENERATED:
        weights *= [GENERATED_FOR if concept in facts.OF_GENERATED else 1.0 for concept in concepts]
    return weights / weights.sum()


def declined(label: str, count: int, words: Words, rng: np.random.Generator) -> list[Exchange]:
    """Questions that no label answers; of VQA-RAD's pictures, whose findings are asked for, only strange ones."""
    asked = []
    for _ in range(count):
        way = 0.0 if label in facts.VQA else rng.random()
        if way < OFF_TOPIC_SHARE:
            question = pick(words.everyday if words.everyday and rng.random() < EVERYDAY else words.off_topic, rng)
        elif way < OFF_TOPIC_SHARE + UNKNOWN_SHARE:
            question = pick(words.unknown, rng)
        else:
            finding = pick(words.unknown_findings, rng)
            question = pick(words.wordings["yes_no"]["finding"], rng).format(x=finding)
        asked.append(Exchange(vary(question, rng), facts.NOT_TRAINED, "declined"))
    return asked


def questions_about(row: ImageRow, words: Words, rng: np.random.Generator) -> list[Exchange]:
    """About twenty-nine questions on one picture; of VQA-RAD's pictures only what their region answers."""
    if row.label in facts.VQA:
        asked = [open_question("organ", row, words, rng) for _ in range(2)]
        return asked + yes_no_questions(row, (3, 0), words, rng) + declined(row.label, 9, words, rng)
    asked = [open_question(kind, row, words, rng) for kind in (*ALWAYS_ASKED, "diagnosis", "diagnosis")]
    asked.append(open_question(pick(SOMETIMES_ASKED, rng), row, words, rng))
    if row.label in facts.BLOOD:
        asked += [open_question(kind, row, words, rng) for kind in ("white_cells", "red_cells")]
    options = (option_question(pick(ASKED_WITH_OPTIONS, rng), row, words, rng) for _ in range(2))
    asked += [question for question in options if question is not None]
    asked += yes_no_questions(row, (6, 1), words, rng)
    return asked + declined(row.label, 8, words, rng)
