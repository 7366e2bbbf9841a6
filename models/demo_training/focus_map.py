"""Where the foci of a generated picture are, so that every part of it can be labelled by what is seen there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

MAP_SIDE_PX = 96  # of the longer side
FOCUS_KINDS = ("tumour", "necrosis")
LABELS_BY_FOCI = {
    frozenset[str](): "generated_normal",
    frozenset({"tumour"}): "generated_tumour",
    frozenset({"necrosis"}): "generated_necrosis",
    frozenset({"tumour", "necrosis"}): "generated_tumour_and_necrosis",
}
SEEN_SHARE = 0.01  # of a view that a focus must cover to be called seen in it
Box = tuple[float, float, float, float]  # left, top, right, bottom in shares of the picture's width and height


@dataclass(frozen=True)
class FocusMap:
    """How much of each place of a picture is of each of ``FOCUS_KINDS``: float32 [kinds, height, width], 0 to 1."""

    shares: np.ndarray

    @classmethod
    def of(cls, shares: Mapping[str, np.ndarray]) -> "FocusMap":
        """From a share for every pixel ([height, width]) of any kinds of tissue."""
        height, width = next(iter(shares.values())).shape
        scale = min(1.0, MAP_SIDE_PX / max(width, height))
        size_wh = max(1, round(width * scale)), max(1, round(height * scale))
        planes = [np.asarray(shares.get(kind, np.zeros((height, width))), np.float32) for kind in FOCUS_KINDS]
        return cls(
            np.stack([np.asarray(Image.fromarray(plane).resize(size_wh, Image.Resampling.BOX)) for plane in planes])
        )

    @classmethod
    def read(cls, file: Path) -> "FocusMap":
        with Image.open(file) as image:
            return cls(np.asarray(image, np.float32).transpose(2, 0, 1)[: len(FOCUS_KINDS)] / 255)

    def save(self, file: Path) -> None:
        """As a PNG: red is the first kind, green the second."""
        planes = np.zeros((*self.shares.shape[1:], 3), np.uint8)
        planes[..., : len(FOCUS_KINDS)] = (self.shares * 255).round().transpose(1, 2, 0)
        Image.fromarray(planes).save(file)

    def within(self, box: Box) -> "FocusMap":
        """The map of a part of the picture."""
        height, width = self.shares.shape[1:]
        left, top = min(int(box[0] * width), width - 1), min(int(box[1] * height), height - 1)
        right, bottom = max(left + 1, round(box[2] * width)), max(top + 1, round(box[3] * height))
        return FocusMap(self.shares[:, top:bottom, left:right])

    def label(self) -> str:
        """What a view of the whole picture shows."""
        seen = self.shares.mean((1, 2)) >= SEEN_SHARE
        return LABELS_BY_FOCI[frozenset(kind for kind, there in zip(FOCUS_KINDS, seen, strict=True) if there)]
