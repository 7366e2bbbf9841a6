"""Training sequences: one image block, then many question blocks that share it.

Every question block begins at the position right after a whole image block and sees that block and itself only, so
one sequence teaches what as many separate prompts would. Only answers and the ``<|eot_id|>`` after them are learnt.
"""

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from demo_training.make_tokenizer import BOS_ID, EOS_ID, EOT_ID
from demo_training.questions import Exchange

CROPS_IN_PROMPT = 17
IMAGE_BLOCK, PADDING_BLOCK = -1, -2


@dataclass
class TextPart:
    """The question blocks of one picture, one after the other; all lists have the same length."""

    ids: list[int]
    positions: list[int]  # counted from the end of the image block
    blocks: list[int]  # number of the block that each id belongs to
    weights: list[float]  # weight in the loss of predicting each id; 0 outside answers


@dataclass
class Batch:
    """Text of several pictures, padded to one length; all tensors are [pictures, length]."""

    ids: torch.Tensor
    positions: torch.Tensor
    blocks: torch.Tensor
    weights: torch.Tensor


def text_part(blocks: list[list[Exchange]], tokenizer: Tokenizer) -> TextPart:
    """Token ids of all blocks; an answer of n ids weighs 1/sqrt(n) an id, so that long ones do not drown Yes and No."""
    part = TextPart([], [], [], [])
    for number, exchanges in enumerate(blocks):
        ids, weights = [BOS_ID], [0.0]
        for exchange in exchanges:
            prompt = tokenizer.encode(prompt_of(exchange.question), add_special_tokens=False).ids
            answer = [*tokenizer.encode(exchange.answer, add_special_tokens=False).ids, EOT_ID]
            ids += prompt + answer
            weights += [0.0] * len(prompt) + [len(answer) ** -0.5] * len(answer)
        part.ids += ids
        part.weights += weights
        part.positions += range(len(ids))
        part.blocks += [number] * len(ids)
    return part


def prompt_of(question: str) -> str:
    """The question in Llama 3's chat form."""
    return (
        f"<|start_header_id|>user<|end_header_id|>\n\n{question}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def collate(parts: list[TextPart]) -> Batch:
    """Pad on the right; padding belongs to a block of its own and weighs nothing."""
    length = max(len(part.ids) for part in parts)

    def padded(rows: list[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([row + [fill] * (length - len(row)) for row in rows])

    weights = torch.zeros(len(parts), length)
    for row, part in enumerate(parts):
        weights[row, : len(part.weights)] = torch.tensor(part.weights)
    return Batch(
        padded([part.ids for part in parts], EOS_ID),
        padded([part.positions for part in parts], 0),
        padded([part.blocks for part in parts], PADDING_BLOCK),
        weights,
    )


def shared_image_mask(blocks: torch.Tensor) -> torch.Tensor:
    """Additive attention mask [pictures, 1, length, length] from block numbers [pictures, length].

    A position sees what is before it in its own block and in the image block.
    """
    length = blocks.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool).tril()
    same = blocks[:, :, None] == blocks[:, None, :]
    image = (blocks == IMAGE_BLOCK)[:, None, :]
    seen = earlier & (same | image)
    return torch.zeros(seen.shape).masked_fill_(~seen, torch.finfo(torch.float32).min)[:, None]
