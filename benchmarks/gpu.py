"""What a card does with the full-size networks: load, 4-bit products, memory, encode, prefill and decode, as JSON.

    python benchmarks/gpu.py [--output gpu.json] [--networks v1 v2] [--tokens 128] [--rehearse]

Weights are random, so that no checkpoint is needed: speed and memory do not depend on their values. Each network is
written to a temporary folder in 4 bit (6 GB) and opened as any checkpoint is. Without a GPU it says so and exits with
0; ``--rehearse`` takes the same steps with a tiny network on the CPU, to see that they work.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]  # measure this checkout, whatever is installed

ENCODERS = {"v1": "openai/clip-vit-base-patch32", "v2": "openai/clip-vit-large-patch14-336"}
TINY_TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY_TEXT |= {"num_key_value_heads": 2, "vocab_size": 600, "bos_token_id": 500, "eos_token_id": 501}
TINY_VISION = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}

CROPS = {"v1": 29, "v2": 41}  # that are encoded
QUESTION_TOKENS = 64
ROWS_OF_A_PRODUCT = (1, 8, 32, 256, 2048)
WARM_UPS, ROUNDS = 2, 5


def make_config(version: str, tiny: bool) -> Any:
    from dragonfly_med import DragonflyConfig

    config = DragonflyConfig(image_encoder=ENCODERS[version])
    if not tiny:
        return config
    vision = config.vision_config.to_dict() | TINY_VISION
    return DragonflyConfig(text_config=TINY_TEXT, vision_config=vision, image_encoder=ENCODERS[version])


def write_random(config: Any, folder: Path, device: Any) -> None:
    """A 4-bit checkpoint of random weights, made on the card tensor by tensor."""
    import torch

    from dragonfly_med.quantization import ShardWriter, empty_network, nf4_settings, quantize, quantized_weights

    network = empty_network(config)
    linears = quantized_weights(network)
    writer = ShardWriter(folder)
    for name, weight in network.state_dict().items():
        if weight.ndim > 1:
            made = torch.randn(weight.shape, device=device, dtype=torch.bfloat16) * 0.02
        else:
            made = torch.full(weight.shape, float("norm" in name and name.endswith("weight")), dtype=torch.bfloat16)
        writer.add(quantize(name, made, device) if name in linears else {name: made})
    writer.close()
    settings = config.to_dict() | {"quantization_config": nf4_settings(torch.bfloat16).to_dict()}
    (folder / "config.json").write_text(json.dumps(settings))


def make_inputs(config: Any, device: Any) -> dict[str, Any]:
    """A prompt as the processor makes it: the image block, then text."""
    import torch

    version = config.architecture.removeprefix("dragonfly-")
    tokens = config.patch_grid**2 + 1
    lengths = [tokens] * 17 if version == "v1" else [tokens] + [37] * 40
    ids: list[int] = []
    for length in lengths:
        ids += [config.image_token_id] * length + [config.image_newline_token_id]
    ids += [17] * QUESTION_TOKENS
    side = config.crop_side_px
    return {
        "input_ids": torch.tensor([ids], device=device),
        "pixel_values": torch.randn(1, CROPS[version], 3, side, side, device=device),
    }


def seconds(work: Callable[[], Any], device: Any, warm_ups: int = WARM_UPS, rounds: int = ROUNDS) -> float:
    """The fastest of some rounds."""
    times = []
    for number in range(warm_ups + rounds):
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        if number >= warm_ups:
            times.append(time.perf_counter() - started)
    return min(times)


def synchronize(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def products(device: Any, dtype: Any, width: int, out: int) -> list[dict[str, float]]:
    """A 4-bit layer beside the same layer in full, for one row (decoding) to many (prefill)."""
    import torch

    from dragonfly_med.quantization import quietly_import_bitsandbytes

    bitsandbytes = quietly_import_bitsandbytes()
    full = torch.nn.Linear(width, out, bias=False).to(device, dtype)
    small = bitsandbytes.nn.Linear4bit(width, out, bias=False, compute_dtype=dtype, quant_type="nf4")
    small.weight.data.copy_(full.weight.detach().cpu())
    small = small.to(dtype).to(device).eval()
    found = []
    for rows in ROWS_OF_A_PRODUCT:
        values = torch.randn(rows, width, device=device, dtype=dtype)
        times = [seconds(partial(layer, values), device) for layer in (small, full)]
        error = (small(values) - full(values)).float().norm() / full(values).float().norm()
        found.append({"rows": rows, "nf4_ms": times[0] * 1e3, "full_ms": times[1] * 1e3, "error": float(error)})
    return found


def examine_network(version: str, device: Any, dtype: Any, tokens: int, tiny: bool) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    from dragonfly_cli.engine.placement import choose_attention
    from dragonfly_cli.option_values import Attention
    from dragonfly_med.device_memory import device_memory_needed
    from dragonfly_med.loading import weight_files
    from dragonfly_med.quantized_loading import open_in_4_bit

    config = make_config(version, tiny)
    kernel = choose_attention(device, Attention.auto)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        write_random(config, folder, device)
        files = weight_files(folder)
        size = sum(file.stat().st_size for file in files)
        plain_s = seconds(lambda: [load_file(file, device=str(device)) for file in files], device, 1, 1)
        reset_memory(device)
        started = time.perf_counter()
        network = open_in_4_bit(folder, dtype, device, kernel)
        synchronize(device)
        load_s = time.perf_counter() - started
    found = {"file_bytes": size, "attention": kernel, "load_s": load_s, "load_file_s": plain_s}
    found["load_peak_bytes"] = peak_memory(device)
    reset_memory(device)
    with torch.inference_mode():
        found |= speeds(network, make_inputs(network.config, device), device, tokens)
    found["answer_peak_bytes"] = peak_memory(device)
    found["predicted_bytes"] = device_memory_needed(config, quantized=True)
    return found


class Endless:
    """A grammar without an end: random weights may choose to stop anywhere, also before the first token."""

    def __init__(self, stop: list[int]) -> None:
        self._stop = stop

    def restrict(self, logits: Any) -> Any:
        logits[self._stop] = float("-inf")
        return logits

    def accept(self, token: int) -> None:
        pass


def speeds(network: Any, inputs: dict[str, Any], device: Any, tokens: int) -> dict[str, Any]:
    from dragonfly_med.generation import Reading, Sampling, decode

    text = inputs["input_ids"][0, -QUESTION_TOKENS:].tolist()
    image = inputs["input_ids"][0, :-QUESTION_TOKENS].tolist()

    def read() -> Reading:
        reading = Reading(network, image, inputs["pixel_values"][0])
        reading.logits(text)
        return reading

    encode_s = seconds(lambda: network.embed_images(inputs["pixel_values"]), device)
    prefill_s = seconds(read, device)
    endless = Endless(network.config.stop_token_ids)
    list(decode(read(), text, Sampling(max_new_tokens=4), endless))
    reading = read()
    synchronize(device)
    started = time.perf_counter()
    made = len(list(decode(reading, text, Sampling(max_new_tokens=tokens), endless)))
    synchronize(device)
    decode_s = time.perf_counter() - started
    length = inputs["input_ids"].shape[1]
    return {
        "prompt_tokens": length,
        "encode_ms": encode_s * 1e3,
        "encode_and_prefill_ms": prefill_s * 1e3,
        "decoded_tokens": made,
        "decode_tokens_per_s": (made - 1) / decode_s,  # the first comes from the prefill
    }


def reset_memory(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: Any) -> int | None:
    import torch

    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--networks", nargs="+", choices=("v1", "v2"), default=["v1", "v2"])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rehearse", action="store_true", help="a tiny network on the CPU")
    options = parser.parse_args()
    import torch

    if not torch.cuda.is_available() and not options.rehearse:
        print("there is no GPU that PyTorch can use: nothing was measured (--rehearse runs the steps on the CPU)")
        return
    from dragonfly_cli.engine.placement import choose_dtype

    device = torch.device("cpu" if options.rehearse else "cuda")
    dtype = choose_dtype(device)
    name = "cpu, rehearsal with a tiny network" if options.rehearse else torch.cuda.get_device_name(device)
    report: dict[str, Any] = {"device": name, "torch": torch.__version__, "dtype": str(dtype)}
    width, out = (64, 128) if options.rehearse else (4096, 14336)
    with torch.inference_mode():
        report["products"] = products(device, dtype, width, out)
    report["networks"] = {
        version: examine_network(version, device, dtype, options.tokens, options.rehearse)
        for version in options.networks
    }
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
