"""Stage 1: the vision encoder learns the image labels from single crops.

The classifier reads the mean over the tokens of ``hidden_states[-2]``, the very features that the language model
will be given. The last layer and the post-layernorm take no part in them; they are in the checkpoint because its
format wants them, untrained. In most epochs half of the patches are left out at random, which halves the time.
"""

import argparse
import json
import math
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from demo_training.augment import jitter_colours, normalise, random_crop, to_unit, whole_picture
from demo_training.dataset import (
    ImageRow,
    blank_rows,
    draw_weights,
    label_names,
    load_picture,
    read_rows,
)

ENCODER = CLIPVisionConfig(
    hidden_size=192,
    intermediate_size=768,
    num_hidden_layers=9,
    num_attention_heads=3,
    image_size=112,
    patch_size=16,
    hidden_act="quick_gelu",
    layer_norm_eps=1e-5,
    projection_dim=192,
)
BLANKS = {"train": 200, "val": 40}
WARM_UP = 0.04  # of the run
WHOLE_FROM = 0.75  # of the run: from here on no patch is left out
WATCHED = slice(None, None, 3)  # the part of the validation rows that is scored after every epoch


class CropClassifier(nn.Module):
    """CLIP's vision tower and a linear classifier on its mean feature."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.encoder = CLIPVisionModel(ENCODER)
        self.head = nn.Linear(ENCODER.hidden_size, labels)

    def features(self, crops: torch.Tensor, keep: int | None = None) -> torch.Tensor:
        """[crops, 3, side, side] -> hidden_states[-2]: [crops, 1 + patches, width], with ``keep`` patches if given."""
        hidden = self.encoder.embeddings(crops)
        if keep is not None:
            hidden = keep_patches(hidden, keep)
        hidden = self.encoder.pre_layrnorm(hidden)
        for layer in self.encoder.encoder.layers[:-1]:
            hidden = layer(hidden, attention_mask=None)
        return hidden

    def forward(self, crops: torch.Tensor, keep: int | None = None) -> torch.Tensor:
        """Logits [crops, labels]."""
        return self.head(self.features(crops, keep).mean(1))


def keep_patches(hidden: torch.Tensor, keep: int) -> torch.Tensor:
    """The class token and ``keep`` patches of each crop, drawn at random: [crops, 1 + keep, width]."""
    crops, tokens, width = hidden.shape
    chosen = torch.rand(crops, tokens - 1).topk(keep).indices + 1  # [crops, keep]
    chosen = torch.cat([torch.zeros(crops, 1, dtype=chosen.dtype), chosen], dim=1)
    return hidden.gather(1, chosen[..., None].expand(-1, -1, width))


def learning_rate(done: float, peak: float) -> float:
    """Linear warm-up over the first 4 % of the run, then a half cosine to 1 % of the peak; ``done`` is in 0..1."""
    if done < WARM_UP:
        return peak * max(done / WARM_UP, 0.01)
    falling = min(1.0, (done - WARM_UP) / (1 - WARM_UP))
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * falling)))


def make_optimizer(model: nn.Module, peak: float, decay: float = 0.05) -> torch.optim.AdamW:
    """AdamW; only matrices are decayed."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    rest = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98))


@torch.inference_mode()
def balanced_accuracy(model: CropClassifier, data: Path, rows: list[ImageRow], labels: list[str]) -> dict[str, float]:
    """Mean recall over the labels of each data set, from the whole picture in one crop, within the data set."""
    model.eval()
    hits: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for start in range(0, len(rows), 128):
        batch = rows[start : start + 128]
        logits = model(normalise(to_unit([whole_picture(load_picture(data, row)) for row in batch])))
        for row, guess in zip(batch, logits.argmax(1).tolist(), strict=True):
            hits[row.dataset][row.label].append(labels[guess] == row.label)
    model.train()
    return {name: float(np.mean([np.mean(h) for h in by.values()])) for name, by in sorted(hits.items())}


@dataclass
class CropStream:
    """Endless batches of augmented crops, drawn with the weights of their labels."""

    data: Path
    rows: list[ImageRow]
    labels: list[str]
    seed: int

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.colours = torch.Generator().manual_seed(self.seed)
        self.pictures = [load_picture(self.data, row) for row in self.rows]
        self.weights = draw_weights(self.rows)
        self.index = {name: i for i, name in enumerate(self.labels)}

    def draw(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised crops [count, 3, side, side] and label numbers [count]."""
        drawn = self.rng.choice(len(self.rows), count, p=self.weights)
        crops = to_unit([random_crop(self.pictures[i], self.rows[i], self.rng) for i in drawn])
        microscopic = torch.tensor([self.rows[i].microscopic for i in drawn])
        target = torch.tensor([self.index[self.rows[i].label] for i in drawn])
        return normalise(jitter_colours(crops, microscopic, self.colours)), target


def train_epoch(
    model: CropClassifier, optimizer: torch.optim.Optimizer, stream: CropStream, options: argparse.Namespace
) -> float:
    """One pass of ``options.draws`` crops; the mean loss."""
    losses = []
    for _ in range(options.draws // options.batch):
        done = (time.monotonic() - options.started) / (60 * options.minutes)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(done, options.rate)
        crops, target = stream.draw(options.batch)
        logits = model(crops, options.keep if done < WHOLE_FROM else None)
        loss = nn.functional.cross_entropy(logits, target, label_smoothing=0.05)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        if done >= 1:
            break
    return float(np.mean(losses))


def train(options: argparse.Namespace) -> None:
    """Train for the minutes given, and write encoder.pt (weights and labels) after every epoch."""
    torch.manual_seed(options.seed)
    rows = read_rows(options.data, "train") + blank_rows(BLANKS["train"], "train")
    watched = (read_rows(options.data, "val") + blank_rows(BLANKS["val"], "val"))[WATCHED]
    labels = label_names(rows)
    stream = CropStream(options.data, rows, labels, options.seed)
    model = CropClassifier(len(labels)).train()
    if options.resume is not None:
        model.load_state_dict(torch.load(options.resume, weights_only=True)["model"])
    optimizer = make_optimizer(model, options.rate)
    options.started = time.monotonic() - 60 * options.resume_minutes
    epoch = 0
    while time.monotonic() - options.started < 60 * options.minutes:
        epoch += 1
        loss = train_epoch(model, optimizer, stream, options)
        torch.save({"labels": labels, "model": model.state_dict()}, options.out / "encoder.pt")
        score = balanced_accuracy(model, options.data, watched, labels)
        minutes = (time.monotonic() - options.started) / 60
        entry = {"epoch": epoch, "minutes": minutes, "loss": loss, **score}
        print(json.dumps({key: round(value, 3) for key, value in entry.items()}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds train/images.csv")
    parser.add_argument("out", type=Path, help="folder for encoder.pt")
    parser.add_argument("--minutes", type=float, default=35, help="the learning rate falls over this time")
    parser.add_argument("--resume", type=Path, help="encoder.pt of a run that was stopped")
    parser.add_argument("--resume-minutes", type=float, default=0, help="minutes of --minutes already used by it")
    parser.add_argument("--keep", type=int, default=24, help="patches kept of 49 in the first three quarters")
    parser.add_argument("--draws", type=int, default=8192, help="crops in an epoch")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    train(options)


if __name__ == "__main__":
    main()
