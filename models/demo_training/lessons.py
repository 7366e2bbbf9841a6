"""What both stages of the language model learn from: pictures' features, and the questions about each."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from demo_training.facts import VQA
from dragonfly_med.training import Exchange

OTHER_PICTURE = 0.85  # share of the times that a picture of VQA-RAD is asked about


@dataclass(frozen=True)
class Pictures:
    """Pictures, and what is asked about each."""

    features: torch.Tensor  # float16 [pictures, crops, tokens, width], in a mapped file
    exchanges: list[list[Exchange]]
    alike: dict[int, list[int]]  # picture of VQA-RAD -> those of its region

    def shown(self, picture: int, rng: np.random.Generator) -> int:
        """The picture to show with the questions about one: itself, or now and then another like it.

        VQA-RAD has few pictures with ten questions each. A network that always sees the right one learns its answers
        by heart; from another it learns what is usual for such a question.
        """
        if picture not in self.alike or rng.random() >= OTHER_PICTURE:
            return picture
        return int(rng.choice(self.alike[picture]))


def read_pictures(features: Path, rows: Path) -> Pictures:
    """From the file of stage 3 and the folder of stage 2."""
    cache = torch.load(features, weights_only=True, mmap=True)
    images: list[str] = cache["images"]
    exchanges: dict[str, list[Exchange]] = defaultdict(list)
    regions: dict[str, str] = {}
    for row in _lines(rows):
        exchanges[row["image"]].append(Exchange(row["question"], row["answer"]))
        if row["label"] in VQA:
            regions[row["image"]] = row["label"]
    of_region: dict[str, list[int]] = defaultdict(list)
    for number, image in enumerate(images):
        if image in regions:
            of_region[regions[image]].append(number)
    alike = {number: own for own in of_region.values() for number in own}
    return Pictures(cache["features"], [exchanges[image] for image in images], alike)


def _lines(rows: Path) -> Iterator[dict[str, Any]]:
    with (rows / "rows.jsonl").open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
