"""Processes that learn as one: each reads batches of its own, and all take the same steps.

    python -m torch.distributed.run --standalone --nproc-per-node 2 -m demo_training.train_encoder ...

Networks as small as these gain next to nothing from a second thread. A program that is started by itself is the only
process.
"""

import os
from collections.abc import Sequence

import torch
from torch import distributed, nn


def join() -> int:
    """Number of this process among those that were started together; 0 is the one that writes and prints."""
    if "RANK" not in os.environ:
        return 0
    distributed.init_process_group("gloo")
    return distributed.get_rank()


def count() -> int:
    """How many they are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def share_weights(model: nn.Module) -> None:
    """All begin with the first process's."""
    if distributed.is_initialized():
        for tensor in model.state_dict().values():
            distributed.broadcast(tensor, 0)


def average(tensors: Sequence[torch.Tensor]) -> None:
    """Each becomes its mean over the processes, in place."""
    if not distributed.is_initialized():
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    flat /= count()
    for tensor, averaged in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(averaged.view_as(tensor))


def mean(number: float) -> float:
    """Over the processes."""
    held = torch.tensor([number], dtype=torch.float64)
    average([held])
    return float(held)
