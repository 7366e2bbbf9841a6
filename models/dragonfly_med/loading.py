"""Opening checkpoint folders: always local, always complete.

transformers only reports missing weights and goes on with random ones; here that is an error.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from dragonfly_med.errors import CheckpointError

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
    except (OSError, ValueError):
        return False  # told properly when it is opened
    return isinstance(settings, dict) and bool(settings.get("quantization_config"))


@contextmanager
def naming(folder: Path, trouble: str) -> Iterator[None]:
    """Turns what a library raises about a broken file into a CheckpointError that begins with the folder."""
    try:
        yield
    except torch.OutOfMemoryError:  # no fault of the file
        raise
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    except UnpicklingError as error:
        raise CheckpointError(f"{folder}: a weight file is damaged, or holds something other than tensors") from error
    except _TROUBLE as error:
        raise CheckpointError(f"{folder}: {trouble}: {first_line(error)}") from error


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
        model, loading_info = from_pretrained(folder, *args, **kwargs)
    refuse_incomplete(folder, loading_info)
    return model, loading_info


def first_line(error: Exception) -> str:
    """What a library said, without the lines that follow."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
