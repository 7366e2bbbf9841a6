"""Stage 5: the language model learns from all crops, by the training core that ``dragonfly finetune`` runs.

Its recipe ``language`` reads a frozen encoder's features, many conversations behind each image block; zoom-in selection
is the network's own.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from demo_training.lessons import Pictures, read_pictures
from demo_training.projector import hold
from demo_training.train_language import save
from dragonfly_med import DragonflyForCausalLM, DragonflyProcessor
from dragonfly_med.training import Sample, Settings, Teaching, TrainingRun

QUESTIONS = 16  # on each picture, each time it is read
LONG_ANSWERS = 0.5  # an id of an answer of n ids weighs n ** -0.5
LOG_EVERY = 20
LEARNT = "language_model."


class Lessons(Sequence[Sample]):
    """Pictures with some of their questions, drawn anew each time one is asked for."""

    def __init__(self, pictures: Pictures, seed: int) -> None:
        self.pictures, self.rng = pictures, np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.pictures.exchanges)

    def __getitem__(self, index: Any) -> Any:
        own = self.pictures.exchanges[index]
        chosen = self.rng.permutation(len(own))[:QUESTIONS]
        shown = self.pictures.shown(index, self.rng)
        return Sample([[own[k]] for k in chosen], features=self.pictures.features[shown].float())


class Progress(TrainerCallback):
    """Prints the mean loss now and then."""

    def __init__(self) -> None:
        self.started, self.losses = time.monotonic(), list[float]()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if logs is None or "loss" not in logs:
            return
        self.losses.append(logs["loss"])
        if state.global_step % LOG_EVERY == 0:
            mean = round(float(np.mean(self.losses[-LOG_EVERY:])), 4)
            minutes = round((time.monotonic() - self.started) / 60, 1)
            print(json.dumps({"step": state.global_step, "minutes": minutes, "loss": mean}), flush=True)


def finish(options: argparse.Namespace) -> None:
    """Train for the steps given; the weights of encoder and projector stay what they were, bit for bit."""
    weights = torch.load(options.weights, weights_only=True)
    network = DragonflyForCausalLM.from_pretrained(options.folder, dtype=torch.float32)
    network.load_state_dict(weights)
    hold(network.vision_embed_tokens)
    settings = Settings(
        recipe="language",
        teaching=Teaching(length_power=LONG_ANSWERS),
        steps=options.steps,
        learning_rate=options.rate,
        batch=options.pictures,
        accumulate=1,
        seed=options.seed,
        weight_decay=0.05,
        mixed_precision=True,
        save_every=options.steps,
        use_cpu=True,
    )
    processor = DragonflyProcessor.from_pretrained(options.folder)
    lessons = Lessons(read_pictures(options.features, options.rows), options.seed)
    trained = TrainingRun(network, processor, lessons, [], settings, options.work, [Progress()]).train()
    learnt = {name: value for name, value in trained.network.state_dict().items() if name.startswith(LEARNT)}
    save(weights | {name: value.float() for name, value in learnt.items()}, options.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="checkpoint folder made from stage 4")
    parser.add_argument("weights", type=Path, help="weights of stage 4")
    parser.add_argument("rows", type=Path, help="the folder of stage 2")
    parser.add_argument("features", type=Path, help="the file of stage 3")
    parser.add_argument("work", type=Path, help="folder of the training core")
    parser.add_argument("out", type=Path, help="file for the weights")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--pictures", type=int, default=5, help="at once")
    parser.add_argument("--rate", type=float, default=7e-4)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    finish(options)


if __name__ == "__main__":
    main()
