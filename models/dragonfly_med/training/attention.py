"""Attention of one image block and the conversations packed behind it, in two products instead of one masked one.

The image is plainly causal, which every kernel does in half the work; only the text needs a mask. transformers calls
the function by its name, as it calls its own kernels.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

PACKED_ATTENTION = "dragonfly-packed"


def text_mask(blocks: torch.Tensor, image_length: int) -> torch.Tensor:
    """What each text position sees: bool [samples, 1, text length, image length + text length].

    ``blocks`` [samples, text length] are numbers of conversations. A position sees the whole image, and in its own
    conversation what is before it, and itself.
    """
    length = blocks.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=blocks.device).tril()
    text = earlier & (blocks[:, :, None] == blocks[:, None, :])
    image = text.new_ones(()).expand(*blocks.shape, image_length)
    return torch.cat([image, text], dim=2)[:, None]


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Query, key and value [samples, heads, length, width] to [samples, length, heads, width].

    ``attention_mask`` is what ``text_mask`` makes.
    """
    shared = query.shape[1] // key.shape[1]  # query heads that read the same keys
    key, value = (tensor.repeat_interleave(shared, dim=1) for tensor in (key, value))
    image = query.shape[2] - attention_mask.shape[2]
    seen_by_image = scaled_dot_product_attention(
        query[:, :, :image], key[:, :, :image], value[:, :, :image], None, dropout, is_causal=True, scale=scaling
    )
    seen_by_text = scaled_dot_product_attention(query[:, :, image:], key, value, attention_mask, dropout, scale=scaling)
    return torch.cat([seen_by_image, seen_by_text], dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
