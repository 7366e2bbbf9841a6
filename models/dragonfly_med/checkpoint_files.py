"""The files of a checkpoint folder: its configuration, its weights tensor by tensor, and what lies beside them.

Weights are safetensors or pickled tensors, in one file or several with an index, as the hub has them; they are written
as safetensors.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dragonfly_med.configuration import DragonflyConfig
from dragonfly_med.errors import CheckpointError
from dragonfly_med.loading import existing_folder, naming

# What is written at a time, and with it the memory that writing needs beside one tensor.
_SHARD_BYTES = 2 * 2**30

_NAMES_OF_ONE_FILE = ("model.safetensors", "pytorch_model.bin")
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".index.json")


def read_config(folder: Path) -> DragonflyConfig:
    """The shape of a checkpoint's network; raises CheckpointError."""
    with naming(existing_folder(folder), "the configuration cannot be read"):
        return DragonflyConfig.from_pretrained(folder, local_files_only=True)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a checkpoint's weights, safetensors first; raises CheckpointError if one is missing."""
    for name in _NAMES_OF_ONE_FILE:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            return _files_of_index(index)
    raise CheckpointError(f"{folder}: there is no {' and no '.join(_NAMES_OF_ONE_FILE)}")


def _files_of_index(index: Path) -> list[Path]:
    with naming(index.parent, f"{index.name} cannot be read"):
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        files = [index.parent / Path(shard).name for shard in sorted(set(shards))]
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{index.parent}: {index.name} names {file.name}, which is missing")
    return files


def stored_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every named tensor of the weight files, mapped from disk and not yet read."""
    for file in weight_files(folder):
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a mapping
                    yield name, opened.get_tensor(name)
        else:
            # what torch wrote before it wrote zip files cannot be mapped
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))
            if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
                raise CheckpointError(f"{file.name} is not a table of named tensors")
            yield from content.items()


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
        self._tensors |= {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
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
        save_file(self._tensors, self._path(len(self._shards)), metadata={"format": "pt"})
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
