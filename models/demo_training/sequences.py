"""Training sequences: one image block, then many question blocks that share it.

Every question block begins at the position right after a whole image block and sees that block and itself only, so
one sequence teaches what as many separate prompts would. Only answers and the ``<|eot_id|>`` after them are learnt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from demo_training.make_tokenizer import BOS_ID, EOS_ID, EOT_ID
from dragonfly_med.training import Exchange

CROPS_IN_PROMPT = 17
LENGTHS_APART = 64  # for each new length the processor's kernels are built anew, and kept
PADDING_BLOCK = -1


@dataclass(frozen=True)
class Block:
    """One question with its answer, as token ids."""

    ids: list[int]
    weights: list[float]  # weight in the loss of predicting each id; 0 outside the answer


@dataclass(frozen=True)
class Batch:
    """Text of several pictures, padded to one length; all tensors are [pictures, length]."""

    ids: torch.Tensor
    positions: torch.Tensor  # counted from the end of the image block
    blocks: torch.Tensor  # number of the question that each id belongs to
    weights: torch.Tensor


def question_blocks(exchanges: Sequence[Exchange], tokenizer: Tokenizer) -> list[Block]:
    """An answer of n ids weighs 1/sqrt(n) an id, so that long ones do not drown Yes and No."""
    prompts = tokenizer.encode_batch([prompt_of(each.question) for each in exchanges], add_special_tokens=False)
    answers = tokenizer.encode_batch([each.answer for each in exchanges], add_special_tokens=False)
    blocks = []
    for prompt, answer in zip(prompts, answers, strict=True):
        before, after = [BOS_ID, *prompt.ids], [*answer.ids, EOT_ID]
        blocks.append(Block(before + after, [0.0] * len(before) + [len(after) ** -0.5] * len(after)))
    return blocks


def prompt_of(question: str) -> str:
    """The question in Llama 3's chat form."""
    return (
        f"<|start_header_id|>user<|end_header_id|>\n\n{question}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def collate(pictures: Sequence[Sequence[Block]]) -> Batch:
    """The blocks of each picture one after the other, padded on the right; padding is a block that weighs nothing."""
    longest = max(sum(len(block.ids) for block in blocks) for blocks in pictures)
    length = -(-longest // LENGTHS_APART) * LENGTHS_APART
    shape = len(pictures), length
    ids, positions = torch.full(shape, EOS_ID), torch.zeros(shape, dtype=torch.long)
    numbers, weights = torch.full(shape, PADDING_BLOCK), torch.zeros(shape)
    for row, blocks in enumerate(pictures):
        start = 0
        for number, block in enumerate(blocks):
            place = slice(start, start + len(block.ids))
            ids[row, place] = torch.tensor(block.ids)
            positions[row, place] = torch.arange(len(block.ids))
            numbers[row, place] = number
            weights[row, place] = torch.tensor(block.weights)
            start = place.stop
    return Batch(ids, positions, numbers, weights)
