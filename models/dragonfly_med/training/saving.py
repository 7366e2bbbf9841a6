"""A trained network as a checkpoint folder of the published layout, adapters merged into the weights.

What did not learn is copied from the checkpoint that the training began with, bit for bit; what did is rounded to
the number format that it had there. Weights that were held in 4 bit are written as the training saw them, dequantized.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dragonfly_med.loading import existing_folder, is_quantized, stored_tensors
from dragonfly_med.quantization import (
    ShardWriter,
    dequantize,
    empty_network,
    quantize,
    quantized_weights,
    read_config,
    tied_weights,
    write_companions,
)

# What is said there of the checkpoint that the training began with is not true of this one.
_CARDS = ("README.md", "CARD.md")


def write_trained(base: Path, network: nn.Module, out: Path, four_bit: bool) -> None:
    """Writes the network, which began as the checkpoint ``base``, into the existing folder ``out``.

    Args:
        four_bit: the language model's linear layers were held in 4 bit while it was trained.

    Raises:
        CheckpointError: ``base`` cannot be read.
        OSError: ``out`` cannot be written.
    """
    base = existing_folder(base)
    config = read_config(base)
    learned = dict(_learned(network))
    adapters = {f"{name}.weight": each for name, each in network.named_modules() if hasattr(each, "get_delta_weight")}
    writer = ShardWriter(out)
    for name, weight in _base_weights(base, four_bit):
        if name in learned:
            weight = learned[name].to("cpu", weight.dtype)
        elif name in adapters:  # one at a time: what adapters add is as large as the weights beside them
            weight = (weight.float() + _added_by(adapters[name])).to(weight.dtype)
        writer.add({name: weight})
    writer.close()
    write_companions(base, config, out, {"quantization_config": None}, but=_CARDS)


def round_as_written(base: Path, network: nn.Module) -> None:
    """Gives what learnt the values that ``write_trained`` will write of it, so that these are what is scored."""
    stored = dict(stored_tensors(base))
    for name, parameter in _learned(network):
        if name in stored:  # of tied ones one name may stand for both
            parameter.copy_(parameter.to(stored[name].dtype))


def _learned(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in network.named_parameters(remove_duplicate=False):  # tied ones by both names
        if parameter.requires_grad and "lora_" not in name:
            yield name, parameter.detach()


def _added_by(adapter: Any) -> torch.Tensor:
    """What an adapter adds to the weight that it stands beside, float32."""
    added: torch.Tensor = adapter.get_delta_weight("default")
    return added.detach().cpu().float()


def _base_weights(base: Path, four_bit: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """Every stored weight of the network by its published name, one that was in 4 bit as its dequantized self."""
    network = empty_network(read_config(base))
    linears = quantized_weights(network) if four_bit else set()
    tied = tied_weights(network)
    stored = dict(stored_tensors(base))  # mapped, and read one by one
    for name in network.state_dict():
        if name in tied and name not in stored:
            continue
        if name not in linears:
            yield name, stored[name]
        else:
            yield name, dequantize(name, stored if is_quantized(base) else quantize(name, stored[name], "cpu"))
