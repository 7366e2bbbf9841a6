"""Balanced accuracy within each data set, from the logits of a network that reads single crops."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from demo_training.augment import CROP_SIDE_PX, normalise, to_unit
from demo_training.dataset import ImageRow, load_picture
from demo_training.labels import COLUMNS, label_mask, log_probabilities
from dragonfly_med.crops import cut_crops, draw_canvases
from dragonfly_med.views import MIDDLE_CROPS, plan_views

BATCH = 40
FIRST_HIGH = 1 + MIDDLE_CROPS
Logits = Callable[[torch.Tensor], torch.Tensor]


def views(picture: Image.Image, count: int = FIRST_HIGH) -> list[np.ndarray]:
    """The first ``count`` crops that the model sees: uint8 [side, side, 3] each."""
    plan = plan_views(picture.size, CROP_SIDE_PX, "dragonfly-v1")
    return cut_crops(draw_canvases(picture, plan), plan)[:count]


@torch.inference_mode()
def guess(
    logits: Logits, pictures: Sequence[Image.Image], datasets: Sequence[str], crops: int = FIRST_HIGH
) -> list[str]:
    """The likeliest label of each picture within its data set, by the mean over its first ``crops`` crops."""
    pixels = normalise(to_unit([crop for picture in pictures for crop in views(picture, crops)]))
    mask = label_mask(datasets).repeat_interleave(crops, 0)
    with torch.autocast("cpu", torch.bfloat16):
        output = logits(pixels)
    told = log_probabilities(output, mask)[:, : len(COLUMNS)].unflatten(0, (-1, crops)).mean(1)
    return [COLUMNS[i] for i in told.argmax(1).tolist()]


def balanced_accuracy(logits: Logits, data: Path, rows: list[ImageRow], crops: int = FIRST_HIGH) -> dict[str, float]:
    """Mean recall over the labels of each data set that has more than one."""
    hits: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        told = guess(logits, [load_picture(data, row) for row in batch], [row.dataset for row in batch], crops)
        for row, label in zip(batch, told, strict=True):
            hits[row.dataset][row.label].append(label == row.label)
    scores = {name: float(np.mean([np.mean(h) for h in by.values()])) for name, by in sorted(hits.items())}
    return {name: round(score, 3) for name, score in scores.items() if len(hits[name]) > 1}
