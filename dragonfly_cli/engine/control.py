"""Did the picture matter? The same questions about a picture in which nothing can be seen.

``blank`` is one even colour; ``shuffle`` has the picture's own patches in random order: its colours and textures
without its shapes. The crops are changed after the picture was cut, so that all else stays as it was.
"""

from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher

import torch
from PIL import Image

from dragonfly_cli.engine.aggregation import Answer, ControlAnswer
from dragonfly_cli.engine.answering import Look
from dragonfly_cli.engine.model import Model
from dragonfly_cli.option_values import Control

_BLANK = (122, 116, 104)  # the mean colour of the pictures that CLIP was trained with
_SEED = 0  # a control, too, can be repeated


def controlled(model: Model, look: Look, kind: Control) -> Look:
    """The same field with nothing to be seen in it."""
    if kind is Control.blank:
        pixels = model.processor.pixels(Image.new("RGB", look.plan.canvas_sizes[0], _BLANK))
    else:
        sizes = [columns * rows for columns, rows in look.plan.grids]
        random = torch.Generator().manual_seed(_SEED)
        levels = look.pixels.split(sizes)
        pixels = torch.cat([_shuffled(level, model.processor.patch_grid, random) for level in levels])
    return replace(look, pixels=pixels, reading=model.reading(pixels), read_s=0.0, encode_s=0.0)


def compare(seen: Answer, unseen: Answer, kind: Control) -> ControlAnswer:
    """The distance of probabilities is their total variation, half the sum of differences; of free texts, see below."""
    if seen.probabilities and unseen.probabilities:
        without = unseen.probabilities
        distance = sum(abs(p - without[option]) for option, p in seen.probabilities.items()) / 2
    else:
        distance = _word_distance(seen.text.split(), unseen.text.split())
    return ControlAnswer(kind, unseen.text, unseen.probabilities, unseen.option_mass, distance)


def _word_distance(one: Sequence[str], other: Sequence[str]) -> float:
    """One minus the share of words that both texts have, in the same order."""
    return 1 - SequenceMatcher(None, one, other, autojunk=False).ratio()


def _shuffled(crops: torch.Tensor, grid: int, random: torch.Generator) -> torch.Tensor:
    """The patches of all crops of one level [crops, 3, side, side] in random order."""
    count, channels, side, _ = crops.shape
    patch = side // grid
    patches = crops.reshape(count, channels, grid, patch, grid, patch).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    mixed = patches[torch.randperm(len(patches), generator=random)]
    mixed = mixed.reshape(count, grid, grid, channels, patch, patch).permute(0, 3, 1, 4, 2, 5)
    return mixed.reshape(count, channels, side, side)
