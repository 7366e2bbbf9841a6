"""Which part of the network learns, and the settings that a training begins with.

stage1 and stage2 are the reference's two stages (togethercomputer/Dragonfly), with its hyper-parameters for one of its
8 GPUs. ``language`` stands between them: projector and language model from a frozen encoder's features. lora and qlora
follow Dettmers et al., "QLoRA" (arXiv:2305.14314): adapters on every linear layer of the language model.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from dragonfly_med.modeling import DragonflyForCausalLM
from dragonfly_med.quantization import quietly_import_bitsandbytes

_ADAPTED = r"language_model\.model\.layers\.\d+\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj"

# Part of every checkpoint and of no result, so nothing can be learnt there.
_UNUSED = "image_encoder.vision_model.post_layernorm."


@dataclass(frozen=True)
class Recipe:
    """``learns`` are the beginnings of the names of the parameters that change; adapters are new parameters."""

    learns: tuple[str, ...]
    learning_rate: float
    batch: int
    accumulate: int
    epochs: float
    adapters: bool = False
    four_bit: bool = False

    @property
    def encoder_learns(self) -> bool:
        return any(prefix.startswith("image_encoder") for prefix in self.learns)


_PROJECTOR, _LANGUAGE, _ENCODER = "vision_embed_tokens.", "language_model.", "image_encoder."

RECIPES = {
    "stage1": Recipe((_PROJECTOR,), learning_rate=2e-5, batch=4, accumulate=2, epochs=1),
    "language": Recipe((_PROJECTOR, _LANGUAGE), learning_rate=2e-5, batch=4, accumulate=2, epochs=1),
    "stage2": Recipe((_PROJECTOR, _LANGUAGE, _ENCODER), learning_rate=2e-6, batch=1, accumulate=2, epochs=1),
    "lora": Recipe((), learning_rate=2e-4, batch=4, accumulate=4, epochs=3, adapters=True),
    "qlora": Recipe((), learning_rate=2e-4, batch=4, accumulate=4, epochs=3, adapters=True, four_bit=True),
}


@dataclass(frozen=True)
class Adapters:
    """Size of the adapters: W + alpha / rank * B A."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05


def choose_parameters(network: DragonflyForCausalLM, recipe: Recipe, frozen_dtype: torch.dtype) -> None:
    """Lets the recipe's parameters learn, in float32, and nothing else; the others are held in ``frozen_dtype``.

    Weights in 4 bit stay as they are.
    """
    for name, parameter in network.named_parameters():
        learns = name.startswith(recipe.learns) and not _is_unused(network, name)
        parameter.requires_grad_(learns and parameter.is_floating_point())
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.float32 if learns else frozen_dtype)


def add_adapters(network: DragonflyForCausalLM, adapters: Adapters) -> Any:
    """Puts untrained adapters into the network; returns peft's model around it, which can save them.

    Raises ImportError where peft is not installed.
    """
    with suppress(ImportError):
        quietly_import_bitsandbytes()  # before peft, which imports it where it is installed
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=adapters.rank, lora_alpha=adapters.alpha, lora_dropout=adapters.dropout, target_modules=_ADAPTED
    )
    return get_peft_model(network, settings)


def _is_unused(network: DragonflyForCausalLM, name: str) -> bool:
    last_layer = network.config.vision_config.num_hidden_layers - 1
    return name.startswith((_UNUSED, f"image_encoder.vision_model.encoder.layers.{last_layer}."))
