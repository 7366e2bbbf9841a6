"""The Dragonfly network: a CLIP vision encoder, one linear projection, a Llama, and zoom-in selection between them.

Both published architectures are computed here exactly (float32 logits within 1e-3 of the reference on every recorded
case). State-dict names are the published ones, in memory as on disk.

Sources: Thapa et al., "Dragonfly: Multi-Resolution Zoom-In Encoding Enhances Vision-Language Models"
(arXiv:2406.00977), section 3; the behaviour of togethercomputer/Dragonfly, branches dragonfly-v1 and main.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    GenerationMixin,
    LlamaForCausalLM,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple, torch_compilable_check
from transformers.utils.deprecation import deprecate_kwarg

from dragonfly_med.configuration import DragonflyConfig
from dragonfly_med.loading import existing_folder, is_quantized, load_strictly
from dragonfly_med.memory import in_parts
from dragonfly_med.views import MIDDLE_CROPS, POOLED_GRID

# Zoom-in selection of v1: each middle crop chooses three of "its" six high crops. Its six are consecutive in the high
# grid's row-by-row numbering, not the ones that lie under it in the picture; the weights were trained that way.
_HIGH_PER_MIDDLE = 6
_KEPT_PER_MIDDLE = 3

# Those of an image at most. What a CPU computes of more overflows its caches; a GPU is not filled by so few.
CROPS_OF_A_CPU = 41


@dataclass
class DragonflyOutput(CausalLMOutputWithPast):
    """A causal language model's output, and which high crops v1 zoomed in on ([batch, 12], ascending)."""

    selected_crops: torch.Tensor | None = None


class ImageEncoder(nn.Module):
    """CLIP's vision tower under its published name, giving the features of the second-to-last layer."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__()
        self.vision_model = CLIPVisionModel(config)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """[crops, 3, side, side] to [crops, tokens, width], class token first, without the post-layernorm.

        The last layer is part of every checkpoint and of no result, so it is not run.
        """
        tower = self.vision_model
        hidden = tower.pre_layrnorm(tower.embeddings(crops))
        for layer in tower.encoder.layers[:-1]:
            hidden = layer(hidden, None)
        return hidden


class DragonflyForCausalLM(PreTrainedModel, GenerationMixin):
    """Answers prompts about images.

    ``from_pretrained`` opens a folder laid out like the published checkpoints, never a network, and refuses one in
    which any weight is missing, left over or of another shape.
    """

    config_class = DragonflyConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _no_split_modules = ("CLIPEncoderLayer", "LlamaDecoderLayer")
    _skip_keys_device_placement = ("cache",)

    def __init__(self, config: DragonflyConfig) -> None:
        super().__init__(config)
        self.image_encoder = ImageEncoder(config.vision_config)
        self.vision_embed_tokens = nn.Linear(config.vision_config.hidden_size, config.text_config.hidden_size)
        self.language_model = LlamaForCausalLM(config.text_config)
        self.post_init()
        self.stop_where_the_reference_stops()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """As in transformers, but local and strict; a pre-quantized folder is opened in 4 bit (CPU by default).

        Raises:
            CheckpointError: no such folder, an unknown kind of checkpoint, or weights that do not fit exactly.
        """
        folder = existing_folder(pretrained_model_name_or_path)
        if is_quantized(folder):
            return _open_quantized(folder, **kwargs)
        model, loading_info = load_strictly(super().from_pretrained, folder, *model_args, **kwargs)
        model.stop_where_the_reference_stops()
        return (model, loading_info) if kwargs.get("output_loading_info") else model

    def stop_where_the_reference_stops(self) -> None:
        """Sets the generation configuration's special tokens to those of the published networks."""
        # the published generation_config.json names <|end_of_text|>, at which the model does not stop
        self.generation_config.eos_token_id = self.config.stop_token_ids
        self.generation_config.bos_token_id = self.config.bos_token_id
        self.generation_config.pad_token_id = self.config.bos_token_id

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    def encode_crops(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Projected features of every crop: [batch, crops, 3, side, side] to [batch, crops, tokens, width]."""
        return self.vision_embed_tokens(self._crop_features(pixel_values))

    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the vision encoder makes of images [batch, crops, 3, side, side], before the projector.

        v1: of every crop, [batch, crops, tokens, width], because zoom-in selection compares what is projected.
        v2: [batch, embeddings, width], pooled already: averaging and projecting may change places.
        """
        features = self._crop_features(pixel_values)
        if self.config.architecture == "dragonfly-v1":
            return features
        pooled = pool_crops(features[:, 1:], self.config.patch_grid)  # [batch, 40, 37, width]
        return torch.cat([features[:, 0], pooled.flatten(1, 2)], dim=1)

    def embed_features(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """``image_features`` as image embeddings in sequence order [batch, embeddings, width]; v1's selected crops."""
        projected = self.vision_embed_tokens(features.to(self.vision_embed_tokens.weight.dtype))
        if self.config.architecture != "dragonfly-v1":
            return projected, None
        selected = rank_and_keep(projected)
        rows = torch.arange(len(selected), device=selected.device)[:, None]
        low_and_middle, high = projected[:, : 1 + MIDDLE_CROPS], projected[:, 1 + MIDDLE_CROPS :]
        kept = torch.cat([low_and_middle, high[rows, selected]], dim=1)  # [batch, 17, tokens, width]
        return kept.flatten(1, 2), selected

    def select_crops(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """v1's zoom-in selection: numbers of the kept high crops, [batch, 12], ascending."""
        if self.config.architecture != "dragonfly-v1":
            raise ValueError("only v1 selects crops; v2 reads all of them, pooled")
        return rank_and_keep(self.encode_crops(pixel_values))

    def embed_images(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Image embeddings in sequence order [batch, embeddings, width], and v1's selected crops."""
        return self.embed_features(self.image_features(pixel_values))

    def _crop_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Every crop by itself, so that it does not matter how many of them memory has room for."""
        crops = pixel_values.flatten(0, 1)
        most = CROPS_OF_A_CPU if crops.device.type == "cpu" else len(crops)
        features = in_parts(len(crops), lambda start, end: self.image_encoder(crops[start:end]), most)
        return torch.cat(features).unflatten(0, pixel_values.shape[:2])

    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")  # as the Llama inside
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> DragonflyOutput:
        """Logits [batch, length, vocabulary] (or of the last ``logits_to_keep`` positions).

        Args:
            input_ids: [batch, length], with placeholders where image embeddings go.
            pixel_values: [batch, crops, 3, side, side]; whenever they are given they are looked at.
            attention_mask: [batch, length], 0 at padding; with a ``cache`` it begins with what the cache holds.

        Raises:
            ValueError: placeholders and image embeddings differ in number.
        """
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        selected = None
        if pixel_values is not None:
            if input_ids is None:
                raise ValueError("pixel_values need input_ids, whose placeholders say where the image goes")
            images, selected = self.embed_images(pixel_values)
            inputs_embeds = self.place_images(input_ids, inputs_embeds, images)
        if position_ids is None:
            position_ids = _positions(attention_mask, inputs_embeds.shape[1])
        output = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            labels=labels,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        return DragonflyOutput(**output, selected_crops=selected)

    def place_images(self, input_ids: torch.Tensor, inputs_embeds: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Replaces the word embedding of every placeholder by an image embedding, in order."""
        is_image = input_ids == self.config.image_token_id
        torch_compilable_check(
            is_image.sum() == images.shape[0] * images.shape[1],
            lambda: f"{images.shape[0]} x {images.shape[1]} image embeddings for {int(is_image.sum())} placeholders",
        )
        return inputs_embeds.masked_scatter(is_image[..., None], images.to(inputs_embeds.dtype))


def _open_quantized(
    folder: Path,
    dtype: torch.dtype | str | None = None,
    device_map: Any = None,
    attn_implementation: str | None = None,
    output_loading_info: bool = False,
    **_: Any,
) -> Any:
    """transformers' keywords to ours. ``device_map`` may name one device, alone or as ``{"": device}``."""
    from dragonfly_med.quantized_loading import open_in_4_bit

    chosen = dtype if isinstance(dtype, torch.dtype) else torch.bfloat16
    device = device_map.get("") if isinstance(device_map, dict) else device_map
    model = open_in_4_bit(folder, chosen, "cpu" if device in (None, "auto") else device, attn_implementation)
    return (model, {"missing_keys": set(), "unexpected_keys": set()}) if output_loading_info else model


def rank_and_keep(features: torch.Tensor) -> torch.Tensor:
    """Zoom-in selection on projected features [batch, 29, tokens, width]: numbers of 12 high crops, ascending.

    A crop is summarised by the mean of its tokens, and compared by the dot product; of equal ones the first is kept.
    """
    means = features.mean(dim=2)  # [batch, crops, width]
    middle, high = means[:, 1 : 1 + MIDDLE_CROPS], means[:, 1 + MIDDLE_CROPS :]
    high = high.unflatten(1, (MIDDLE_CROPS, _HIGH_PER_MIDDLE))
    scores = (high * middle[:, :, None]).sum(-1)  # [batch, middle, its high crops]
    # not topk, which keeps any of the many crops that are equally black or white, and another one on another device
    kept = scores.sort(dim=-1, descending=True, stable=True).indices[..., :_KEPT_PER_MIDDLE]
    first = torch.arange(MIDDLE_CROPS, device=kept.device)[:, None] * _HIGH_PER_MIDDLE
    return (kept + first).flatten(1).sort(dim=1).values


def pool_crops(features: torch.Tensor, patch_grid: int) -> torch.Tensor:
    """[batch, crops, 1 + grid², width] to [batch, crops, 37, width]: class token, then squares averaged to 6 x 6."""
    class_token, patches = features[:, :, :1], features[:, :, 1:]
    square = patch_grid // POOLED_GRID
    patches = patches.unflatten(2, (POOLED_GRID, square, POOLED_GRID, square)).mean(dim=(3, 5))
    return torch.cat([class_token, patches.flatten(2, 3)], dim=2)


def _positions(attention_mask: torch.Tensor | None, length: int) -> torch.Tensor | None:
    """Running count of the mask minus one, of its last ``length``: as generation numbers a batch. Padding gets 1."""
    if attention_mask is None or attention_mask.ndim != 2:
        return None
    return (attention_mask.long().cumsum(-1) - 1).masked_fill(attention_mask == 0, 1)[:, -length:]
