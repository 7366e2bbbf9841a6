"""Published weight files to safetensors, at most one output shard in memory, continued where it stopped.

The tensors keep their published names, types and values. A pickle is opened in no other way than as tensors only, and
mapped rather than read. What is written is compared with the network that the configuration describes before the first
byte is written, so that a foreign or incomplete checkpoint costs a second and no disk.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dragonfly_cli.errors import ModelError
from dragonfly_cli.output.files import flush_file, flush_folder, move_whole
from dragonfly_cli.store.folder import write_atomically
from dragonfly_cli.store.manifest import StoredFile, is_inside, stored_file

# Small enough for a small machine, large enough for the 1.05 GB embedding of the published models.
SHARD_BYTES = 2_000_000_000

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_PICKLE_INDEX = "pytorch_model.bin.index.json"
_PICKLE = "pytorch_model.bin"
_PROGRESS = "progress.json"

# Configuration, tokenizer, licence and card; weights and code are not among them.
_COMPANION_SUFFIXES = {".json", ".model", ".txt", ".md"}
_LARGEST_COMPANION_BYTES = 100_000_000


@dataclass(frozen=True)
class CheckpointFiles:
    """A checkpoint to convert: the name of every file that is needed, and where it lies."""

    weights: dict[str, Path]
    companions: dict[str, Path]


@dataclass(frozen=True)
class Conversion:
    """What came of it: every file, and the facts that only the weights tell."""

    files: list[StoredFile]
    architecture: str
    parameters: int


@dataclass(frozen=True)
class _Shard:
    name: str
    file: Path
    tensors: list[str]


def choose_weights(names: Iterable[str], read: Callable[[str], bytes]) -> list[str]:
    """Which of a checkpoint's files hold its weights; safetensors where there are any.

    ``read`` gives the content of a named file. Raises ModelError if there are no weights, or some are missing.
    """
    present = set(names)
    for single, index in ((_SINGLE, _INDEX), (_PICKLE, _PICKLE_INDEX)):
        if single in present:  # before an index, as whoever opens the folder takes it
            return [single]
        if index in present:
            return _indexed(read(index), index, present)
    raise ModelError(
        f"there are no weights in it: neither {_SINGLE} nor {_PICKLE}, nor an index of several",
        "give the folder or repository of a Dragonfly checkpoint",
    )


def is_companion(name: str, size: int) -> bool:
    """Whether a file belongs to a stored model beside its weights."""
    if "/" in name or name.startswith(".") or name.endswith(".index.json") or size > _LARGEST_COMPANION_BYTES:
        return False
    return Path(name).suffix in _COMPANION_SUFFIXES or name.upper().startswith(("LICENSE", "USE_POLICY"))


def folder_source(folder: Path) -> CheckpointFiles:
    """The checkpoint in a folder; raises ModelError if it is none."""
    present = {path.name: path for path in folder.iterdir() if path.is_file()}
    if "config.json" not in present:
        raise ModelError(f"{folder}: there is no config.json, so this is not a checkpoint", "give another folder")
    if "adapter_config.json" in present:
        raise ModelError(
            f"{folder}: it holds an adapter beside the weights, which would be lost",
            "merge the adapter into the weights first, or take it out of the folder",
        )
    try:
        weights = choose_weights(present, lambda name: present[name].read_bytes())
    except ModelError as error:
        raise ModelError(f"{folder}: {error.message}", error.hint) from error
    companions = {name: path for name, path in present.items() if is_companion(name, path.stat().st_size)}
    source = CheckpointFiles({name: present[name] for name in weights}, companions | _encoder_file(folder))
    for path in (source.weights | source.companions).values():
        if not os.access(path, os.R_OK):
            raise ModelError(f"{path}: you may not read it", "ask for permission, or take a copy that is yours")
    return source


def convert(
    source: CheckpointFiles, original: list[StoredFile], out: Path, on_step: Callable[[str], None] = lambda step: None
) -> Conversion:
    """Writes the checkpoint into ``out`` as safetensors, in one step at the end.

    Args:
        source: where the files lie.
        original: the same weight files hashed, by which work that was left half-done is known again.
        out: the folder to make; its files are listed below its name.

    Raises:
        ModelError: a file is damaged, or the weights are not those of the network that config.json describes.
    """
    part = out.with_name(f"{out.name}.part")
    done = _earlier_work(part, original)
    try:
        _copy_companions(source, part)
        network = _network_of(part)
        shards, shapes = _plan(source.weights)
        _refuse_foreign(shapes, network)
        for number, shard in enumerate(shards, 1):
            if shard.name not in {file.path for file in done}:
                on_step(f"converting the weights, {number} of {len(shards)}")
                done.append(_write_shard(shard, part))
                _write_progress(part, original, done)
    except ModelError:
        shutil.rmtree(part)  # nothing of it can be used
        raise
    if len(shards) > 1:
        write_atomically(part / _INDEX, _index_text(shards, source.weights))
    return Conversion(_finish(part, out, done), network.architecture, network.parameters)


def _indexed(content: bytes, index: str, present: set[str]) -> list[str]:
    try:
        names = sorted(set(json.loads(content)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{index} is damaged", "get the checkpoint again") from error
    for name in names:
        if name not in present:
            raise ModelError(f"{name} is missing, which {index} lists", "get the checkpoint again")
    return names


def _encoder_file(folder: Path) -> dict[str, Path]:
    """The description of a vision encoder that config.json names as a folder below the checkpoint."""
    try:
        encoder = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("image_encoder")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"{folder}: config.json is damaged", "get the checkpoint again") from error
    name = f"{encoder}/config.json"
    return {name: folder / name} if is_inside(name) and (folder / name).is_file() else {}


def _earlier_work(part: Path, original: list[StoredFile]) -> list[StoredFile]:
    """The shards that an interrupted call has finished; the folder is emptied if they are of another checkpoint."""
    try:
        progress = json.loads((part / _PROGRESS).read_text(encoding="utf-8"))
        done = [StoredFile(**row) for row in progress["done"]]
        same = [StoredFile(**row) for row in progress["original"]] == original
    except (OSError, ValueError, KeyError, TypeError):
        done, same = [], False
    if same and all((part / file.path).is_file() and (part / file.path).stat().st_size == file.size for file in done):
        return done
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    return []


def _write_progress(part: Path, original: list[StoredFile], done: list[StoredFile]) -> None:
    progress = {"original": [asdict(file) for file in original], "done": [asdict(file) for file in done]}
    write_atomically(part / _PROGRESS, json.dumps(progress))


def _copy_companions(source: CheckpointFiles, part: Path) -> None:
    for name, path in source.companions.items():
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, part / name)
        flush_file(part / name)


@dataclass(frozen=True)
class _Network:
    shapes: dict[str, tuple[int, ...]]
    tied: dict[str, str]
    architecture: str
    parameters: int


def _network_of(folder: Path) -> _Network:
    """What config.json describes, built without memory for its weights."""
    from dragonfly_med import CheckpointError, DragonflyProcessor
    from dragonfly_med.loading import is_quantized, naming
    from dragonfly_med.quantization import empty_network, read_config, tied_weights

    if is_quantized(folder):
        raise ModelError(
            "its config.json says that the weights are quantized, and a quantized checkpoint cannot be converted",
            "get the full one; of weights that are full again, take quantization_config out of config.json",
        )
    try:
        config = read_config(folder)
        DragonflyProcessor.from_pretrained(folder)  # a tokenizer that is not the network's is told now
        with naming(folder, "config.json does not describe a network"):
            network = empty_network(config)
    except CheckpointError as error:
        why = str(error).removeprefix(f"{folder}: ")
        raise ModelError(f"it is no Dragonfly checkpoint: {why}", "get the whole checkpoint, or another one") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    return _Network(shapes, tied_weights(network), config.architecture, network.num_parameters())


def _open(file: Path) -> Mapping[str, Any]:
    """The weights in a file, mapped into memory; raises ModelError for anything else."""
    from dragonfly_med import CheckpointError
    from dragonfly_med.loading import refuse_other_numbers, tensors_in

    try:
        tensors = tensors_in(file)
        for name, tensor in tensors.items():
            refuse_other_numbers(name, tensor)
    except CheckpointError as error:
        hint = "get the checkpoint again, from its authors; a quantized one cannot be converted"
        raise ModelError(f"{file.parent}: {error}", hint) from error
    return tensors


def _plan(weights: Mapping[str, Path]) -> tuple[list[_Shard], dict[str, tuple[int, ...]]]:
    """Which tensors go into which output file, and the shape of each; an output has tensors of one input only."""
    groups: list[tuple[Path, list[str]]] = []
    shapes: dict[str, tuple[int, ...]] = {}
    for _, file in sorted(weights.items()):
        filled = SHARD_BYTES
        for name, tensor in _open(file).items():
            if name in shapes:
                raise ModelError(f"{file}: weight {name} is in it twice", "get the checkpoint again")
            shapes[name] = tuple(tensor.shape)
            if filled + tensor.nbytes > SHARD_BYTES:
                groups.append((file, []))
                filled = 0
            groups[-1][1].append(name)
            filled += tensor.nbytes
    total = len(groups)
    names = [_SINGLE] if total == 1 else [f"model-{n:05d}-of-{total:05d}.safetensors" for n in range(1, total + 1)]
    return [_Shard(name, *group) for name, group in zip(names, groups, strict=True)], shapes


def _refuse_foreign(found: dict[str, tuple[int, ...]], network: _Network) -> None:
    wanted = network.shapes
    for name in sorted(wanted.keys() | found.keys()):
        if found.get(name) == wanted.get(name) or (name not in found and network.tied.get(name) in found):
            continue
        what = "is missing" if name not in found else "is not part of the network"
        what = "has another shape" if name in found and name in wanted else what
        raise ModelError(
            f"the weights are not those of the network that config.json describes: {name} {what}",
            "get the whole checkpoint; a quantized one cannot be converted",
        )


def _write_shard(shard: _Shard, part: Path) -> StoredFile:
    from dragonfly_med.quantization import write_tensors

    tensors = _open(shard.file)
    # copies, because two weights of a pickle may share their memory and safetensors' may not
    copies = {name: tensors[name].clone().contiguous() for name in shard.tensors}
    _refuse_no_numbers(shard.file, copies)
    unfinished = part / f".{shard.name}.part"
    write_tensors(copies, unfinished)
    move_whole(unfinished, part / shard.name)
    return stored_file(part / shard.name, shard.name)


def _refuse_no_numbers(file: Path, tensors: Mapping[str, Any]) -> None:
    for name, tensor in tensors.items():
        if not _are_numbers(tensor):
            raise ModelError(f"{file}: weight {name} has values that are no numbers", "get the checkpoint again")


def _are_numbers(tensor: Any) -> bool:
    """By its extremes, which NaN and infinity are: a mask of all values takes 40 times as long, and memory."""
    if not tensor.numel():
        return True
    wide = tensor if tensor.element_size() > 1 else tensor.bfloat16()  # of 8 bits none are told
    return all(bool(extreme.isfinite()) for extreme in wide.aminmax())


def _index_text(shards: list[_Shard], weights: Mapping[str, Path]) -> str:
    total = sum(tensor.nbytes for file in weights.values() for tensor in _open(file).values())
    weight_map = {name: shard.name for shard in shards for name in shard.tensors}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return json.dumps(index, indent=2) + "\n"


def _finish(part: Path, out: Path, shards: list[StoredFile]) -> list[StoredFile]:
    """Moves the finished folder to its place and lists it; shards were hashed when they were written."""
    (part / _PROGRESS).unlink()
    if out.exists():  # no manifest lists it, so it is the rest of an interrupted call
        shutil.rmtree(out)
    part.replace(out)
    flush_folder(out.parent)
    hashed = {file.path: file for file in shards}
    paths = sorted((path.relative_to(out).as_posix(), path) for path in out.rglob("*") if path.is_file())
    files = [hashed.get(name) or stored_file(path, name) for name, path in paths]
    return [StoredFile(f"{out.name}/{file.path}", file.size, file.sha256) for file in files]
