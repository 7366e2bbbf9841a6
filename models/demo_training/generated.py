"""Pictures of generated tissue, drawn by the examples' own program: a folder of them and the table that labels them."""

import csv
from pathlib import Path

from demo_training.dataset import ImageRow

TABLE = "generated.csv"  # path, label, split


def generated_rows(folder: Path, split: str) -> list[ImageRow]:
    """The rows of one split; paths are absolute."""
    with (folder / TABLE).open(newline="") as table:
        lines = [line for line in csv.DictReader(table) if line["split"] == split]
    return [
        ImageRow(str((folder / line["path"]).resolve()), "generated", line["label"], split, line["path"])
        for line in lines
    ]
