"""How the projector begins: with what the encoder learnt to tell, and so that zoom-in selection looks for disease.

Selection keeps the high crops whose mean embedding has the largest dot product with their middle crop's. An output that
stands for disease and has a large constant added to it puts the sickest crops first, whatever the middle crop shows; a
training that selection's choice passes no gradient to would never find that.
"""

from collections.abc import Sequence

import torch

from demo_training.facts import BENIGN, GENERATED_NECROSIS, MALIGNANT, PNEUMONIA
from demo_training.labels import LABELS

IMAGE_SCALE = 0.3  # deviation of an output of the projector over tokens
LESS_TELLING = 0.5  # share of it for the principal axes
ALWAYS_SICK = 4.0  # constant of the output that stands for disease
RIDGE = 0.1  # of the mean variance of the features
SICK, WELL = MALIGNANT | GENERATED_NECROSIS | PNEUMONIA, BENIGN | {"normal"}


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

    ``features`` [pictures, tokens, features] are of one crop that shows what the label says; labels that are neither
    sick nor well are passed over.
    """
    means = features.float().mean(1)
    within, sick = [], []
    for names in LABELS.values():
        own = [i for i, label in enumerate(labels) if label in names and label in SICK | WELL]
        if own:
            truth = torch.tensor([float(labels[i] in SICK) for i in own])
            within.append(means[own] - means[own].mean(0))
            sick.append(truth - truth.mean())
    inputs, truth = torch.cat(within), torch.cat(sick)
    spread = inputs.T @ inputs / len(inputs)
    ridge = RIDGE * spread.diagonal().mean() * torch.eye(len(spread))
    return torch.linalg.solve(spread + ridge, inputs.T @ truth / len(inputs))
