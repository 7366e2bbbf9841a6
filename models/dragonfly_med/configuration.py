"""The shape of a Dragonfly network, as the published ``config.json`` files describe it.

Two published architectures share one class. v1 sends low and middle crops in full and the twelve high crops that
zoom-in selection keeps; v2 sends the low crop in full and every other crop pooled. Which one a checkpoint is follows
from its vision encoder, unless ``architecture`` says so.

Source: the config files of togethercomputer/Llama-3-8B-Dragonfly-v1 and Llama-3.1-8B-Dragonfly-v2, and CLIP's
(openai/clip-vit-base-patch32, openai/clip-vit-large-patch14-336), held here as constants because loading must never
need a network.
"""

import json
from pathlib import Path
from typing import Any

from transformers import CLIPVisionConfig, LlamaConfig, PreTrainedConfig

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

_LLAMA_3_8B: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
}

# Llama 3 keeps its special tokens in one block that begins with <|begin_of_text|>. Their names changed between 3.0
# and 3.1, their places did not.
_END_OF_TEXT, _IMAGE, _NEWLINE, _END_OF_TURN = 1, 2, 3, 9

# A v1 crop is 7 x 7 patches and a v2 crop 24 x 24, which is also what makes v2's pooling necessary.
_LARGEST_V1_PATCH_GRID = 12


class DragonflyConfig(PreTrainedConfig):
    """Configuration of ``DragonflyForCausalLM``; the defaults are the published v1.

    Args:
        text_config: the Llama part. A dict is completed by transformers' Llama defaults, as the reference does;
            ``None`` means Llama 3 8B.
        vision_config: the CLIP part. ``None`` means the encoder that ``image_encoder`` names.
        image_encoder: the hub id of a published CLIP encoder (never downloaded), or a folder below the checkpoint
            that holds the encoder's ``config.json``.
        architecture: ``dragonfly-v1`` or ``dragonfly-v2``; ``None`` means what the encoder's patch grid tells.

    Raises:
        CheckpointError: the encoder is neither known nor described by a file.
    """

    model_type = "dragonfly"
    sub_configs = {"text_config": LlamaConfig, "vision_config": CLIPVisionConfig}
    keys_to_ignore_at_inference = ["cache", "selected_crops"]

    def __init__(
        self,
        text_config: dict[str, Any] | LlamaConfig | None = None,
        vision_config: dict[str, Any] | CLIPVisionConfig | None = None,
        image_encoder: str = "openai/clip-vit-base-patch32",
        architecture: Architecture | None = None,
        bos_token_id: int | None = None,
        **kwargs: Any,
    ) -> None:
        if vision_config is None:
            vision_config = _encoder_shape(image_encoder, Path(str(kwargs.get("name_or_path", ""))))
        self.text_config = _as_config(LlamaConfig, _LLAMA_3_8B if text_config is None else text_config)
        self.vision_config = _as_config(CLIPVisionConfig, vision_config)
        self.image_encoder = image_encoder
        self.architecture: Architecture = architecture or _architecture_of(self.vision_config)
        bos = bos_token_id if bos_token_id is not None else self.text_config.bos_token_id
        kwargs["eos_token_id"] = bos + _END_OF_TEXT
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(bos_token_id=bos, **_without_null_rope(kwargs))

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> tuple[dict, dict]:
        """As in transformers, and remembers the folder, in which a vision encoder may be described.

        Raises CheckpointError for the configuration of another kind of network.
        """
        config_dict, rest = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if config_dict.get("model_type") != cls.model_type:
            raise CheckpointError(
                f"its model_type {config_dict.get('model_type')} is unknown; {cls.model_type} is wanted"
            )
        config_dict["name_or_path"] = str(pretrained_model_name_or_path)
        return config_dict, rest

    @property
    def image_token_id(self) -> int:
        """The placeholder that an image embedding replaces."""
        return self.bos_token_id + _IMAGE

    @property
    def image_newline_token_id(self) -> int:
        """The token after every crop; it keeps its word embedding."""
        return self.bos_token_id + _NEWLINE

    @property
    def stop_token_ids(self) -> list[int]:
        """Generation ends at <|eot_id|>, and, as in the reference, at <|begin_of_text|>."""
        return [self.bos_token_id, self.bos_token_id + _END_OF_TURN]

    @property
    def crop_side_px(self) -> int:
        return self.vision_config.image_size

    @property
    def patch_grid(self) -> int:
        """Patches along one side of a crop; a crop has this squared plus one (the class token) features."""
        return self.vision_config.image_size // self.vision_config.patch_size


def _as_config(kind: Any, settings: Any) -> Any:
    return kind(**_without_null_rope(settings)) if isinstance(settings, dict) else settings


def _encoder_shape(image_encoder: str, checkpoint: Path) -> dict[str, Any]:
    if image_encoder in _CLIP_BY_HUB_ID:
        return _CLIP_BY_HUB_ID[image_encoder]
    file = checkpoint / image_encoder / "config.json"
    if not file.is_file():
        raise CheckpointError(
            f"unknown vision encoder {image_encoder!r}: it is neither {' nor '.join(_CLIP_BY_HUB_ID)}, "
            f"and the checkpoint has no {image_encoder}/config.json"
        )
    shape = json.loads(file.read_text(encoding="utf-8"))
    return shape.get("vision_config", shape)  # a whole CLIP nests its vision half


def _without_null_rope(settings: dict[str, Any]) -> dict[str, Any]:
    """Without ``rope_scaling: null``, which every published file has and transformers now warns about."""
    return {key: value for key, value in settings.items() if not (key == "rope_scaling" and value is None)}


def _architecture_of(vision: CLIPVisionConfig) -> Architecture:
    grid = vision.image_size // vision.patch_size
    return "dragonfly-v1" if grid <= _LARGEST_V1_PATCH_GRID else "dragonfly-v2"
