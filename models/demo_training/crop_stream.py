"""Endless batches of augmented crops, drawn by fixed shares of the data sets and evenly among a data set's labels."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from demo_training.augment import jitter_colours, normalise, random_box, random_crop, to_unit, whole_picture
from demo_training.dataset import ImageRow, load_picture
from demo_training.focus_map import Box
from demo_training.labels import label_mask, targets
from demo_training.variants import ODD

# Hard data sets more than easy ones.
SHARES = {
    "lc25000": 0.19,
    "oral": 0.14,
    "osteosarcoma": 0.08,
    "cxr_pneumonia": 0.3,
    "mednist": 0.09,
    "bccd": 0.02,
    "vqa_rad": 0.04,
    "generated": 0.11,
    "drawn": 0.03,
}
TILED = 0.15  # share of crops of these data sets that show several pictures of one label side by side
TILED_SETS = frozenset({"lc25000", "oral", "osteosarcoma"})
GRIDS = ((2, 1), (2, 2), (3, 2), (4, 3))  # columns and rows of them
ODD_IN_CROPS = ODD | {"viable_tumour": ("necrotic_tumour",)}
WITH_ODD_TILE = 0.4  # share of those that could have one of another label, which then labels them
AHEAD = 4  # batches cut while the network learns


@dataclass(frozen=True)
class Crops:
    """One batch."""

    pixels: torch.Tensor  # normalised, [crops, 3, side, side]
    target: torch.Tensor  # [crops, OUTPUTS]
    mask: torch.Tensor  # labels of the own data set, bool [crops, labels]
    datasets: list[str]


def draw_weights(rows: list[ImageRow]) -> np.ndarray:
    """Sampling probability of each row."""
    images = Counter((row.dataset, row.label) for row in rows)
    labels = Counter(dataset for dataset, _ in images)
    weights = np.array([SHARES[row.dataset] / labels[row.dataset] / images[row.dataset, row.label] for row in rows])
    return weights / weights.sum()


class CropStream:
    """Batches of ``count`` crops, cut by a thread of its own."""

    def __init__(self, data: Path, rows: list[ImageRow], count: int, seed: int) -> None:
        self.rows, self.count = rows, count
        self.pictures: list[Image.Image] = [load_picture(data, row) for row in rows]
        self.weights = draw_weights(rows)
        self.alike: dict[str, list[int]] = defaultdict(list)
        for number, row in enumerate(rows):
            self.alike[row.label].append(number)
        self.rng = np.random.default_rng(seed)
        self.colours = torch.Generator().manual_seed(seed)

    def draw(self) -> Crops:
        """The next batch."""
        drawn = self.rng.choice(len(self.rows), self.count, p=self.weights)
        boxes = [random_box(self.rng) for _ in drawn]
        rows = [self.rows[i].within(box) for i, box in zip(drawn, boxes, strict=True)]
        cut = [self.cut(i, box, row) for i, box, row in zip(drawn, boxes, rows, strict=True)]
        rows = [row for _, row in cut]
        pixels = jitter_colours(to_unit([crop for crop, _ in cut]), rows, self.colours)
        datasets = [row.dataset for row in rows]
        target = targets(datasets, [row.label for row in rows])
        return Crops(normalise(pixels), target, label_mask(datasets), datasets)

    def cut(self, number: int, box: Box, row: ImageRow) -> tuple[np.ndarray, ImageRow]:
        """A crop, uint8 [side, side, 3], of one picture or of a field that several make; and what it shows."""
        if row.dataset not in TILED_SETS or self.rng.random() >= TILED:
            return random_crop(self.pictures[number], box, row, self.rng), row
        columns, lines = GRIDS[int(self.rng.integers(len(GRIDS)))]
        chosen = self.rng.choice(self.alike[row.label], (lines, columns))
        if row.label in ODD_IN_CROPS and self.rng.random() < WITH_ODD_TILE:
            row = replace(row, label=str(self.rng.choice(ODD_IN_CROPS[row.label])))
            chosen[self.rng.integers(lines), self.rng.integers(columns)] = self.rng.choice(self.alike[row.label])
        tiles = [[random_crop(self.pictures[i], box, row, self.rng) for i in line] for line in chosen]
        return whole_picture(Image.fromarray(np.concatenate([np.concatenate(line, axis=1) for line in tiles]))), row

    def __iter__(self) -> Iterator[Crops]:
        with ThreadPoolExecutor(1) as cutter:
            ahead = deque(cutter.submit(self.draw) for _ in range(AHEAD))
            while True:
                ahead.append(cutter.submit(self.draw))
                yield ahead.popleft().result()
