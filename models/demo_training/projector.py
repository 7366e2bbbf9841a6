"""How the projector begins: with what the encoder learnt to tell, and so that zoom-in selection looks for disease.

Selection keeps the high crops whose mean embedding has the largest dot product with their middle crop's. An output that
stands for disease and has a large constant added to it puts the sickest crops first, whatever the middle crop shows; a
training that selection's choice passes no gradient to would never find that. It holds while the other outputs stay
about as small as they begin: the README tells what became of it in the shipped checkpoint.
"""

from collections.abc import Sequence

import torch
from torch import nn

from demo_training.facts import BENIGN, GENERATED, MALIGNANT, PNEUMONIA
from demo_training.labels import LABELS

IMAGE_SCALE = 0.3  # deviation of an output of the projector over tokens
LESS_TELLING = 0.5  # share of it for the principal axes
ALWAYS_SICK = 4.0  # constant of the output that stands for disease
RIDGE = 0.03  # of the mean variance of the features
SICK, WELL = (MALIGNANT | PNEUMONIA) - GENERATED, (BENIGN | {"normal"}) - GENERATED  # what every part shows


def first_projector(
    student: dict[str, torch.Tensor], sample: torch.Tensor, disease: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight [width, features] and bias [width] of the linear layer.

    Its first outputs are the encoder's own opinions on the labels, the last is ``disease``, the others are the
    principal axes of ``sample`` ([pictures, crops, tokens, features]). Axes alone will not do: what tells benign from
    malignant varies little, and the language model learnt it too slowly.
    """
    features = sample.float().flatten(0, -2)
    centred = features - features.mean(0)
    _, _, axes = torch.linalg.svd(centred[:: len(centred) // 4096 + 1], full_matrices=False)
    telling = student["head.weight"] + student["mean_head.weight"]  # [OUTPUTS, features]
    rows = torch.cat([telling, axes[: width - len(telling) - 1], disease[None]])
    scale = IMAGE_SCALE / (centred @ rows.T).std(0)
    scale[len(telling) : -1] *= LESS_TELLING
    bias = -(rows @ features.mean(0)) * scale
    bias[-1] += ALWAYS_SICK
    return rows * scale[:, None], bias


def disease_direction(features: torch.Tensor, labels: Sequence[str]) -> torch.Tensor:
    """What tells sick from well within every data set, by ridge regression on crops' mean tokens: [features].

    ``features`` [pictures, crops, tokens, features] are of crops that show what the label says. Data sets weigh alike,
    and so do sick and well; labels that are neither are passed over.
    """
    means, inputs, truth, weights = features.float().mean(2), [], [], []
    for names in LABELS.values():
        groups = [[i for i, label in enumerate(labels) if label in names and label in side] for side in (SICK, WELL)]
        if not all(groups):
            continue
        sides = [means[own].flatten(0, 1) for own in groups]
        middle = sum(side.mean(0) for side in sides) / 2
        for side, answer in zip(sides, (0.5, -0.5), strict=True):
            inputs.append(side - middle)
            truth.append(torch.full((len(side),), answer))
            weights.append(torch.full((len(side),), 1 / len(side)))
    crops, weight = torch.cat(inputs), torch.cat(weights)
    weighted = (crops * (weight / weight.sum())[:, None]).T
    spread = weighted @ crops
    ridge = RIDGE * spread.diagonal().mean() * torch.eye(len(spread))
    return torch.linalg.solve(spread + ridge, weighted @ torch.cat(truth))


def hold_disease(projector: nn.Linear) -> None:
    """No training changes the output that stands for disease: it would come to mean something else."""
    for parameter in (projector.weight, projector.bias):
        learns = torch.ones_like(parameter)
        learns[-1] = 0
        parameter.register_hook(lambda gradient, learns=learns: gradient * learns)
