"""Stage 0: fields of generated tissue with and without foci, at many magnifications, and their table.

The tissue is the one that ``examples/`` draws; run with the repository's root on PYTHONPATH. Beside every field lies a
small map of its foci, so that any part of it can be labelled by what is seen there.
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from demo_training.focus_map import LABELS_BY_FOCI, FocusMap
from demo_training.generated import TABLE, map_file
from examples.tissue import Focus, draw_mapped_tissue, draw_patch

FOCI = {label: kinds for kinds, label in LABELS_BY_FOCI.items()}
PATCHES = {  # labels that fields of a single kind of tissue have
    "generated_normal": ("benign", "stroma", "glass"),
    "generated_tumour": ("tumour",),
    "generated_necrosis": ("necrosis",),
}
ORDER = (*FOCI, "generated_normal", "generated_normal")  # drawn more often: most of a slide is healthy
COUNTS = {"train": 300, "val": 20}  # of each in ORDER
PATCH_SHARE = 0.3
HARD_SHARE = 0.4  # of fields without foci: a scar, which is pink and has no glands, but is no necrosis
TORN_SHARE = 0.6  # of fields without glass around: they are from the middle of a piece, with its fissures
PIECES_UM = (600.0, 4000.0)  # lengths of such pieces
QUALITY = 93


@dataclass(frozen=True)
class Framing:
    """How a field is cut from its tissue: sides, microns per pixel, and radii of foci in shares of the shorter side."""

    share: float
    width_px: tuple[int, int]
    height: tuple[float, float]  # in shares of the width
    microns_per_pixel: tuple[float, float]
    radii: tuple[float, float]
    on_glass: float


FRAMINGS = (
    Framing(0.4, (600, 680), (0.64, 0.7), (0.35, 0.8), (0.25, 0.9), 0.0),  # what a search zooms in on
    Framing(0.4, (420, 760), (0.6, 0.9), (2.0, 9.0), (0.08, 0.35), 1.0),  # the overview of a slide
    Framing(0.2, (224, 500), (0.6, 1.6), (0.3, 6.0), (0.1, 0.5), 0.3),  # a picture of any kind
)


def log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))


def draw_field(label: str, rng: np.random.Generator) -> tuple[Image.Image, FocusMap]:
    """One field of a label, with the map of its foci."""
    while True:
        picture, foci = _draw_once(label, rng)
        if foci.label() == label:  # a fissure or the edge of the tissue can swallow a focus
            return picture, foci


def _draw_once(label: str, rng: np.random.Generator) -> tuple[Image.Image, FocusMap]:
    framing = FRAMINGS[rng.choice(len(FRAMINGS), p=[each.share for each in FRAMINGS])]
    width = int(rng.integers(*framing.width_px))
    size_wh = width, int(width * rng.uniform(*framing.height))
    microns = log_uniform(framing.microns_per_pixel, rng)
    if framing.on_glass < 1 and label in PATCHES and rng.random() < PATCH_SHARE:
        kind = str(rng.choice(PATCHES[label]))
        return draw_patch(kind, size_wh, microns, rng), FocusMap.of({kind: np.ones(size_wh[::-1], np.float32)})
    kinds = sorted(FOCI[label]) or (("stroma",) if rng.random() < HARD_SHARE else ())
    extent_um = np.array(size_wh) * microns
    foci = []
    for kind in kinds:
        x, y = rng.uniform(0.2, 0.8, 2) * extent_um
        foci.append(Focus(kind, (float(x), float(y)), log_uniform(framing.radii, rng) * float(extent_um.min())))
    foci.sort(key=lambda focus: -focus.radius_um)  # the smaller one lies on top
    on_glass = bool(rng.random() < framing.on_glass)
    piece_um = log_uniform(PIECES_UM, rng) if not on_glass and rng.random() < TORN_SHARE else None
    picture, shares = draw_mapped_tissue(size_wh, microns, rng, foci, on_glass=on_glass, piece_um=piece_um)
    return picture, FocusMap.of(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the pictures and their table")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(options.seed)
    with (options.out / TABLE).open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(["path", "label", "split"])
        for split, count in COUNTS.items():
            for number in range(count * len(ORDER)):
                label = ORDER[number % len(ORDER)]
                path = f"{split}_{number:05d}.jpg"
                picture, foci = draw_field(label, rng)
                picture.save(options.out / path, quality=QUALITY)
                foci.save(map_file(options.out / path))
                table.writerow([path, label, split])


if __name__ == "__main__":
    main()
