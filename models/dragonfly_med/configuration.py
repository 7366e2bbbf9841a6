"""The shape of a Dragonfly network, as the published ``config.json`` files describe it.

Two published architectures share one class. v1 sends low and middle crops in full and the twelve high crops that
zoom-in selection keeps; v2 sends the low crop in full and every other crop pooled. Which one a checkpoint is follows
from its vision encoder, unless ``architecture`` says so.

Source: the config files of togethercomputer/Llama-3-8B-Dragonfly-v1 and Llama-3.1-8B-Dragonfly-v2, and CLIP's
(openai/clip-vit-base-patch32, openai/clip-vit-large-patch14-336), held here as constants because loading must never
need a network.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args

from transformers import CLIPVisionConfig, LlamaConfig, PreTrainedConfig

from dragonfly_med.encoders import architecture_of, encoder_shape, is_published
from dragonfly_med.errors import CheckpointError
from dragonfly_med.views import POOLED_GRID, Architecture

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

# More than any network has; each is an object to be made, even if there is no memory for its weights.
_MOST_LAYERS = 1000

# Where a configuration may say that positions are scaled.
_ROPE = ("rope_scaling", "rope_parameters")


class DragonflyConfig(PreTrainedConfig):
    """Configuration of ``DragonflyForCausalLM``; the defaults are the published v1.

    Args:
        text_config: the Llama part. A dict is completed by transformers' Llama defaults, as the reference does; one
            of the width of Llama 3 8B beside a published encoder, as in the published files, by Llama 3 8B. ``None``
            means Llama 3 8B.
        vision_config: the CLIP part. ``None`` means the encoder that ``image_encoder`` names.
        image_encoder: the hub id of a published CLIP encoder (never downloaded), or a folder below the checkpoint
            that holds the encoder's ``config.json``.
        architecture: ``dragonfly-v1`` or ``dragonfly-v2``; ``None`` means what the encoder's patch grid tells.

    Raises:
        CheckpointError: the encoder is neither known nor described by a file, or does not fit the architecture.
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
            vision_config = encoder_shape(image_encoder, Path(str(kwargs.get("name_or_path", ""))))
        self.text_config = _as_config(LlamaConfig, _completed(text_config, image_encoder))
        self.vision_config = _as_config(CLIPVisionConfig, vision_config)
        self.image_encoder = image_encoder
        self.architecture: Architecture = architecture or architecture_of(
            self.vision_config.image_size, self.vision_config.patch_size
        )
        self._refuse_impossible()
        bos = bos_token_id if bos_token_id is not None else self.text_config.bos_token_id
        kwargs["eos_token_id"] = bos + _END_OF_TEXT
        kwargs.setdefault("tie_word_embeddings", False)
        # outside of text_config they are left-overs, which mean nothing
        super().__init__(bos_token_id=bos, **_without(_ROPE, kwargs))

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

    def _refuse_impossible(self) -> None:
        if self.architecture not in get_args(Architecture):
            raise CheckpointError(f"unknown architecture {self.architecture!r}")
        layers = max(self.text_config.num_hidden_layers, self.vision_config.num_hidden_layers)
        if layers > _MOST_LAYERS:
            raise CheckpointError(f"a network of {layers} layers is none that can be computed")
        if self.architecture == "dragonfly-v2" and self.patch_grid % POOLED_GRID:
            raise CheckpointError(
                f"a crop of {self.patch_grid} x {self.patch_grid} patches cannot be averaged to "
                f"{POOLED_GRID} x {POOLED_GRID}"
            )


def _completed(text_config: Any, image_encoder: str) -> Any:
    """With what the published files leave out of it."""
    if text_config is None:
        return _LLAMA_3_8B
    width = _LLAMA_3_8B["hidden_size"]
    if is_published(image_encoder) and isinstance(text_config, dict) and text_config.get("hidden_size", width) == width:
        return _LLAMA_3_8B | text_config
    return text_config


def _as_config(kind: Any, settings: Any) -> Any:
    if not isinstance(settings, dict):
        return settings
    # null is what every published file has, and transformers warns about
    return kind(**_without([name for name in _ROPE if settings.get(name) is None], settings))


def _without(names: Collection[str], settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}
