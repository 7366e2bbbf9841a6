"""The tables -> rows, rows -> pictures in memory, and pictures that show nothing.

``DATA`` holds train/images.csv with the columns path, dataset, label, group, split and extra, where ``path`` is
relative to ``DATA``; the splits are by patient or tissue group and are taken as they stand. VQA-RAD's pictures are
split here, by picture. A few drawn pictures without medical content are added under the label ``blank``.
"""

import csv
import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from demo_training.blank_pictures import draw_blank
from demo_training.focus_map import Box, FocusMap

BLANK = "blank"
DRAWN = {"train": 500, "val": 20}
MICROSCOPIC = frozenset({"lc25000", "oral", "osteosarcoma", "bccd", "generated"})
VQA_FOLDER = Path("vqa/vqa_rad")
VQA_LABELS = {"CHEST": "vqa_chest", "ABD": "vqa_abdomen", "HEAD": "vqa_head"}
VQA_HELD_OUT = 6  # one picture in six is never trained on
LARGEST_SIDE_PX = 672  # the high view's longer side; more pixels than that are never looked at


@dataclass(frozen=True)
class ImageRow:
    """One picture with its label."""

    path: str
    dataset: str
    label: str
    split: str
    group: str
    counts: dict[str, int] = field(default_factory=dict)  # cells counted in a blood smear
    foci: FocusMap | None = None  # of a generated picture

    @property
    def microscopic(self) -> bool:
        """True where up, down, left and right mean nothing and colour comes from a stain."""
        return self.dataset in MICROSCOPIC

    def within(self, box: Box) -> "ImageRow":
        """The row of a part of the picture: labelled by what is seen there if that is known, else like the whole."""
        if self.foci is None:
            return self
        foci = self.foci.within(box)
        return replace(self, label=foci.label(), foci=foci)


def read_rows(data: Path, split: str) -> list[ImageRow]:
    """The labelled pictures of one split ("train" or "val"): images.csv, VQA-RAD and drawn ones, in a fixed order."""
    with (data / "train" / "images.csv").open(newline="") as table:
        rows = [_row(line) for line in csv.DictReader(table) if line["split"] == split]
    return rows + vqa_rows(data, split) + blank_rows(split)


def _row(line: dict[str, str]) -> ImageRow:
    counts = json.loads(line["extra"]) if line["dataset"] == "bccd" and line["extra"] else {}
    return ImageRow(line["path"], line["dataset"], line["label"], line["split"], line["group"], counts)


def vqa_entries(data: Path) -> list[dict[str, str]]:
    """VQA-RAD's questions as its authors wrote them."""
    entries: list[dict[str, str]] = json.loads((data / VQA_FOLDER / "qa.json").read_text(encoding="utf-8"))
    return entries


def vqa_split(image_name: str) -> str:
    """The split of a VQA-RAD picture, from its name alone, so that no picture is on both sides."""
    return "val" if int(hashlib.sha256(image_name.encode()).hexdigest(), 16) % VQA_HELD_OUT == 0 else "train"


def vqa_rows(data: Path, split: str) -> list[ImageRow]:
    """VQA-RAD's pictures, labelled by the region that their questions name."""
    regions = {entry["image_name"]: VQA_LABELS[entry["image_organ"]] for entry in vqa_entries(data)}
    return [
        ImageRow(str(VQA_FOLDER / "images" / name), "vqa_rad", label, split, name)
        for name, label in sorted(regions.items())
        if vqa_split(name) == split
    ]


def blank_rows(split: str) -> list[ImageRow]:
    """Rows for drawn pictures; the path is the seed of the drawing."""
    first = {"train": 0, "val": 1_000_000}[split]
    return [ImageRow(str(first + i), "drawn", BLANK, split, str(first + i)) for i in range(DRAWN[split])]


def load_picture(data: Path, row: ImageRow) -> Image.Image:
    """The picture of a row as 8-bit RGB, at its own size up to ``LARGEST_SIDE_PX``."""
    if row.label == BLANK:
        return draw_blank(int(row.path))
    with Image.open(data / row.path) as image:
        picture = image.convert("RGB")
    if max(picture.size) > LARGEST_SIDE_PX:
        picture.thumbnail((LARGEST_SIDE_PX, LARGEST_SIDE_PX), Image.Resampling.BICUBIC)
    return picture
