"""How long a stage runs, how fast it learns, and the average of its weights that is kept."""

import argparse
import copy
import math
import time
from collections.abc import Sequence
from typing import Generic, TypeVar

import torch
from torch import nn

from demo_training import parallel

WARM_UP = 0.04  # of the run
MATRIX_RATE, OTHER_RATE = 2e-2, 1e-3  # highest learning rates of Muon and AdamW
DECAY = 0.05
SEEDS_APART = 1000  # of the processes that learn as one
PEAK = "peak"  # key of an optimizer's groups: their highest learning rate

Network = TypeVar("Network", bound=nn.Module)


def timed_options(parser: argparse.ArgumentParser, minutes: float, seed: int) -> argparse.Namespace:
    """What was given on the command line, with minutes, seed and threads; takes so many threads.

    ``process`` is the number of this process among those that learn as one.
    """
    parser.add_argument("--minutes", type=float, default=minutes, help="the learning rate falls over this time")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.process = parallel.join()
    return options


class Clock:
    """Time used of the minutes that a stage is given. A busy machine makes fewer steps, never a longer run."""

    def __init__(self, minutes: float) -> None:
        self.started, self.minutes = time.monotonic(), minutes

    @property
    def used(self) -> float:
        """Minutes since the start."""
        return (time.monotonic() - self.started) / 60

    def read(self) -> float:
        """0 at the start, 1 when the time is over; the same in all processes, which read it together."""
        return parallel.mean(self.used / self.minutes)


def share_of_peak(done: float) -> float:
    """Linear warm-up over the first 4 % of the run, then a half cosine to 1 % of the peak; ``done`` is in 0..1."""
    if done < WARM_UP:
        return max(done / WARM_UP, 0.01)
    falling = min(1.0, (done - WARM_UP) / (1 - WARM_UP))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * falling))


def make_optimizers(model: nn.Module, layers: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the transformer's ``layers``, AdamW for whatever else of the model learns.

    A step of Muon takes longer than one of AdamW, and in the same time the encoder learns more by it.
    """
    matrices = [p for p in layers.parameters() if p.requires_grad and p.ndim == 2]
    taken = {id(p) for p in matrices}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    decayed, kept = [p for p in others if p.ndim > 1], [p for p in others if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": DECAY, PEAK: OTHER_RATE},
        {"params": kept, "weight_decay": 0.0, PEAK: OTHER_RATE},
    ]
    return [
        torch.optim.Muon([{"params": matrices, PEAK: MATRIX_RATE}], weight_decay=DECAY),
        torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True),
    ]


def step(optimizers: Sequence[torch.optim.Optimizer], loss: torch.Tensor, done: float) -> None:
    """One update at that share of the run, with the norm of each group's gradient held below 1."""
    loss.backward()
    learnt = [p for each in optimizers for group in each.param_groups for p in group["params"]]
    parallel.average([p.grad for p in learnt if p.grad is not None])
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group[PEAK] * share_of_peak(done)
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        optimizer.step()
        optimizer.zero_grad()


class Average(Generic[Network]):
    """A copy of a network whose weights trail behind: their exponential moving average."""

    def __init__(self, model: Network, decay: float) -> None:
        self.model, self.decay, self.updates = copy.deepcopy(model).eval(), decay, 0

    @torch.no_grad()
    def update(self, model: Network) -> None:
        self.updates += 1
        weight = 1 - min(self.decay, self.updates / (self.updates + 10))  # short memory at the start
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, weight)
            else:
                mine.copy_(theirs)
