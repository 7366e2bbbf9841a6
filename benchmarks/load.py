"""How fast a pre-quantized checkpoint is opened: ours beside ``safetensors.torch.load_file`` and transformers.

    python benchmarks/load.py [--megabytes 64] [--rounds 5] [--skip-transformers]

Writes a synthetic network (random weights, layers of one width repeated) to a temporary folder in bfloat16 and in
4 bit, then opens it in processes of their own: ours from the 4-bit files; ``load_file`` of the same files; and
transformers, which quantizes the bfloat16 files at load. Each time every page of the result is read once, so that a
mapped file counts as what it is. Cold means that the files were dropped from the page cache first, warm that they
were not. Imports are not counted; memory is the peak above what the process held after them.

Targets: at most 1.2 times load_file's time (cold, at 1000 MB) and 1.2 times the files' size in memory, and at least
4 times faster than transformers' quantizing. ``--megabytes 1000`` writes 4.5 GB and takes minutes.
"""

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]  # measure this checkout, whatever is installed

PAGE_BYTES = 4096
NF4_BYTES = 0.516
WIDE_FROM_MEGABYTES = 500
# (width, inner width, heads, key-value heads) of a layer: a small one, and the published networks'
SHAPES = {False: (1024, 4096, 8, 4), True: (4096, 14336, 32, 8)}


def make_config(megabytes: int) -> Any:
    """A network whose 4-bit layers have about that many bytes."""
    from dragonfly_med import DragonflyConfig

    width, inner, heads, kv_heads = SHAPES[megabytes >= WIDE_FROM_MEGABYTES]
    layer = 2 * width * width + 2 * width * (width // heads) * kv_heads + 3 * width * inner
    text = {"hidden_size": width, "intermediate_size": inner, "num_attention_heads": heads, "vocab_size": 1024}
    text |= {"num_key_value_heads": kv_heads, "num_hidden_layers": max(1, round(megabytes * 1e6 / NF4_BYTES / layer))}
    vision = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 3}
    vision |= {"image_size": 224, "patch_size": 32}
    config = DragonflyConfig(text_config=text | {"bos_token_id": 768, "eos_token_id": 769}, vision_config=vision)
    config.architectures = ["DragonflyForCausalLM"]
    return config


def write_both(megabytes: int, full: Path, small: Path) -> None:
    """The same weights in bfloat16 and in 4 bit, a file per layer; every layer has the weights of the first."""
    import torch

    from dragonfly_med.quantization import empty_network, nf4_settings, quantize, quantized_weights

    config = make_config(megabytes)
    network = empty_network(config)
    linears = quantized_weights(network)
    random = torch.Generator().manual_seed(0)
    by_file: dict[str, list[str]] = {}
    for name in network.state_dict():
        _, inside, rest = name.partition("language_model.model.layers.")
        by_file.setdefault(f"layer-{rest.split('.')[0]}" if inside else "rest", []).append(name)
    made: dict[str, dict[str, torch.Tensor]] = {}
    for names in by_file.values():
        for name in names:
            kind = _without_number(name)
            if kind not in made:
                shape = network.get_parameter(name).shape
                weight = (torch.randn(shape, generator=random) * 0.02).bfloat16()
                made[kind] = quantize("", weight, "cpu") if name in linears else {"": weight}
                made[kind] |= {"full": weight}
    for folder in (full, small):
        _write(folder, by_file, made, full=folder is full)
        settings = config.to_dict()
        if folder is small:
            settings["quantization_config"] = nf4_settings(torch.bfloat16).to_dict()
        (folder / "config.json").write_text(json.dumps(settings))


def _without_number(name: str) -> str:
    return ".".join("*" if part.isdigit() and "language_model" in name else part for part in name.split("."))


def _write(folder: Path, by_file: dict[str, list[str]], made: dict[str, dict[str, Any]], full: bool) -> None:
    from safetensors.torch import save_file

    folder.mkdir()
    places: dict[str, str] = {}
    for file, names in by_file.items():
        tensors = {
            f"{name}{'' if part == 'full' else part}": tensor
            for name in names
            for part, tensor in made[_without_number(name)].items()
            if (part == "full") == full
        }
        save_file(tensors, folder / f"{file}.safetensors", metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, f"{file}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def ours(folder: Path) -> list[Any]:
    from dragonfly_med.quantized_loading import open_in_4_bit

    return list(open_in_4_bit(folder).state_dict().values())


def plain(folder: Path) -> list[Any]:
    from safetensors.torch import load_file

    return [tensor for file in sorted(folder.glob("*.safetensors")) for tensor in load_file(file).values()]


def by_transformers(folder: Path) -> list[Any]:
    import torch
    from transformers import PreTrainedModel

    from dragonfly_med import DragonflyForCausalLM
    from dragonfly_med.quantization import nf4_settings

    load = PreTrainedModel.from_pretrained.__func__
    settings = nf4_settings(torch.bfloat16)
    network = load(DragonflyForCausalLM, folder, dtype=torch.bfloat16, quantization_config=settings)
    return list(network.state_dict().values())


# What is measured: a folder to tensors that can be read.
WAYS: dict[str, Callable[[Path], list[Any]]] = {"ours": ours, "load_file": plain, "transformers": by_transformers}


def touch(tensors: list[Any]) -> int:
    """Reads a byte of every page."""
    import torch

    return sum(int(t.reshape(-1).view(torch.uint8)[::PAGE_BYTES].sum()) for t in tensors if t.numel())


def measure(way: str, folder: Path, rounds: int) -> dict[str, Any]:
    """In this process: seconds cold and warm, and bytes of memory above what was held after the imports."""
    load = WAYS[way]
    touch(load(folder))  # imports what is imported late
    held = start_peak()
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    for _ in range(rounds):
        for kind, times in seconds.items():
            gc.collect()  # a network refers to itself, and what is still mapped cannot be forgotten
            if kind == "cold":
                forget(folder)
            started = time.perf_counter()
            touch(load(folder))
            times.append(time.perf_counter() - started)
    return {kind: statistics.median(times) for kind, times in seconds.items()} | {"peak": peak() - held}


def start_peak() -> int:
    """Bytes held now, from which the peak is counted on Linux; elsewhere the peak of all that was."""
    gc.collect()
    resettable = Path("/proc/self/clear_refs")
    if resettable.exists():
        resettable.write_text("5")
    return peak()


def peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget(folder: Path) -> None:
    """Drops the files from the page cache, where the platform lets a program do that."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in folder.glob("*.safetensors"):
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def in_own_process(way: str, folder: Path, rounds: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", way, "--folder", str(folder), "--rounds", str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(megabytes: int, rounds: int, with_transformers: bool) -> None:
    with tempfile.TemporaryDirectory() as parent:
        full, small = Path(parent) / "full", Path(parent) / "small"
        write_both(megabytes, full, small)
        size = sum(file.stat().st_size for file in small.glob("*.safetensors"))
        mine, bare = (in_own_process(way, small, rounds) for way in ("ours", "load_file"))
        print(f"{size / 1e6:.0f} MB in 4 bit")
        for kind in ("cold", "warm"):
            ratio = mine[kind] / bare[kind]
            print(f"{kind}: ours {mine[kind]:.3f} s, load_file {bare[kind]:.3f} s: ratio {ratio:.2f}")
        print(f"memory: ours {mine['peak'] / size:.2f}, load_file {bare['peak'] / size:.2f} times the files' size")
        if not with_transformers or find_spec("accelerate") is None:
            print("transformers: not measured" + (", it needs accelerate (test extra)" if with_transformers else ""))
            return
        slow = in_own_process("transformers", full, 1)
        print(f"transformers quantizing at load: {slow['warm']:.2f} s, {slow['warm'] / mine['warm']:.1f} times ours")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip-transformers", action="store_true", help="its quantizing is slow on a CPU")
    parser.add_argument("--measure", choices=tuple(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.folder, options.rounds)))
    else:
        compare(options.megabytes, options.rounds, not options.skip_transformers)


if __name__ == "__main__":
    main()
