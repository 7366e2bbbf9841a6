"""The projector: it tells what the encoder learnt to tell, and makes zoom-in selection look for disease.

Selection keeps the high crops whose mean embedding has the largest dot product with their middle crop's. An output that
stands for disease and has a large constant added to it puts the sickest crops first, whatever the middle crop shows; a
training that selection's choice passes no gradient to would never find that. It holds while the other outputs stay
small beside it, so the projector is made once and the language model learns to read what it gives.
"""

import torch
from torch import nn

IMAGE_SCALE = 0.3  # deviation of an output over tokens
LESS_TELLING = 0.5  # share of it for the principal axes
ALWAYS_SICK = 4.0  # constant of the output that stands for disease
DISEASE_SCALE = 1.0  # its deviation over the means of crops


def make_projector(
    student: dict[str, torch.Tensor], sample: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight [width, features] and bias [width] of the linear layer, from stage 1's weights.

    Its first outputs are the encoder's own opinions on labels and kinds, the last is its opinion on disease, the others
    are the principal axes of ``sample`` ([pictures, crops, tokens, features]). Axes alone will not do: what tells
    benign from malignant varies little, and the language model learnt it too slowly.
    """
    features = sample.float().flatten(0, -2)
    centred = features - features.mean(0)
    _, _, axes = torch.linalg.svd(centred[:: len(centred) // 4096 + 1], full_matrices=False)
    telling = (student["head.weight"] + student["mean_head.weight"])[:-1]  # [labels + kinds, features]
    disease = student["mean_head.weight"][-1:]  # as selection does, it reads the mean of a crop
    rows = torch.cat([telling, axes[: width - len(telling) - 1], disease])
    scale = IMAGE_SCALE / (centred @ rows.T).std(0)
    scale[len(telling) : -1] *= LESS_TELLING
    scale[-1] = DISEASE_SCALE / (sample.float().mean(-2) @ disease[0]).std()
    bias = -(rows @ features.mean(0)) * scale
    bias[-1] += ALWAYS_SICK
    return rows * scale[:, None], bias


def hold(projector: nn.Linear) -> None:
    """No training changes it: its gradient is nought, and it is not among the weights that are made to decay."""
    for parameter in projector.parameters():
        parameter.register_hook(torch.zeros_like)
