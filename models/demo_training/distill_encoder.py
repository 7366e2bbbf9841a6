"""Stage 2: the encoder learns the teacher's feature of every patch, its opinion of every crop, and the labels.

Forty-nine targets a crop teach a transformer far sooner than one label does.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from demo_training.crop_stream import Crops, CropStream
from demo_training.dataset import read_rows
from demo_training.encoder import Reading, Student, whiten_patches
from demo_training.generated import generated_rows
from demo_training.labels import COLUMNS, KIND_WEIGHT, label_loss, log_probabilities
from demo_training.schedule import Average, Clock, learning_rate, make_optimizer, step
from demo_training.scores import balanced_accuracy
from demo_training.teacher import Teacher

BATCH = 64
SAMPLE_BATCHES = 24  # for the spectrum of patches and the scale of the teacher's features
REPORT_EVERY = 200
DENSE_WEIGHT, OPINION_WEIGHT, LABEL_WEIGHT = 2.0, 1.0, 0.7
LABELS_ONLY = frozenset({"generated", "mednist"})  # here the labels are easier to learn than the teacher's opinion


class Targets:
    """The teacher, frozen, with its features brought to zero mean and unit deviation."""

    def __init__(self, weights: Path, sample: list[Crops]) -> None:
        self.teacher = Teacher().eval()
        self.teacher.load_state_dict(torch.load(weights, weights_only=True))
        features = torch.cat([self._features(crops.pixels)[:, ::7] for crops in sample]).flatten(0, 1)
        self.mean, self.deviation = features.mean(0), features.std(0) + 0.05 * features.std()

    @torch.no_grad()
    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.teacher.features(pixels).float()

    @torch.no_grad()
    def of(self, crops: Crops) -> tuple[torch.Tensor, torch.Tensor]:
        """Standardised patch features [crops, patches, width] and log-probabilities [crops, labels + kinds]."""
        features = self._features(crops.pixels)
        opinion = log_probabilities(self.teacher.head(features.mean(1)), crops.mask)
        return (features - self.mean) / self.deviation, opinion


def opinion_loss(logits: torch.Tensor, opinion: torch.Tensor, crops: Crops, known: torch.Tensor) -> torch.Tensor:
    """Divergence from the teacher's opinion, where it is ``known`` to be worth having."""
    parts = opinion.exp() * (opinion - log_probabilities(logits, crops.mask))
    each = parts[:, : len(COLUMNS)].sum(1) + KIND_WEIGHT * parts[:, len(COLUMNS) :].sum(1)
    return (each * known).mean()


def mean(losses: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(losses).mean()


def distillation_loss(reading: Reading, crops: Crops, targets: Targets) -> dict[str, torch.Tensor]:
    """The three parts of the loss, weighted."""
    features, opinion = targets.of(crops)
    known = torch.tensor([float(name not in LABELS_ONLY) for name in crops.datasets])
    both = (reading.logits, reading.mean_logits)
    return {
        "dense": DENSE_WEIGHT * nn.functional.smooth_l1_loss(reading.patches.float(), features),
        "opinion": OPINION_WEIGHT * mean([opinion_loss(logits, opinion, crops, known) for logits in both]),
        "label": LABEL_WEIGHT * mean([label_loss(logits, crops.target, crops.mask) for logits in both]),
    }


def train(options: argparse.Namespace) -> None:
    """Train for the minutes given; writes encoder.pt, the averaged weights, again and again."""
    torch.manual_seed(options.seed)
    rows = read_rows(options.data, "train") + generated_rows(options.generated, "train")
    watched = read_rows(options.data, "val") + generated_rows(options.generated, "val")
    batches: Iterator[Crops] = iter(CropStream(options.data, rows, BATCH, options.seed))
    sample = [next(batches) for _ in range(SAMPLE_BATCHES)]
    targets = Targets(options.teacher, sample)
    model = Student().train()
    whiten_patches(model, torch.cat([crops.pixels for crops in sample]))
    average = Average(model, 0.998)
    optimizer = make_optimizer(model, options.rate)
    clock, parts = Clock(options.minutes), []
    for number, crops in enumerate(batches, 1):
        with torch.autocast("cpu", torch.bfloat16):
            reading = model.read(crops.pixels)
        losses = distillation_loss(reading, crops, targets)
        step(optimizer, torch.stack(list(losses.values())).sum(), learning_rate(clock.done, options.rate))
        average.update(model)
        parts.append(torch.stack(list(losses.values())).detach())
        if number % REPORT_EVERY == 0 or clock.done >= 1:
            torch.save(average.model.state_dict(), options.out)
            scores = balanced_accuracy(average.model, options.data, watched, 5 if clock.done >= 1 else 1)
            means = torch.stack(parts[-REPORT_EVERY:]).mean(0).tolist()
            entry = {name: round(value, 4) for name, value in zip(losses, means, strict=True)}
            print(json.dumps({"step": number, "minutes": round(clock.used, 1), **entry, **scores}), flush=True)
        if clock.done >= 1:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds train/images.csv and vqa/vqa_rad")
    parser.add_argument("generated", type=Path, help="folder of the generated tissue")
    parser.add_argument("teacher", type=Path, help="weights of stage 1")
    parser.add_argument("out", type=Path, help="file for the weights")
    parser.add_argument("--minutes", type=float, default=22, help="the learning rate falls over this time")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(options)


if __name__ == "__main__":
    main()
