"""Stage 1: the convolutional teacher learns the labels of single crops."""

import argparse
import json
from pathlib import Path

import torch
from torch import nn

from demo_training.crop_stream import Crops, CropStream
from demo_training.dataset import read_rows
from demo_training.generated import generated_rows
from demo_training.labels import label_loss
from demo_training.schedule import Average, Clock, learning_rate, make_optimizer, step
from demo_training.scores import balanced_accuracy
from demo_training.teacher import Teacher

BATCH = 64
MIXED = 0.15  # share of batches in which pictures of one data set are blended in pairs
REPORT_EVERY = 200


def blend(crops: Crops, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixup within the data set: pixels and targets blended with those of another crop of the same set."""
    partner = torch.arange(len(crops.datasets))
    for dataset in set(crops.datasets):
        own = torch.tensor([i for i, name in enumerate(crops.datasets) if name == dataset])
        partner[own] = own.roll(1)
    share = torch.rand(len(partner), generator=rng) * 0.5  # of the partner
    pixels = torch.lerp(crops.pixels, crops.pixels[partner], share.view(-1, 1, 1, 1))
    return pixels, torch.lerp(crops.target, crops.target[partner], share[:, None])


def train(model: nn.Module, options: argparse.Namespace) -> None:
    """Train a network (crops -> logits) for the minutes given; writes the averaged weights again and again."""
    torch.manual_seed(options.seed)
    rng = torch.Generator().manual_seed(options.seed)
    watched = read_rows(options.data, "val") + generated_rows(options.generated, "val")
    model.train()
    average = Average(model, 0.998)
    optimizer = make_optimizer(model, options.rate)
    rows = read_rows(options.data, "train") + generated_rows(options.generated, "train")
    stream = CropStream(options.data, rows, BATCH, options.seed)
    clock, losses = Clock(options.minutes), []
    for number, crops in enumerate(stream, 1):
        mixed = float(torch.rand((), generator=rng)) < MIXED
        pixels, target = blend(crops, rng) if mixed else (crops.pixels, crops.target)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(pixels)
        loss = label_loss(logits, target, crops.mask)
        step(optimizer, loss, learning_rate(clock.done, options.rate))
        average.update(model)
        losses.append(float(loss.detach()))
        if number % REPORT_EVERY == 0 or clock.done >= 1:
            torch.save(average.model.state_dict(), options.out)
            crops_seen = 5 if clock.done >= 1 else 1
            scores = balanced_accuracy(average.model, options.data, watched, crops_seen)
            mean = round(sum(losses[-REPORT_EVERY:]) / len(losses[-REPORT_EVERY:]), 4)
            print(
                json.dumps({"crops": number * BATCH, "minutes": round(clock.used, 1), "loss": mean, **scores}),
                flush=True,
            )
        if clock.done >= 1:
            return


def options_of(description: str | None) -> argparse.ArgumentParser:
    """What every network that learns from labels is told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data", type=Path, help="folder that holds train/images.csv and vqa/vqa_rad")
    parser.add_argument("generated", type=Path, help="folder of the generated tissue")
    parser.add_argument("out", type=Path, help="file for the weights")
    parser.add_argument("--minutes", type=float, default=20, help="the learning rate falls over this time")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    return parser


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--start", type=Path, help="weights of an earlier run to go on from")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = Teacher()
    if options.start is not None:
        model.load_state_dict(torch.load(options.start, weights_only=True))
    train(model, options)


if __name__ == "__main__":
    main()
