"""The shapes of vision encoders, and the crops that follow from them; plain data, so that it costs no import.

Source: the published configurations of openai/clip-vit-base-patch32 and openai/clip-vit-large-patch14-336.
"""

import json
from pathlib import Path
from typing import Any

from dragonfly_med.errors import CheckpointError
from dragonfly_med.views import Architecture

_CLIP_BY_HUB_ID: dict[str, dict[str, Any]] = {
    "openai/clip-vit-base-patch32": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 32,
        "projection_dim": 512,
    },
    "openai/clip-vit-large-patch14-336": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
        "projection_dim": 768,
    },
}

# A v1 crop is 7 x 7 patches and a v2 crop 24 x 24, which is also what makes v2's pooling necessary.
_LARGEST_V1_PATCH_GRID = 12

_CLIP_DEFAULTS = {"image_size": 224, "patch_size": 32}  # what a description of an encoder may leave out


def encoder_shape(image_encoder: str, checkpoint: Path) -> dict[str, Any]:
    """The CLIP settings of an encoder by its hub id, or by the folder below ``checkpoint`` that describes it.

    Raises CheckpointError when it is neither.
    """
    if image_encoder in _CLIP_BY_HUB_ID:
        return _CLIP_BY_HUB_ID[image_encoder]
    file = checkpoint / image_encoder / "config.json"
    is_below = not Path(image_encoder).is_absolute() and ".." not in Path(image_encoder).parts
    if not is_below or not file.is_file():
        raise CheckpointError(
            f"unknown vision encoder {image_encoder!r}: it is neither {' nor '.join(_CLIP_BY_HUB_ID)}, "
            f"and the checkpoint has no {image_encoder}/config.json"
        )
    shape = json.loads(file.read_text(encoding="utf-8"))
    return shape.get("vision_config", shape)  # a whole CLIP nests its vision half


def is_published(image_encoder: str) -> bool:
    """Whether it is the hub id of an encoder of the published networks."""
    return image_encoder in _CLIP_BY_HUB_ID


def architecture_of(image_size: int, patch_size: int) -> Architecture:
    """What an encoder's patch grid tells of the network around it."""
    return "dragonfly-v1" if image_size // patch_size <= _LARGEST_V1_PATCH_GRID else "dragonfly-v2"


def crops_of(folder: Path) -> tuple[int, Architecture]:
    """The side in pixels of a model's crops, and its architecture, from the ``config.json`` of a checkpoint alone.

    They are what ``views.plan_views`` wants to know. Raises CheckpointError when they cannot be read.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        shape = config.get("vision_config") or encoder_shape(config["image_encoder"], folder)
        side, patch = (int(shape.get(name, default)) for name, default in _CLIP_DEFAULTS.items())
        return side, config.get("architecture") or architecture_of(side, patch)
    except FileNotFoundError:
        raise CheckpointError("there is no config.json in it") from None
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise CheckpointError("its config.json cannot be read") from None
