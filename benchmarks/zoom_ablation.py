"""What each way of choosing crops is worth on fields whose evidence is one small tile, as accuracy against tokens.

    python benchmarks/zoom_ablation.py DATA [--fields 160] [--model FOLDER]

A field is a mosaic of tiles from validation pictures of one benign tissue; half of the fields hold one tile of a
tumour. The network answers "Is there a tumour?" from the low crop, from the low and middle crops, from all crops, from
those that its zoom-in selection keeps, and from as many high crops kept at random: the comparison of Dragonfly's paper
(arXiv:2406.00977). The answer is the likelier of yes and no; balanced accuracy and the area under the curve of P(yes)
are printed with the number of image tokens. DATA is the folder that the demonstration model was trained from.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # measure this checkout, whatever is installed
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from demo_training.dataset import read_rows
from demo_training.facts import MALIGNANT
from demo_training.variants import Mosaics
from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_med import DragonflyForCausalLM, DragonflyProcessor
from dragonfly_med.modeling import rank_and_keep
from dragonfly_med.views import MIDDLE_CROPS

QUESTION = "Is there a tumour?"
TILES = (6, 4)  # columns and rows: one tile is one twenty-fourth of the field
FIRST_HIGH, HIGH, KEPT = 1 + MIDDLE_CROPS, 24, 12

Choice = Callable[[torch.Tensor], list[int]]  # projected crops [29, tokens, width] -> numbers of those that are read


def ways(rng: np.random.Generator) -> dict[str, Choice]:
    before = list(range(FIRST_HIGH))
    return {
        "low": lambda crops: [0],
        "low + middle": lambda crops: before,
        "low + middle + 12 high at random": lambda crops: (
            before + [FIRST_HIGH + int(i) for i in sorted(rng.permutation(HIGH)[:KEPT])]
        ),
        "low + middle + 12 high selected": lambda crops: (
            before + [FIRST_HIGH + i for i in rank_and_keep(crops[None])[0].tolist()]
        ),
        "low + middle + 24 high": lambda crops: list(range(FIRST_HIGH + HIGH)),
    }


class Reader:
    """The network, one question, and the ids of yes and no."""

    def __init__(self, folder: Path) -> None:
        self.processor = DragonflyProcessor.from_pretrained(folder)
        self.model = DragonflyForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.question = torch.tensor([self.processor.text_ids(self.processor.prompt(QUESTION))])
        self.yes, self.no = (self.processor.tokenizer.convert_tokens_to_ids(word) for word in ("Yes", "No"))

    def crops(self, picture: object) -> torch.Tensor:
        """Projected features [29, tokens, width]."""
        return self.model.encode_crops(self.processor.pixels(picture)[None])[0]  # type: ignore[arg-type]

    def p_yes(self, crops: torch.Tensor) -> float:
        """P(yes) against no from the crops given [crops, tokens, width], each followed by a newline.

        The question stands where it stands behind a whole image, as in a glance, since the network has read none
        before that place.
        """
        embed = self.model.get_input_embeddings()
        newline = embed(torch.tensor(self.processor.image_newline_token_id)).expand(len(crops), 1, -1)
        image = torch.cat([crops, newline], dim=1).flatten(0, 1)[None]
        behind = max(image.shape[1], len(self.processor.image_block()))
        positions = torch.cat([torch.arange(image.shape[1]), behind + torch.arange(self.question.shape[1])])[None]
        embeds = torch.cat([image, embed(self.question)], dim=1)
        logits = self.model.language_model(inputs_embeds=embeds, position_ids=positions, logits_to_keep=1).logits
        return float(logits[0, -1, [self.yes, self.no]].softmax(0)[0])


def balanced_accuracy(scores: np.ndarray, odd: np.ndarray) -> float:
    return float(((scores[odd] > 0.5).mean() + (scores[~odd] <= 0.5).mean()) / 2)


def area_under_curve(scores: np.ndarray, odd: np.ndarray) -> float:
    """How often a field with an odd tile gets the higher P(yes)."""
    more, less = scores[odd][:, None], scores[~odd][None]
    return float((more > less).mean() + 0.5 * (more == less).mean())


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds train/images.csv")
    parser.add_argument("--fields", type=int, default=160)
    parser.add_argument(
        "--model", type=Path, default=None, help="the checkpoint folder; the built-in model's by default"
    )
    parser.add_argument("--seed", type=int, default=6)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    mosaics = Mosaics(options.data, read_rows(options.data, "val"), rng)
    reader, choices = Reader(options.model or find_checkpoint("demo").folder), ways(rng)
    odd: list[bool] = []
    tokens: dict[str, int] = {}
    scores: dict[str, list[float]] = {name: [] for name in choices}
    while len(odd) < options.fields:
        field, row = mosaics.draw(TILES, odd=len(odd) % 2 == 0)
        odd.append(row.label in MALIGNANT)
        crops = reader.crops(field)
        for name, choice in choices.items():
            kept = crops[choice(crops)]
            tokens[name] = kept.shape[0] * (kept.shape[1] + 1)
            scores[name].append(reader.p_yes(kept))
    print(f"| crops read | image tokens | balanced accuracy | area under the curve |\n|{'---|' * 4}")
    for name, found in scores.items():
        values, truth = np.array(found), np.array(odd)
        figures = f"{balanced_accuracy(values, truth):.2f} | {area_under_curve(values, truth):.2f}"
        print(f"| {name} | {tokens[name]} | {figures} |")


if __name__ == "__main__":
    main()
