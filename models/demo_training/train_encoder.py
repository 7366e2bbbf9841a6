"""Stage 1: the vision encoder learns the labels of single crops, from nothing.

For most of the run it sees half of each crop's patches, drawn anew each time: a step takes half as long, and a picture
is never seen twice alike. Several processes may learn as one.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from demo_training import parallel
from demo_training.crop_stream import Crops, CropStream
from demo_training.dataset import read_rows
from demo_training.encoder import PATCHES, Student, whiten_patches
from demo_training.generated import generated_rows
from demo_training.labels import label_loss
from demo_training.schedule import SEEDS_APART, Average, Clock, make_optimizers, step, timed_options
from demo_training.scores import FIRST_HIGH, balanced_accuracy

BATCH = 96  # of each process
SAMPLE_BATCHES = 12  # for the spectrum of patches
SOME_PATCHES = 24
WITH_SOME_PATCHES = 0.85  # share of the run
MIXED = 0.3  # share of batches in which pictures of one data set are blended in pairs
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


def begun_student(batches: Iterator[Crops]) -> Student:
    """An encoder that knows nothing but the spectrum of patches."""
    student = Student()
    whiten_patches(student, torch.cat([next(batches).pixels for _ in range(SAMPLE_BATCHES)]))
    return student.train()


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    crops: int  # of all processes
    minutes: float
    loss: float  # mean of the last steps
    over: bool


def learn(stream: CropStream, minutes: float) -> Iterator[tuple[Student, Progress]]:
    """Train for the minutes given; yields the averaged weights now and then, and at the end."""
    batches = iter(stream)
    model = begun_student(batches)
    parallel.share_weights(model)
    average = Average(model, 0.998)
    optimizers = make_optimizers(model, model.layers)
    clock, losses, done = Clock(minutes), [], 0.0
    while done < 1:
        crops = next(batches)
        patches = SOME_PATCHES if done < WITH_SOME_PATCHES else PATCHES
        loss = crop_loss(model, blend(crops) if float(torch.rand(())) < MIXED else crops, patches)
        step(optimizers, loss, done)
        average.update(model)
        losses.append(float(loss.detach()))
        done = clock.read()
        if done >= 1 or len(losses) % REPORT_EVERY == 0:
            mean = sum(losses[-REPORT_EVERY:]) / len(losses[-REPORT_EVERY:])
            yield average.model, Progress(len(losses) * BATCH * parallel.count(), clock.used, mean, done >= 1)


def train(options: argparse.Namespace) -> None:
    """Writes the weights again and again, with their scores on the validation pictures."""
    seed = options.seed + SEEDS_APART * options.process
    torch.manual_seed(seed)
    rows = read_rows(options.data, "train") + generated_rows(options.generated, "train")
    watched = read_rows(options.data, "val") + generated_rows(options.generated, "val")
    for student, done in learn(CropStream(options.data, rows, BATCH, seed), options.minutes):
        if options.process:
            continue
        torch.save(student.state_dict(), options.out)
        scores = balanced_accuracy(student, options.data, watched, FIRST_HIGH if done.over else 1)
        entry = {"crops": done.crops, "minutes": round(done.minutes, 1), "loss": round(done.loss, 4), **scores}
        print(json.dumps(entry), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds train/images.csv and vqa/vqa_rad")
    parser.add_argument("generated", type=Path, help="folder of the generated tissue")
    parser.add_argument("out", type=Path, help="file for the weights")
    train(timed_options(parser, minutes=60, seed=101))


if __name__ == "__main__":
    main()
