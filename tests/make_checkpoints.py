"""Tiny checkpoints in the published layouts: one ``.bin``, or several with an index; no safetensors, as on the hub."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from make_files import GOLDEN
from safetensors.torch import load_file

_COMPANIONS = (
    "config.json generation_config.json processor_config.json tokenizer.json tokenizer_config.json "
    "special_tokens_map.json"
).split()


def tensors(architecture: str = "v1") -> dict[str, torch.Tensor]:
    """The weights in bfloat16, as they are published."""
    weights = load_file(GOLDEN / architecture / "checkpoint" / "model.safetensors")
    return {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}


def write_checkpoint(folder: Path, architecture: str = "v1", shards: int = 1, readme: str = "") -> Path:
    """A whole checkpoint; ``image_encoder/config.json`` tells the shape of its small encoder."""
    origin = GOLDEN / architecture / "checkpoint"
    (folder / "image_encoder").mkdir(parents=True)
    for name in (*_COMPANIONS, "image_encoder/config.json"):
        shutil.copyfile(origin / name, folder / name)
    (folder / "LICENSE").write_text("A licence.\n")
    if readme:
        (folder / "README.md").write_text(readme)
    write_weights(folder, tensors(architecture), shards)
    return folder


def write_weights(folder: Path, weights: dict[str, Any], shards: int = 1) -> None:
    if shards == 1:
        torch.save(weights, folder / "pytorch_model.bin")
        return
    names = sorted(weights)
    weight_map = {}
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        mine = names[number::shards]
        torch.save({name: weights[name] for name in mine}, folder / file)
        weight_map |= dict.fromkeys(mine, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
