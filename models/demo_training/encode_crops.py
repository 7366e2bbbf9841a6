"""Between the stages: the frozen encoder's features of a balanced choice of training pictures, in one file.

Most pictures give nine crops (low, four middle, and one high crop of each of zoom-in selection's four ranges), which
is cheap to learn from; some give all twenty-nine, to learn from exactly what the model will see.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from demo_training.augment import FLIPS, jitter_colours, to_unit
from demo_training.dataset import BLANK, ImageRow, blank_rows, load_picture, read_rows
from demo_training.pretrain_encoder import BLANKS, CropClassifier
from dragonfly_med.crops import cut_crops, draw_canvases, normalize
from dragonfly_med.views import MIDDLE_CROPS, plan_views

SIDE_PX = 112
HIGH_PER_RANGE = 6
REPEATS = 8  # at most so many variants of one picture, where a label has few
FIRST_HIGH = 1 + MIDDLE_CROPS


def choose_rows(
    rows: list[ImageRow], per_label: int, rng: np.random.Generator, repeats: int = REPEATS
) -> list[ImageRow]:
    """``per_label`` rows of each label in random order; none comes more than ``repeats`` times."""
    by_label: dict[str, list[ImageRow]] = defaultdict(list)
    for row in rows:
        by_label[row.label].append(row)
    chosen = []
    for group in by_label.values():
        order = [group[i] for i in rng.permutation(len(group))] * repeats
        chosen += order[:per_label]
    return [chosen[i] for i in rng.permutation(len(chosen))]


def vary_picture(picture: Image.Image, row: ImageRow, rng: np.random.Generator) -> Image.Image:
    """The picture cropped, turned over and recoloured at random; in a third of the draws as it is."""
    if rng.random() < 1 / 3:
        return picture
    part = rng.uniform(0.75, 1.0, 2) * picture.size
    left, top = rng.uniform(0, 1, 2) * (np.array(picture.size) - part)
    picture = picture.crop((round(left), round(top), round(left + part[0]), round(top + part[1])))
    for flip in FLIPS if row.microscopic else FLIPS[:1]:
        if rng.random() < 0.5:
            picture = picture.transpose(flip)
    if row.label == BLANK:
        return picture
    seed = torch.Generator().manual_seed(int(rng.integers(2**31)))
    recoloured = jitter_colours(to_unit([np.asarray(picture)]), torch.tensor([row.microscopic]), seed)
    return Image.fromarray((recoloured[0].permute(1, 2, 0) * 255).round().byte().numpy())


def all_crops(picture: Image.Image) -> np.ndarray:
    """The model's twenty-nine crops: float32 [29, 3, side, side]."""
    plan = plan_views(picture.size, SIDE_PX, "dragonfly-v1")
    return normalize(cut_crops(draw_canvases(picture, plan), plan))


def few_crops(crops: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Low, middle, and one high crop of each range: [9, 3, side, side]."""
    high = FIRST_HIGH + HIGH_PER_RANGE * np.arange(MIDDLE_CROPS) + rng.integers(HIGH_PER_RANGE, size=MIDDLE_CROPS)
    return np.concatenate([crops[:FIRST_HIGH], crops[high]])


@torch.inference_mode()
def encode(
    model: CropClassifier, data: Path, rows: list[ImageRow], few: bool, rng: np.random.Generator
) -> torch.Tensor:
    """float16 features [pictures, 9 or 29, tokens, width]."""
    encoded = []
    for row in rows:
        crops = all_crops(vary_picture(load_picture(data, row), row, rng))
        if few:
            crops = few_crops(crops, rng)
        encoded.append(model.features(torch.from_numpy(crops)).half())
    return torch.stack(encoded)


def load_classifier(file: Path) -> CropClassifier:
    """The encoder of stage 1, for inference."""
    saved = torch.load(file, weights_only=True)
    model = CropClassifier(len(saved["labels"])).eval()
    model.load_state_dict(saved["model"])
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds train/images.csv")
    parser.add_argument("encoder", type=Path, help="encoder.pt of stage 1")
    parser.add_argument("out", type=Path, help="file for the features")
    parser.add_argument("--few", type=int, default=120, help="pictures of each label with nine crops")
    parser.add_argument("--all", type=int, default=15, help="pictures of each label with all crops")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(options.seed)
    rows = read_rows(options.data, "train") + blank_rows(BLANKS["train"], "train")
    model = load_classifier(options.encoder)
    saved: dict[str, object] = {}
    for name, per_label in (("few", options.few), ("all", options.all)):
        chosen = choose_rows(rows, per_label, rng)
        saved[name] = encode(model, options.data, chosen, name == "few", rng)
        saved[f"{name}_labels"] = [row.label for row in chosen]
        print(name, len(chosen), flush=True)
    torch.save(saved, options.out)


if __name__ == "__main__":
    main()
