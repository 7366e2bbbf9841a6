"""A glance: a box of a slide as the network's low view alone, one crop of its 29, for ranking where to look.

``p_yes`` lets the language model read that crop and the question; the others compare embeddings of the vision encoder:
``likeness`` and ``contrast`` mean ones, as zoom-in selection does within an image, ``oddity`` those of a crop's parts.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from dragonfly_cli.engine.model import Model
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.source import Source
from dragonfly_med.crops import normalize
from dragonfly_med.memory import in_parts

PARTS_ACROSS = 7  # as many as the low view of v1 has patches
_ODDEST = 8  # parts of a box, of 49, that tell how odd it is
_ALIKE = 8  # how many parts, itself among them, may look like one that is none the less unlike the rest
_COMPARED = 4096  # parts of all boxes at most, with which each is compared


@torch.inference_mode()
def glance(model: Model, source: Source, boxes: Sequence[Box]) -> torch.Tensor:
    """Projected features of the low view of every box: [boxes, tokens, width]."""
    side = model.processor.crop_side_px
    crops = [np.asarray(source.view(box).resize((side, side))) for box in boxes]
    pixels = torch.from_numpy(normalize(crops))[:, None].to(model.device)  # [boxes, 1, 3, side, side]
    return model.network.encode_crops(pixels)[:, 0]


def mean_features(seen: torch.Tensor) -> torch.Tensor:
    """Of every box that was glanced at, [boxes, tokens, width], the mean [boxes, width].

    In float32: in a network's own 16 bits many boxes would be equally good.
    """
    return seen.float().mean(dim=1)


def likeness(means: torch.Tensor, overview: torch.Tensor) -> list[float]:
    """The network's own selection rule: mean embeddings [boxes, width] against the overview's [width], dot product."""
    return (means @ overview).tolist()


def contrast(means: torch.Tensor, overview: torch.Tensor) -> list[float]:
    """How unlike the overview a box looks: one less the cosine of their mean embeddings."""
    return (1 - torch.cosine_similarity(means, overview[None])).tolist()


def parts(seen: torch.Tensor) -> torch.Tensor:
    """The patches of glances [boxes, 1 + patches, width], neighbours averaged: [boxes, at most 49, width]."""
    grid = round((seen.shape[1] - 1) ** 0.5)
    if grid <= PARTS_ACROSS:
        return seen[:, 1:]
    patches = seen[:, 1:].transpose(1, 2).unflatten(2, (grid, grid))
    return adaptive_avg_pool2d(patches, PARTS_ACROSS).flatten(2).transpose(1, 2)


def oddity(seen: torch.Tensor) -> list[float]:
    """How unlike the rest each box looks, of ``parts`` [boxes, parts, width] at one scale.

    What is small is lost in the mean of a box, so its oddest parts tell it: each one's distance to the eighth nearest
    of those of all boxes, because a finding larger than a part makes some look alike.
    """
    every = seen.flatten(0, 1).float()
    others = every[:: -(-len(every) // _COMPARED)]
    nearest = min(_ALIKE, len(others))
    distances = [torch.cdist(box.float(), others).topk(nearest, largest=False).values[:, -1] for box in seen]
    return [float(each.topk(min(_ODDEST, len(each))).values.mean()) for each in distances]


@torch.inference_mode()
def p_yes(model: Model, seen: torch.Tensor, question: Question) -> list[float]:
    """P(yes) of a yes/no question for each of [boxes, tokens, width], one crop standing for the whole image.

    The question stands where it stands behind a whole image, since the network has read none anywhere else.
    """
    return [
        chance
        for part in in_parts(len(seen), lambda start, end: _p_yes(model, seen[start:end], question))
        for chance in part
    ]


def _p_yes(model: Model, seen: torch.Tensor, question: Question) -> list[float]:
    network, processor = model.network, model.processor
    newline = torch.tensor([processor.image_newline_token_id], device=model.device)
    text = torch.tensor(
        processor.text_ids(processor.prompt(question.instruction, question.system)), device=model.device
    )
    words = network.get_input_embeddings()(torch.cat([newline, text]))  # [1 + prompt, width]
    embeds = torch.cat([seen, words.to(seen.dtype).expand(len(seen), -1, -1)], dim=1)
    crop = torch.arange(seen.shape[1] + 1, device=model.device)
    behind = len(processor.image_block()) + torch.arange(len(text), device=model.device)
    positions = torch.cat([crop, behind])[None]
    # without a mask, positions that leave some out would be taken for several texts where no cache is kept
    everything = torch.ones(embeds.shape[:2], dtype=torch.long, device=model.device)
    logits = network.language_model(
        inputs_embeds=embeds, attention_mask=everything, position_ids=positions, logits_to_keep=1
    ).logits[:, -1]
    said = torch.softmax(logits.double(), dim=-1)
    yes, no = (said[:, model.option_ids[option]].sum(dim=-1) for option in ("yes", "no"))
    return (yes / (yes + no)).tolist()
