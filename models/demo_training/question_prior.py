"""How far the question alone goes on VQA-RAD's yes/no questions: logistic regression on a bag of its words."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Prior:
    """What is usually answered to questions of some words."""

    vocabulary: list[str]
    layer: nn.Linear

    @classmethod
    def learn(cls, train: Sequence[Asked]) -> "Prior":
        """From questions and their answers."""
        counts = Counter(word for question, _ in train for word in words(question))
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
        return cls(vocabulary, layer.requires_grad_(False))

    def p_yes(self, questions: Sequence[str]) -> list[float]:
        """Probability of yes for each question."""
        chances: list[float] = self.layer(bags(questions, self.vocabulary))[:, 0].sigmoid().tolist()
        return chances

    def foretell(self, questions: Sequence[str]) -> list[str]:
        """Yes or No for each question."""
        return ["Yes" if chance > 0.5 else "No" for chance in self.p_yes(questions)]


def priors_of_others(by_picture: Mapping[str, Sequence[Asked]]) -> dict[str, Prior]:
    """Picture -> what the questions on the other folds' pictures tell."""
    priors: dict[str, Prior] = {}
    names = sorted(by_picture)
    for fold in range(FOLDS):
        own = names[fold::FOLDS]
        learnt = Prior.learn([asked for name in names if name not in own for asked in by_picture[name]])
        priors |= dict.fromkeys(own, learnt)
    return priors
