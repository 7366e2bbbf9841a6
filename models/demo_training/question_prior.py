"""How far the question alone goes on VQA-RAD's yes/no questions: logistic regression on a bag of its words."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import nn

SEEN_AT_LEAST = 2
STEPS, RATE, PENALTY = 300, 0.05, 6e-4
FOLDS = 6

Asked = tuple[str, str]  # question and answer


def words(question: str) -> set[str]:
    tokens = re.findall(r"[a-z]+", question.lower())
    return {*tokens, *(" ".join(pair) for pair in pairwise(tokens))}


def bags(questions: Sequence[str], vocabulary: Sequence[str]) -> torch.Tensor:
    """[questions, words and pairs of words], 1 where one occurs."""
    number = {word: i for i, word in enumerate(vocabulary)}
    bag = torch.zeros(len(questions), len(vocabulary))
    for row, question in enumerate(questions):
        bag[row, [number[word] for word in words(question) if word in number]] = 1
    return bag


def p_yes(train: Sequence[Asked], questions: Sequence[str]) -> list[float]:
    """Probability of yes for each question, from questions and their answers."""
    counts: dict[str, int] = {}
    for question, _ in train:
        for word in words(question):
            counts[word] = counts.get(word, 0) + 1
    vocabulary = sorted(word for word, count in counts.items() if count >= SEEN_AT_LEAST)
    inputs = bags([question for question, _ in train], vocabulary)
    yes = torch.tensor([float(answer == "Yes") for _, answer in train])
    layer = nn.Linear(len(vocabulary), 1)
    nn.init.zeros_(layer.weight)
    optimizer = torch.optim.Adam(layer.parameters(), RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(layer(inputs)[:, 0], yes)
        (loss + PENALTY * layer.weight.square().sum()).backward()
        optimizer.step()
    with torch.no_grad():
        chances: list[float] = layer(bags(questions, vocabulary))[:, 0].sigmoid().tolist()
    return chances


def foretell(train: Sequence[Asked], questions: Sequence[str]) -> list[str]:
    """Yes or No for each question."""
    return ["Yes" if chance > 0.5 else "No" for chance in p_yes(train, questions)]


def usual_answers(by_picture: Mapping[str, Sequence[Asked]]) -> dict[str, dict[str, float]]:
    """Picture -> question -> probability of yes, as the questions on the other folds' pictures have it."""
    usual: dict[str, dict[str, float]] = {}
    names = sorted(by_picture)
    for fold in range(FOLDS):
        own = names[fold::FOLDS]
        others = [asked for name in names if name not in own for asked in by_picture[name]]
        questions = [question for name in own for question, _ in by_picture[name]]
        chances = dict(zip(questions, p_yes(others, questions), strict=True))
        usual |= {name: {question: chances[question] for question, _ in by_picture[name]} for name in own}
    return usual
