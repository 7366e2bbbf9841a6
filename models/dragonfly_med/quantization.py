"""4-bit weights: which they are, how a weight becomes one and back, and writing a pre-quantized checkpoint.

Only the linear layers of the language model are quantized (NF4 with double quantization, by bitsandbytes); vision
encoder, projector, embeddings, norms and lm_head stay bfloat16. A written folder is in the serialised layout of
transformers and bitsandbytes, so that ``DragonflyForCausalLM.from_pretrained`` opens it like any other checkpoint.

Non-goals: choosing a device, downloading, and any other quantization.

Source: Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs" (arXiv:2305.14314), section 3.
"""

import errno
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.initialization import no_init_weights

from dragonfly_med.configuration import DragonflyConfig
from dragonfly_med.errors import CheckpointError
from dragonfly_med.loading import existing_folder, full_tensors, is_quantized, naming, refuse_incomplete
from dragonfly_med.modeling import DragonflyForCausalLM

# Modules that stay as they are; everything else that is linear belongs to the language model's body.
KEPT_MODULES = ("image_encoder", "vision_embed_tokens", "lm_head")

# What is written at a time, and with it the memory that writing needs beside one tensor.
_SHARD_BYTES = 2 * 2**30

_KEPT_DTYPE = torch.bfloat16
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".index.json")

# What bitsandbytes writes beside the packed weight; the last is everything else, in one blob.
NF4_BLOB = "quant_state.bitsandbytes__nf4"
NF4_PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map", NF4_BLOB)


def nf4_settings(compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    """What transformers needs to know to quantize, or to open, a network in 4 bit."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=list(KEPT_MODULES),
    )


def read_config(folder: Path) -> DragonflyConfig:
    """The shape of a checkpoint's network; raises CheckpointError."""
    with naming(existing_folder(folder), "the configuration cannot be read"):
        return DragonflyConfig.from_pretrained(folder, local_files_only=True)


def empty_network(
    config: DragonflyConfig, dtype: torch.dtype = _KEPT_DTYPE, attention: str | None = None
) -> DragonflyForCausalLM:
    """The network without any memory for its weights: its names and shapes."""
    with no_init_weights(), torch.device("meta"):
        return DragonflyForCausalLM._from_config(config, dtype=dtype, attn_implementation=attention)


def quantized_weights(network: nn.Module) -> set[str]:
    """Names of the weights that become 4 bit."""
    return {
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and not set(KEPT_MODULES) & set(name.split("."))
    }


def tied_weights(network: DragonflyForCausalLM) -> dict[str, str]:
    """Weights that are the same in this network by its configuration, each with the other: one need not be stored."""
    tied: dict[str, str] = network.all_tied_weights_keys
    return tied | {other: name for name, other in tied.items()}


def write_quantized(full: Path, out: Path) -> None:
    """Writes the checkpoint folder ``full`` to the new folder ``out`` with 4-bit weights.

    ``full`` may be safetensors or pickled tensors, in one file or several; they are read tensor by tensor. ``out``
    appears whole or not at all.

    Raises:
        CheckpointError: ``full`` is not a complete Dragonfly checkpoint, or is already quantized.
        OSError: ``out`` cannot be written, or exists.
    """
    full = existing_folder(full)
    if is_quantized(full):
        raise CheckpointError(f"{full}: its weights are quantized already")
    config = read_config(full)
    if out.exists():
        raise FileExistsError(f"{out} exists")
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        _write_weights(full, config, partial)
        quantized = {"quantization_config": nf4_settings(_KEPT_DTYPE).to_dict(), "torch_dtype": "bfloat16"}
        write_companions(full, config, partial, quantized)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_weights(full: Path, config: DragonflyConfig, out: Path) -> None:
    network = empty_network(config)
    linears = quantized_weights(network)
    shapes = {name: weight.shape for name, weight in network.state_dict().items()}
    writer = ShardWriter(out)
    place = "cuda" if torch.cuda.is_available() else "cpu"  # seconds instead of minutes
    seen: dict[str, list[str]] = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}
    with naming(full, "the weights cannot be read"):
        tensors = dict(full_tensors(full))  # mapped, and read one by one
    for name, tensor in tensors.items():
        wanted = shapes.pop(name, None)
        if wanted is None:
            seen["unexpected_keys"].append(name)
        elif tensor.shape != wanted:
            seen["mismatched_keys"].append(name)
        else:
            writer.add(quantize(name, tensor, place) if name in linears else {name: tensor.to(_KEPT_DTYPE)})
    tied = tied_weights(network)
    refuse_incomplete(full, seen | {"missing_keys": [name for name in shapes if tied.get(name) not in tensors]})
    writer.close()


def quantize(name: str, weight: torch.Tensor, device: torch.device | str) -> dict[str, torch.Tensor]:
    """A weight [out, in] as bitsandbytes serialises it: packed bytes, scales, code books and the rest in one blob."""
    functional = quietly_import_bitsandbytes().functional
    packed, state = functional.quantize_4bit(
        weight.to(device, _KEPT_DTYPE).contiguous(), compress_statistics=True, quant_type="nf4"
    )
    return {name: packed} | {f"{name}.{part}": tensor for part, tensor in state.as_dict(packed=True).items()}


def dequantize(name: str, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """The weight of that name, as ``quantize`` gave it and a 4-bit checkpoint holds it, in bfloat16."""
    functional = quietly_import_bitsandbytes().functional
    parts = {part: tensors[f"{name}.{part}"] for part in NF4_PARTS}
    state = functional.QuantState.from_dict(parts, device=tensors[name].device)
    return functional.dequantize_4bit(tensors[name], state).to(_KEPT_DTYPE)


def write_tensors(tensors: dict[str, torch.Tensor], file: Path) -> None:
    """Writes safetensors, which whoever may read what is made beside it may read, and not their owner alone.

    Raises OSError where the disk refuses, of which the library only keeps the text.
    """
    file.touch()
    mode = file.stat().st_mode
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code), str(file)) from error
    file.chmod(mode)


class ShardWriter:
    """Collects tensors and writes a file whenever they are many; ``close`` gives the files their final names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tensors: dict[str, torch.Tensor] = {}
        self._bytes = self._total = 0
        self._shards: list[list[str]] = []

    def add(self, tensors: dict[str, torch.Tensor]) -> None:
        """Tensors added together stay in one file."""
        size = sum(tensor.nbytes for tensor in tensors.values())
        if self._tensors and self._bytes + size > _SHARD_BYTES:
            self._flush()
        # copies, because two weights of a pickle may share their memory and safetensors' may not
        self._tensors |= {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        self._bytes += size
        self._total += size

    def close(self) -> None:
        self._flush()
        count = len(self._shards)
        if count == 1:
            self._path(0).rename(self._folder / "model.safetensors")
            return
        places: dict[str, str] = {}
        for number, names in enumerate(self._shards):
            file = f"model-{number + 1:05}-of-{count:05}.safetensors"
            self._path(number).rename(self._folder / file)
            places |= dict.fromkeys(names, file)
        index = {"metadata": {"total_size": self._total}, "weight_map": dict(sorted(places.items()))}
        _write_json(self._folder / "model.safetensors.index.json", index)

    def _flush(self) -> None:
        write_tensors(self._tensors, self._path(len(self._shards)))
        self._shards.append(list(self._tensors))
        self._tensors, self._bytes = {}, 0

    def _path(self, number: int) -> Path:
        return self._folder / f"shard-{number}"


def write_companions(
    source: Path, config: DragonflyConfig, out: Path, changes: dict[str, Any], but: tuple[str, ...] = ()
) -> None:
    """Copies every file of a checkpoint that is neither weights nor hidden, nor named in ``but``.

    ``changes`` are made to config.json; a change to None removes.
    """
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith(".") and not path.name.endswith((*_WEIGHT_SUFFIXES, *but)):
            shutil.copyfile(path, out / path.name)
    settings: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    # a described encoder lies in a folder of its own; here its shape stands in the configuration
    settings |= {"vision_config": config.vision_config.to_dict(), "architecture": config.architecture, **changes}
    removed = {name for name, value in changes.items() if value is None}
    _write_json(out / "config.json", {name: value for name, value in settings.items() if name not in removed})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def quietly_import_bitsandbytes() -> Any:
    """bitsandbytes, without its remarks on a CPU, which a user can do nothing about, and without its download.

    Where a package ``kernels`` is installed, it would fetch native code from the hub while it is imported.
    Raises ImportError where it is not installed.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    logging.getLogger("bitsandbytes.cextension").setLevel(logging.ERROR)
    with _not_importable("kernels"):
        import bitsandbytes
    return bitsandbytes


@contextmanager
def _not_importable(package: str) -> Iterator[None]:
    held = sys.modules.get(package)
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(package)
        if held is not None:
            sys.modules[package] = held
