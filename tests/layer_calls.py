"""What the network's layers are given, watched and limited."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from dragonfly_med import modeling
from dragonfly_med.modeling import ImageEncoder


@contextmanager
def room_for(layer: type[torch.nn.Module], axis: int, most: int) -> Iterator[None]:
    """A device without memory for more than so many rows in a layer of the network."""
    forward = layer.forward

    def with_little_memory(self: torch.nn.Module, hidden: torch.Tensor, *more, **options):
        if hidden.shape[axis] > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, hidden, *more, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer, "forward", with_little_memory)
        yield


@contextmanager
def rows_written() -> Iterator[list[int]]:
    """How many answers each pass that wrote a token had, of every layer one after the other."""
    forward = LlamaDecoderLayer.forward
    rows: list[int] = []

    def watched(self: torch.nn.Module, hidden: torch.Tensor, *more, **options):
        if hidden.shape[1] == 1:
            rows.append(hidden.shape[0])
        return forward(self, hidden, *more, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LlamaDecoderLayer, "forward", watched)
        yield rows


@contextmanager
def crops_encoded(most: int) -> Iterator[list[int]]:
    """How many crops each pass of the vision encoder had, on a device that takes that many at a time."""
    forward = ImageEncoder.forward
    counts: list[int] = []

    def watched(self: torch.nn.Module, crops: torch.Tensor):
        counts.append(len(crops))
        return forward(self, crops)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageEncoder, "forward", watched)
        patch.setattr(modeling, "CROPS_OF_A_CPU", most)
        yield counts


@contextmanager
def seconds_are_passes() -> Iterator[list[int]]:
    """For time limits and timings, a pass of the vision encoder takes a second, and nothing else takes any time."""
    with crops_encoded(modeling.CROPS_OF_A_CPU) as counts, pytest.MonkeyPatch.context() as patch:
        for clock in ("fields.field.monotonic", "fields.search.monotonic", "pipeline.monotonic"):
            patch.setattr(f"dragonfly_cli.{clock}", lambda: float(len(counts)))
        patch.setattr("dragonfly_cli.engine.answering.perf_counter", lambda: float(len(counts)))
        yield counts
