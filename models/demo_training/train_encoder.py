"""Stage 1: the vision encoder learns the labels of single crops, from nothing or on from an earlier run.

For most of the run it sees half of each crop's patches, drawn anew each time: a step takes half as long, and a picture
is never seen twice alike.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch

from demo_training.crop_stream import Crops, CropStream
from demo_training.dataset import read_rows
from demo_training.encoder import PATCHES, Student, whiten_patches
from demo_training.generated import generated_rows
from demo_training.labels import label_loss
from demo_training.schedule import Average, Clock, make_optimizers, step
from demo_training.scores import balanced_accuracy

BATCH = 128
SAMPLE_BATCHES = 12  # for the spectrum of patches
SOME_PATCHES = 24
WITH_SOME_PATCHES = 0.85  # share of the run
MIXED = 0.15  # share of batches in which pictures of one data set are blended in pairs
REPORT_EVERY = 800


def blend(crops: Crops) -> Crops:
    """Mixup within the data set: pixels and targets blended with those of another crop of the same set."""
    partner = torch.arange(len(crops.datasets))
    for dataset in set(crops.datasets):
        own = torch.tensor([i for i, name in enumerate(crops.datasets) if name == dataset])
        partner[own] = own.roll(1)
    share = torch.rand(len(partner)) * 0.5  # of the partner
    pixels = torch.lerp(crops.pixels, crops.pixels[partner], share.view(-1, 1, 1, 1))
    return Crops(pixels, torch.lerp(crops.target, crops.target[partner], share[:, None]), crops.mask, crops.datasets)


def crop_loss(model: Student, crops: Crops, patches: int) -> torch.Tensor:
    """Of both readings."""
    with torch.autocast("cpu", torch.bfloat16):
        reading = model.read(crops.pixels, patches)
    readings = reading.logits, reading.mean_logits
    return torch.stack([label_loss(logits, crops.target, crops.mask) for logits in readings]).mean()


def begun_student(batches: Iterator[Crops], start: Path | None) -> Student:
    """An encoder as an earlier run left it, or one that knows nothing but the spectrum of patches."""
    student = Student()
    if start is None:
        whiten_patches(student, torch.cat([next(batches).pixels for _ in range(SAMPLE_BATCHES)]))
    else:
        student.load_state_dict(torch.load(start, weights_only=True))
    return student.train()


def train(options: argparse.Namespace) -> None:
    """Train for the minutes given; writes the averaged weights again and again."""
    torch.manual_seed(options.seed)
    rows = read_rows(options.data, "train") + generated_rows(options.generated, "train")
    watched = read_rows(options.data, "val") + generated_rows(options.generated, "val")
    batches = iter(CropStream(options.data, rows, BATCH, options.seed))
    model = begun_student(batches, options.start)
    average = Average(model, 0.998)
    optimizers = make_optimizers(model, model.layers, options.rate)
    clock, losses = Clock(options.minutes), []
    for number, crops in enumerate(batches, 1):
        patches = SOME_PATCHES if clock.done < WITH_SOME_PATCHES else PATCHES
        loss = crop_loss(model, blend(crops) if float(torch.rand(())) < MIXED else crops, patches)
        step(optimizers, loss, clock.done)
        average.update(model)
        losses.append(float(loss.detach()))
        over = clock.done >= 1
        if number % REPORT_EVERY == 0 or over:
            torch.save(average.model.state_dict(), options.out)
            scores = balanced_accuracy(average.model, options.data, watched, 5 if over else 1)
            mean = round(sum(losses[-REPORT_EVERY:]) / len(losses[-REPORT_EVERY:]), 4)
            entry = {"crops": number * BATCH, "minutes": round(clock.used, 1), "loss": mean, **scores}
            print(json.dumps(entry), flush=True)
        if over:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds train/images.csv and vqa/vqa_rad")
    parser.add_argument("generated", type=Path, help="folder of the generated tissue")
    parser.add_argument("out", type=Path, help="file for the weights")
    parser.add_argument("--start", type=Path, help="weights of an earlier run to go on from")
    parser.add_argument("--minutes", type=float, default=40, help="the learning rate falls over this time")
    parser.add_argument("--rate", type=float, default=1, help="of the usual learning rates")
    parser.add_argument("--seed", type=int, default=91)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(options)


if __name__ == "__main__":
    main()
