"""The loss of a batch of sequences: what a training step minimises, and what an evaluation counts.

Logits are computed only where something is learnt, and the image is read by the very functions that answering uses.
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from dragonfly_med.modeling import DragonflyForCausalLM
from dragonfly_med.processing import DragonflyProcessor
from dragonfly_med.training.attention import PACKED_ATTENTION, text_mask

# Logits that are held at a time, 1 GB in float32; more are computed again in the backward pass.
_LOGITS_AT_A_TIME = 2**28


class Learner(nn.Module):
    """A network with its loss. ``mixed`` computes in bfloat16 what gains by it, with parameters as they are.

    The network's language model runs with the attention of packed conversations from here on.
    """

    # what transformers' Trainer asks its model for
    accepts_loss_kwargs = True
    _keys_to_ignore_on_save = None

    image_ids: torch.Tensor

    def __init__(self, network: DragonflyForCausalLM, processor: DragonflyProcessor, mixed: bool = False) -> None:
        super().__init__()
        self.network = network
        network.language_model.set_attn_implementation(PACKED_ATTENTION)
        self.mixed = mixed
        self.register_buffer("image_ids", torch.tensor(processor.image_block()), persistent=False)

    def forward(self, num_items_in_batch: Any = None, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """``loss``: the weighted mean over the ids that are learnt; ``batch`` is what ``SequenceMaker.batch`` makes.

        With ``num_items_in_batch``, the sum of weights of several batches, it is this batch's part of their mean.
        """
        losses, _ = self.predict(**batch)
        weights = batch["weights"][:, 1:]
        weights = weights[weights > 0]
        total = weights.sum() if num_items_in_batch is None else num_items_in_batch
        return {"loss": (losses * weights).sum() / total}

    def predict(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        blocks: torch.Tensor,
        weights: torch.Tensor,
        answers: torch.Tensor,
        features: torch.Tensor | None = None,
        pixels: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of every learnt id, in reading order: its loss, and the state [learnt, width] that it is predicted from."""
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self.mixed):
            states = self._read(self._embedded(ids, features, pixels), positions, blocks)
            learnt = weights[:, 1:] > 0
            states = states[:, :-1][learnt]
            return self._losses(states, ids[:, 1:][learnt]), states

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """[ids, width] to [ids, vocabulary] float32."""
        with torch.autocast(states.device.type, torch.bfloat16, enabled=self.mixed):
            return self.network.get_output_embeddings()(states).float()

    def _embedded(self, ids: torch.Tensor, features: torch.Tensor | None, pixels: torch.Tensor | None) -> torch.Tensor:
        """[samples, image length + text length, width]."""
        if pixels is not None:
            frozen = not next(self.network.image_encoder.parameters()).requires_grad
            with torch.no_grad() if frozen else nullcontext():
                features = self.network.image_features(pixels)
        assert features is not None, "a batch has pixels or features"
        images, _ = self.network.embed_features(features)
        everything = torch.cat([self.image_ids.expand(len(ids), -1), ids], dim=1)
        return self.network.place_images(everything, self.network.get_input_embeddings()(everything), images)

    def _read(self, embedded: torch.Tensor, positions: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
        """States of the text, [samples, text length, width]."""
        length = len(self.image_ids)
        image_positions = torch.arange(length, device=positions.device).expand(len(positions), -1)
        output = self.network.language_model.model(
            inputs_embeds=embedded,
            attention_mask=text_mask(blocks, length),
            position_ids=torch.cat([image_positions, positions + length], dim=1),
            use_cache=False,
        )
        return output.last_hidden_state[:, length:]

    def _losses(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        rows = max(1, _LOGITS_AT_A_TIME // self.network.config.text_config.vocab_size)
        if len(states) <= rows:
            return self._cross_entropy(states, targets)
        parts = zip(states.split(rows), targets.split(rows), strict=True)
        return torch.cat([checkpoint(self._cross_entropy, *part, use_reentrant=False) for part in parts])

    def _cross_entropy(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return cross_entropy(self.network.get_output_embeddings()(states).float(), targets, reduction="none")
