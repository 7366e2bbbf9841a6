"""Necrosis in osteosarcoma, cross-validated by picture: the data set is too small to be measured on one split alone.

Each fold's pictures, drawn evenly from the three labels, are kept from an encoder that learns everything else from
nothing; then its heads tell necrosis from viable tumour and from no tumour on them, in the whole picture and in its
quarters. The encoder learns for minutes, not as long as the one that is shipped, and no language model is asked.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import torch

from demo_training.crop_stream import CropStream
from demo_training.dataset import ImageRow, load_picture, read_rows
from demo_training.evaluate import parts
from demo_training.generated import generated_rows
from demo_training.intervals import Verdict, score
from demo_training.schedule import timed_options
from demo_training.scores import guess
from demo_training.train_encoder import BATCH, learn

DATASET, NECROSIS = "osteosarcoma", "necrotic_tumour"


def folds(rows: list[ImageRow], count: int) -> list[list[ImageRow]]:
    """The pictures of each label dealt out in turn."""
    by_label: dict[str, list[ImageRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.path):
        by_label[row.label].append(row)
    dealt: list[list[ImageRow]] = [[] for _ in range(count)]
    for number, row in enumerate(row for own in by_label.values() for row in own):
        dealt[number % count].append(row)
    return dealt


def held_out(options: argparse.Namespace, every: list[ImageRow], fold: list[ImageRow]) -> list[Verdict]:
    """An encoder that never saw the fold, asked about it; verdicts are on necrosis or none."""
    torch.manual_seed(options.seed)
    kept = {row.path for row in fold}
    learnt_from = [row for row in every if row.path not in kept]
    *_, (student, done) = learn(CropStream(options.data, learnt_from, BATCH, options.seed), options.minutes)
    print(f"learnt from {done.crops} crops", flush=True)
    verdicts = []
    for row in fold:
        necrosis = row.label == NECROSIS
        pictures = parts(load_picture(options.data, row), row)
        for told in guess(student, pictures, [DATASET] * len(pictures)):
            verdicts.append(Verdict(str(necrosis), (told == NECROSIS) == necrosis, row.path))
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds train/images.csv and vqa/vqa_rad")
    parser.add_argument("generated", type=Path, help="folder of the generated tissue")
    parser.add_argument("--folds", type=int, default=4)
    options = timed_options(parser, minutes=4, seed=97)
    train = read_rows(options.data, "train") + generated_rows(options.generated, "train")
    own = [row for row in train + read_rows(options.data, "val") if row.dataset == DATASET]
    every = [row for row in train if row.dataset != DATASET] + own
    verdicts: list[Verdict] = []
    for fold in folds(own, options.folds):
        verdicts += held_out(options, every, fold)
        print(f"{score(verdicts)} of {len({v.group for v in verdicts})} pictures", flush=True)


if __name__ == "__main__":
    main()
