"""What the encoder learns to tell apart: the labels within each data set, and the kinds of picture between them.

Labels of different data sets are never weighed against each other, so that stain or scanner, which name the data set at
once, are no help in telling tumour from normal tissue. Across all of them it learns to tell sick from well.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn

from demo_training.facts import BENIGN, MALIGNANT, PNEUMONIA

LABELS: dict[str, tuple[str, ...]] = {
    "lc25000": (
        "lung_adenocarcinoma",
        "lung_squamous_cell_carcinoma",
        "lung_benign",
        "colon_adenocarcinoma",
        "colon_benign",
    ),
    "oral": ("oral_squamous_cell_carcinoma", "oral_normal"),
    "osteosarcoma": ("viable_tumour", "necrotic_tumour", "non_tumour"),
    "cxr_pneumonia": ("bacterial_pneumonia", "viral_pneumonia", "normal"),
    "mednist": ("abdomen_ct", "breast_mri", "chest_ct", "chest_xray", "hand_xray", "head_ct"),
    "bccd": ("blood_smear",),
    "vqa_rad": ("vqa_chest", "vqa_abdomen", "vqa_head"),
    "generated": (
        "generated_normal",
        "generated_tumour",
        "generated_necrosis",
        "generated_tumour_and_necrosis",
    ),
    "drawn": ("blank",),
}
KINDS = tuple(LABELS)
COLUMNS = tuple(label for labels in LABELS.values() for label in labels)
SICK, WELL = MALIGNANT | PNEUMONIA, BENIGN | {"normal"}  # other labels are neither
OUTPUTS = len(COLUMNS) + len(KINDS) + 1  # labels first, then kinds, then disease
KIND_WEIGHT, DISEASE_WEIGHT = 0.3, 0.5
SMOOTHING = 0.05


def label_mask(datasets: Sequence[str]) -> torch.Tensor:
    """True at the labels of each picture's own data set: bool [pictures, labels]."""
    return torch.tensor([[label in LABELS[dataset] for label in COLUMNS] for dataset in datasets])


def targets(datasets: Sequence[str], labels: Sequence[str]) -> torch.Tensor:
    """Smoothed distributions over labels (within the data set) and kinds, and disease: [pictures, OUTPUTS].

    Disease is near 1 where the label says so, near 0 where it says the opposite, and NaN elsewhere.
    """
    mask = label_mask(datasets).float()
    chosen = torch.zeros_like(mask)
    chosen[torch.arange(len(labels)), [COLUMNS.index(label) for label in labels]] = 1
    kinds = torch.zeros(len(datasets), len(KINDS))
    kinds[torch.arange(len(datasets)), [KINDS.index(dataset) for dataset in datasets]] = 1
    smooth = chosen * (1 - SMOOTHING) + SMOOTHING * mask / mask.sum(1, keepdim=True)
    known = dict.fromkeys(SICK, 1 - SMOOTHING) | dict.fromkeys(WELL, SMOOTHING)
    disease = torch.tensor([[known.get(label, math.nan)] for label in labels])
    return torch.cat([smooth, kinds * (1 - SMOOTHING) + SMOOTHING / len(KINDS), disease], dim=1)


def log_probabilities(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Logits [pictures, OUTPUTS] -> log-probabilities [pictures, labels + kinds], labels within the data set alone."""
    within = logits[:, : len(COLUMNS)].float().masked_fill(~mask, -1e4).log_softmax(1)
    between = logits[:, len(COLUMNS) : -1].float().log_softmax(1)
    return torch.cat([within, between], dim=1)


def label_loss(logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of labels, and with less weight of kinds and of disease."""
    surprise = -target[:, :-1] * log_probabilities(logits, mask)
    labels, kinds = surprise[:, : len(COLUMNS)].sum(1).mean(), surprise[:, len(COLUMNS) :].sum(1).mean()
    known = ~target[:, -1].isnan()
    disease = nn.functional.binary_cross_entropy_with_logits(
        logits[known, -1].float(), target[known, -1], reduction="sum"
    )
    return labels + KIND_WEIGHT * kinds + DISEASE_WEIGHT * disease / len(logits)
