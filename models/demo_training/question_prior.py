"""How far the question alone goes on VQA-RAD's yes/no questions: logistic regression on a bag of its words."""

import re
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

SEEN_AT_LEAST = 2
STEPS, RATE, PENALTY = 300, 0.05, 3e-3


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


def foretell(train: Sequence[tuple[str, str]], questions: Sequence[str]) -> list[str]:
    """Yes or No for each question, from pairs of question and answer."""
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
        return ["Yes" if score > 0 else "No" for score in layer(bags(questions, vocabulary))[:, 0].tolist()]
