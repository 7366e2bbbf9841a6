"""images.csv -> rows, rows -> pictures in memory, and pictures that show nothing.

The table has the columns path, dataset, label, group, split, modality, organ and extra; ``path`` is relative to
the data folder. The splits are by patient or tissue group and are taken as they stand. A few drawn pictures without
any medical content are added under the label ``blank``, so that the model learns to say that it sees nothing.
"""

import csv
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

BLANK = "blank"
HISTOLOGY_DATASETS = frozenset({"lc25000", "oral", "osteosarcoma", "bccd"})
BLANK_SIDE_PX = 128


@dataclass(frozen=True)
class ImageRow:
    """One line of images.csv."""

    path: str
    dataset: str
    label: str
    split: str
    modality: str
    organ: str
    counts: dict[str, int] = field(default_factory=dict)  # cells counted in a blood smear

    @property
    def microscopic(self) -> bool:
        """True where up, down, left and right mean nothing and colour comes from a stain."""
        return self.dataset in HISTOLOGY_DATASETS


def read_rows(data: Path, split: str) -> list[ImageRow]:
    """The rows of one split ("train" or "val") in the order of the table."""
    with (data / "train" / "images.csv").open(newline="") as table:
        return [_row(line) for line in csv.DictReader(table) if line["split"] == split]


def _row(line: dict[str, str]) -> ImageRow:
    counts = json.loads(line["extra"]) if line["dataset"] == "bccd" and line["extra"] else {}
    return ImageRow(
        line["path"], line["dataset"], line["label"], line["split"], line["modality"], line["organ"], counts
    )


def blank_rows(count: int, split: str) -> list[ImageRow]:
    """Rows for ``count`` drawn pictures; the path is the seed of the drawing."""
    first = {"train": 0, "val": 1_000_000}[split]
    return [ImageRow(str(first + i), "drawn", BLANK, split, "none", "none") for i in range(count)]


def load_picture(data: Path, row: ImageRow) -> Image.Image:
    """The picture of a row as 8-bit RGB, at its own size."""
    if row.label == BLANK:
        return draw_blank(int(row.path))
    with Image.open(data / row.path) as image:
        return image.convert("RGB")


def draw_blank(seed: int) -> Image.Image:
    """A flat colour, noise, a gradient or a few coloured shapes: nothing that a patient could have."""
    rng = np.random.default_rng(seed)
    side = BLANK_SIDE_PX
    grey = bool(rng.random() < 0.5)
    kind = int(rng.integers(4))
    if kind == 0:
        pixels = np.full((side, side, 3), _colour(rng, grey), dtype=np.float64)
    elif kind == 1:
        pixels = rng.normal(rng.uniform(60, 200), rng.uniform(10, 90), (side, side, 1 if grey else 3))
        pixels = np.broadcast_to(pixels, (side, side, 3))
    else:
        ramp = np.linspace(0, 1, side)[:, None, None]
        pixels = np.broadcast_to(ramp * _colour(rng, grey) + (1 - ramp) * _colour(rng, grey), (side, side, 3))
        pixels = np.rot90(pixels, int(rng.integers(4)))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if kind == 3:
        _draw_shapes(image, rng, grey)
    return image.filter(ImageFilter.GaussianBlur(float(rng.choice([0, 0, 1, 3]))))


def _colour(rng: np.random.Generator, grey: bool) -> np.ndarray:
    extreme = rng.choice([0.0, 128.0, 255.0]) if rng.random() < 0.3 else None
    if extreme is not None:
        return np.full(3, extreme)
    return np.full(3, rng.uniform(0, 255)) if grey else rng.uniform(0, 255, 3)


def _draw_shapes(image: Image.Image, rng: np.random.Generator, grey: bool) -> None:
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 7))):
        x0, y0 = rng.uniform(0, 0.8 * BLANK_SIDE_PX, 2)
        x1, y1 = x0 + rng.uniform(4, 60), y0 + rng.uniform(4, 60)
        red, green, blue = (int(v) for v in _colour(rng, grey))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x0, y0, x1, y1), fill=(red, green, blue))


def label_names(rows: list[ImageRow]) -> list[str]:
    """All labels, sorted: the order of the classifier's outputs."""
    return sorted({row.label for row in rows})


def draw_weights(rows: list[ImageRow]) -> np.ndarray:
    """Sampling probability of each row: a label with n images is drawn in proportion to the root of n."""
    sizes = Counter(row.label for row in rows)
    weights = np.array([sizes[row.label] ** -0.5 for row in rows])
    return weights / weights.sum()
