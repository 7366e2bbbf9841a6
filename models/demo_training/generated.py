"""Pictures of generated tissue by the examples' own program: a folder of them, their table, and maps of their foci."""

import csv
from pathlib import Path

from demo_training.dataset import ImageRow
from demo_training.focus_map import FocusMap

TABLE = "generated.csv"  # path, label, split


def map_file(picture: Path) -> Path:
    """Where the map of a picture lies."""
    return picture.with_suffix(".png")


def generated_rows(folder: Path, split: str) -> list[ImageRow]:
    """The rows of one split; paths are absolute."""
    with (folder / TABLE).open(newline="") as table:
        lines = [line for line in csv.DictReader(table) if line["split"] == split]
    rows = []
    for line in lines:
        picture = (folder / line["path"]).resolve()
        foci = FocusMap.read(map_file(picture))
        rows.append(ImageRow(str(picture), "generated", line["label"], split, line["path"], foci=foci))
    return rows
