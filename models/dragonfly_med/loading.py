"""Opening checkpoint folders: always local, always complete.

transformers only reports missing weights and goes on with random ones; here that is an error.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file

from dragonfly_med.errors import CheckpointError
from dragonfly_med.memory import is_of_a_gpu

_NAMES_OF_ONE_FILE = ("model.safetensors", "pytorch_model.bin")
# Computed from the configuration; early versions of transformers stored them all the same, and now it drops them.
_COMPUTED = ("rotary_emb.inv_freq", "embeddings.position_ids")
_POINTER = b"version https://git-lfs"  # of a clone that was made without Git LFS

# What libraries raise about a file whose content is not what they expect; impossible numbers in it become the last two.
_TROUBLE = (
    OSError,
    EOFError,
    RuntimeError,
    KeyError,
    TypeError,
    ValueError,
    AssertionError,
    SafetensorError,
    StrictDataclassError,
    AttributeError,
    ArithmeticError,
)


def existing_folder(path: Any) -> Path:
    """The folder, or CheckpointError: a hub id is never looked up."""
    folder = Path(path)
    try:
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: there is no such checkpoint folder")
        if not (folder / "config.json").is_file() and not (folder / "processor_config.json").is_file():
            raise CheckpointError(f"{folder}: there is no config.json, so this is not a checkpoint")
    except OSError as error:
        raise CheckpointError(f"{folder}: it cannot be looked into: {error.strerror}") from error
    return folder


def is_quantized(folder: Path) -> bool:
    """Whether a checkpoint folder holds 4-bit weights, by its own config.json."""
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False  # told properly when it is opened
    return isinstance(settings, dict) and bool(settings.get("quantization_config"))


@contextmanager
def naming(folder: Path, trouble: str) -> Iterator[None]:
    """Turns what a library raises about a broken file into a CheckpointError that begins with the folder."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    except _TROUBLE as error:
        if is_of_a_gpu(error):  # no fault of the file
            raise
        raise CheckpointError(f"{folder}: {trouble}: {first_line(error)}") from error


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a checkpoint's weights, safetensors first; raises CheckpointError if one is missing."""
    for name in _NAMES_OF_ONE_FILE:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            return _files_of_index(index)
    raise CheckpointError(f"there is no {' and no '.join(_NAMES_OF_ONE_FILE)}")


def _files_of_index(index: Path) -> list[Path]:
    try:
        shards = json.loads(index.read_bytes())["weight_map"].values()
        files = [index.parent / Path(shard).name for shard in sorted(set(shards))]
    except _TROUBLE as error:
        raise CheckpointError(f"{index.name} is damaged") from error
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{index.name} names {file.name}, which is missing")
    return files


def tensors_in(file: Path) -> Mapping[str, torch.Tensor]:
    """What a weight file holds, mapped from disk and not yet read; a pickle is opened as tensors only.

    Raises CheckpointError, which names the file, if it is no table of named tensors.
    """
    try:
        if file.suffix == ".safetensors":
            return weights_alone(load_file(file))
        # what torch wrote before it wrote zip files cannot be mapped
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))
    except (UnpicklingError, *_TROUBLE) as error:
        raise CheckpointError(f"{file.name} {_what_is_wrong(file, error)}") from error
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    ):
        raise CheckpointError(f"{file.name} holds something other than tensors, or tensors without names")
    return weights_alone(content)


def weights_alone(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without what a network computes anew whenever it is opened."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(_COMPUTED)}


def _what_is_wrong(file: Path, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"cannot be read: {error.strerror}"
    with file.open("rb") as opened:
        is_pointer = opened.read(len(_POINTER)) == _POINTER
    if is_pointer:
        return "is a pointer of Git LFS and not the file itself: run git lfs pull there"
    return "is damaged, or holds something other than tensors"


def stored_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every named tensor of the weight files, mapped from disk and not yet read."""
    for file in weight_files(folder):
        yield from tensors_in(file).items()


def full_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The same of a checkpoint that is not quantized; raises CheckpointError for anything but weights."""
    for name, tensor in stored_tensors(folder):
        refuse_other_numbers(name, tensor)
        yield name, tensor


def refuse_other_numbers(name: str, tensor: torch.Tensor) -> None:
    """Raises CheckpointError for what can be cast to a weight, and is none: integers, without their scale, say."""
    if not tensor.is_floating_point() or tensor.layout is not torch.strided or tensor.is_meta:
        kind = str(tensor.dtype if tensor.layout is torch.strided else tensor.layout).removeprefix("torch.")
        raise CheckpointError(f"weight {name} has no floating-point numbers ({'none' if tensor.is_meta else kind})")


def refuse_incomplete(folder: Path, loading_info: dict[str, Any]) -> None:
    """Raises CheckpointError unless every weight of the network was in the files, and nothing else."""
    for kind, what in (
        ("missing_keys", "is missing"),
        ("unexpected_keys", "is not part of the network"),
        ("mismatched_keys", "has another shape"),
    ):
        keys = loading_info.get(kind) or ()
        if keys:
            names = sorted(key if isinstance(key, str) else key[0] for key in keys)
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise CheckpointError(f"{folder}: weight {names[0]} {what}{more}")


def load_strictly(from_pretrained: Callable[..., Any], folder: Path, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Calls transformers' ``from_pretrained`` without a network; returns (model, loading info) of a complete one."""
    # mismatches are let through to be refused below, by name
    kwargs |= {"local_files_only": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
    with naming(folder, "the weights cannot be read"):
        for _ in full_tensors(folder):  # transformers would cast whatever is there
            pass
        model, loading_info = from_pretrained(folder, *args, **kwargs)
    refuse_incomplete(folder, loading_info)
    return model, loading_info


def first_line(error: Exception) -> str:
    """What a library said, without the lines that follow."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
