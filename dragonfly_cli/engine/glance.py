"""A glance: a box of a slide as the network's low view alone, one crop of its 29, for ranking where to look.

``p_yes`` lets the language model read that crop and the question; the others compare mean embeddings of the vision
encoder, as zoom-in selection does within an image.
"""

from collections.abc import Sequence

import numpy as np
import torch

from dragonfly_cli.engine.model import Model
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.source import Source
from dragonfly_med.crops import normalize
from dragonfly_med.memory import in_parts

_ALIKE = 4  # how many boxes may look like a box that is none the less unlike the rest


@torch.inference_mode()
def glance(model: Model, source: Source, boxes: Sequence[Box]) -> torch.Tensor:
    """Projected features of the low view of every box: [boxes, tokens, width]."""
    side = model.processor.crop_side_px
    crops = [np.asarray(source.view(box).resize((side, side))) for box in boxes]
    pixels = torch.from_numpy(normalize(crops))[:, None].to(model.device)  # [boxes, 1, 3, side, side]
    return model.network.encode_crops(pixels)[:, 0]


def likeness(means: torch.Tensor, overview: torch.Tensor) -> list[float]:
    """The network's own selection rule: mean embeddings [boxes, width] against the overview's [width], dot product."""
    return (means @ overview).float().tolist()


def contrast(means: torch.Tensor, overview: torch.Tensor) -> list[float]:
    """How unlike the overview a box looks: one less the cosine of their mean embeddings."""
    return (1 - torch.cosine_similarity(means, overview[None])).float().tolist()


def oddity(means: torch.Tensor) -> list[float]:
    """How unlike the rest a box looks: the distance of its mean embedding to the fourth nearest of [boxes, width].

    The fourth, because a small finding that lies across the corner of a box makes up to three others look alike.
    """
    means = means.float()
    distances = torch.cdist(means, means).sort(dim=1).values  # the first is that to itself
    return distances[:, min(_ALIKE, len(means) - 1)].tolist()


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
    logits = network.language_model(inputs_embeds=embeds, position_ids=positions, logits_to_keep=1).logits[:, -1]
    said = torch.softmax(logits.double(), dim=-1)
    yes, no = (said[:, model.option_ids[option]].sum(dim=-1) for option in ("yes", "no"))
    return (yes / (yes + no)).tolist()
