"""The vision encoder's shape, its features, and the linear layers that its training alone needs."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from demo_training.labels import OUTPUTS

ENCODER = CLIPVisionConfig(
    hidden_size=256,
    intermediate_size=1024,
    num_hidden_layers=7,
    num_attention_heads=4,
    image_size=112,
    patch_size=16,
    hidden_act="quick_gelu",
    layer_norm_eps=1e-5,
    projection_dim=256,
    attn_implementation="eager",  # with fifty tokens faster than the fused kernel
)
PATCHES = (ENCODER.image_size // ENCODER.patch_size) ** 2
SPECTRUM_FLOOR = 0.02  # of the largest deviation among the components of patches


@dataclass(frozen=True)
class Reading:
    """What the linear layers read from the features of crops."""

    logits: torch.Tensor  # from the class token, [crops, OUTPUTS]
    mean_logits: torch.Tensor  # from the mean of the patches, [crops, OUTPUTS]


class Student(nn.Module):
    """CLIP's vision tower, read at ``hidden_states[-2]``: the very features that the language model will be given.

    The last layer and the post-layernorm take no part in them; they are in the checkpoint because its format wants
    them, untrained.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = CLIPVisionModel(ENCODER)
        self.head = nn.Linear(ENCODER.hidden_size, OUTPUTS)
        self.mean_head = nn.Linear(ENCODER.hidden_size, OUTPUTS)

    @property
    def layers(self) -> nn.ModuleList:
        """Those that the features come from."""
        return self.encoder.encoder.layers[:-1]

    def features(self, crops: torch.Tensor, patches: int = PATCHES) -> torch.Tensor:
        """[crops, 3, side, side] -> hidden_states[-2]: [crops, 1 + patches, width], of patches drawn for each crop."""
        embedded = self.encoder.embeddings(crops)
        if patches < PATCHES:
            embedded = some_patches(embedded, patches)
        hidden = self.encoder.pre_layrnorm(embedded)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=None)
        return hidden

    def read(self, crops: torch.Tensor, patches: int = PATCHES) -> Reading:
        features = self.features(crops, patches)
        return Reading(self.head(features[:, 0]), self.mean_head(features[:, 1:].mean(1)))

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Logits [crops, OUTPUTS], by both readings."""
        reading = self.read(crops)
        return (reading.logits + reading.mean_logits) / 2


def some_patches(embedded: torch.Tensor, count: int) -> torch.Tensor:
    """The class token and ``count`` patches of each crop, drawn at random; they keep the embeddings of their places."""
    crops, tokens, width = embedded.shape
    drawn = 1 + torch.rand(crops, tokens - 1).argsort(1)[:, :count]
    kept = torch.cat([torch.zeros(crops, 1, dtype=torch.long), drawn], dim=1)
    return embedded.gather(1, kept[:, :, None].expand(-1, -1, width))


@torch.no_grad()
def whiten_patches(student: Student, crops: torch.Tensor) -> None:
    """Start the patch embedding from the principal components of patches, each at the same strength.

    Fine texture is thousands of times weaker than brightness in the pixels, and is what tells tissues apart; a random
    start would have to learn that first.
    """
    embedding = student.encoder.embeddings.patch_embedding
    side = ENCODER.patch_size
    patches = nn.functional.unfold(crops, side, stride=side).transpose(1, 2).flatten(0, 1)  # [patches, 3 * side**2]
    _, deviations, components = torch.linalg.svd(patches - patches.mean(0), full_matrices=False)
    deviations = deviations[: ENCODER.hidden_size] / len(patches) ** 0.5
    filters = components[: ENCODER.hidden_size] / (deviations + SPECTRUM_FLOOR * deviations[0])[:, None]
    embedding.weight.copy_(filters.view_as(embedding.weight))
