"""Stage 0: fields of generated tissue with and without foci, at many magnifications, and their table.

The tissue is the one that ``examples/`` draws; run with the repository's root on PYTHONPATH. A field is labelled by the
foci in it, however small their share of it.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

from demo_training.generated import TABLE
from examples.tissue import Focus, draw_patch, draw_tissue

FOCI: dict[str, tuple[str, ...]] = {
    "generated_normal": (),
    "generated_tumour": ("tumour",),
    "generated_necrosis": ("necrosis",),
    "generated_tumour_and_necrosis": ("tumour", "necrosis"),
}
PATCHES = {  # labels that fields of a single kind of tissue have
    "generated_normal": ("benign", "stroma", "glass"),
    "generated_tumour": ("tumour",),
    "generated_necrosis": ("necrosis",),
}
COUNTS = {"train": 180, "val": 20}  # of each label
PATCH_SHARE = 0.25
ON_GLASS = 0.25
MICRONS_PER_PIXEL = (0.3, 6.0)
SIDES_PX = (224, 420)
RADII = (0.10, 0.5)  # of a focus, in shares of the field's shorter side
QUALITY = 93


def log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))


def draw_field(label: str, rng: np.random.Generator) -> Image.Image:
    """One field of a label."""
    size_wh = int(rng.integers(*SIDES_PX)), int(rng.integers(*SIDES_PX))
    microns = log_uniform(MICRONS_PER_PIXEL, rng)
    if label in PATCHES and rng.random() < PATCH_SHARE:
        return draw_patch(str(rng.choice(PATCHES[label])), size_wh, microns, rng)
    extent_um = np.array(size_wh) * microns
    foci = []
    for kind in FOCI[label]:
        x, y = rng.uniform(0.2, 0.8, 2) * extent_um
        foci.append(Focus(kind, (float(x), float(y)), log_uniform(RADII, rng) * float(extent_um.min())))
    foci.sort(key=lambda focus: -focus.radius_um)  # the smaller one lies on top
    return draw_tissue(size_wh, microns, rng, foci, on_glass=bool(rng.random() < ON_GLASS))


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
            for number in range(count * len(FOCI)):
                label = list(FOCI)[number % len(FOCI)]
                path = f"{split}_{number:05d}.jpg"
                draw_field(label, rng).save(options.out / path, quality=QUALITY)
                table.writerow([path, label, split])


if __name__ == "__main__":
    main()
