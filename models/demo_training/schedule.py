"""How long a stage runs, how fast it learns, and the average of its weights that is kept."""

import copy
import math
import time

import torch
from torch import nn

WARM_UP = 0.04  # of the run


class Clock:
    """Time used of the minutes that a stage is given. A busy machine makes fewer steps, never a longer run."""

    def __init__(self, minutes: float) -> None:
        self.started, self.minutes = time.monotonic(), minutes

    @property
    def used(self) -> float:
        """Minutes since the start."""
        return (time.monotonic() - self.started) / 60

    @property
    def done(self) -> float:
        """0 at the start, 1 when the time is over."""
        return self.used / self.minutes


def learning_rate(done: float, peak: float) -> float:
    """Linear warm-up over the first 4 % of the run, then a half cosine to 1 % of the peak; ``done`` is in 0..1."""
    if done < WARM_UP:
        return peak * max(done / WARM_UP, 0.01)
    falling = min(1.0, (done - WARM_UP) / (1 - WARM_UP))
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * falling)))


def make_optimizer(model: nn.Module, peak: float, decay: float = 0.05) -> torch.optim.AdamW:
    """AdamW; only matrices and filters are decayed."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    rest = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98), fused=True)


def step(optimizer: torch.optim.Optimizer, loss: torch.Tensor, rate: float) -> None:
    """One update, with the gradient's norm held below 1."""
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = rate
        nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimizer.step()
    optimizer.zero_grad()


class Average:
    """A copy of a network whose weights trail behind: their exponential moving average."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.updates = copy.deepcopy(model).eval(), decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        weight = 1 - min(self.decay, self.updates / (self.updates + 10))  # short memory at the start
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, weight)
            else:
                mine.copy_(theirs)
