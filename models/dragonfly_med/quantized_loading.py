"""Opening a network in 4 bit: a pre-quantized folder is read as it lies on disk, any other is quantized as it is read.

On a CPU the weights of a pre-quantized folder are mapped from its files, not copied; on a GPU every file goes there in
one transfer. As strict as any other load: every weight, nothing else, the right shapes.

Source of the serialised layout: bitsandbytes, ``QuantState.as_dict(packed=True)``; the same folders open with
transformers' own loader.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import GenerationConfig
from transformers.initialization import no_init_weights

from dragonfly_med.configuration import DragonflyConfig
from dragonfly_med.errors import CheckpointError
from dragonfly_med.loading import (
    existing_folder,
    full_tensors,
    is_quantized,
    naming,
    refuse_incomplete,
    weight_files,
    weights_alone,
)
from dragonfly_med.modeling import DragonflyForCausalLM
from dragonfly_med.quantization import (
    NF4_BLOB,
    NF4_PARTS,
    empty_network,
    nf4_settings,
    quantize,
    quantized_weights,
    quietly_import_bitsandbytes,
    tied_weights,
)

# What bitsandbytes writes: one scale for 64 weights, and one scale for 256 of those.
_BLOCK, _NESTED_BLOCK = 64, 256


def open_in_4_bit(
    folder: Path,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    attention: str | None = None,
) -> DragonflyForCausalLM:
    """The network of a checkpoint folder on ``device``; what is not 4 bit, and what is computed, has ``dtype``.

    Raises:
        CheckpointError: the folder is no complete Dragonfly checkpoint, is quantized in another way, or bitsandbytes
            is not installed.
    """
    folder = existing_folder(folder)
    _need_bitsandbytes(folder)
    with naming(folder, "the configuration cannot be read"):
        config = DragonflyConfig.from_pretrained(folder, local_files_only=True)
        stored = is_quantized(folder)
        if stored:
            _refuse_other_quantization(config.quantization_config)
        config.quantization_config = nf4_settings(dtype)
        network = empty_network(config, dtype, attention)
    linears, tied = quantized_weights(network), tied_weights(network)
    expected = _expected_shapes(network, linears)
    with no_init_weights():
        _make_room_for_4_bit(network, linears, dtype)
    with naming(folder, "the weights cannot be read"):
        tensors = _read(folder, device) if stored else _quantized(folder, linears, device)
        tensors |= {name: tensors[other] for name, other in tied.items() if other in tensors and name not in tensors}
    refuse_incomplete(folder, _differences(expected, tensors))
    with naming(folder, "the weights cannot be read"):
        _install(network, tensors, linears, dtype, torch.device(device))
    _fill_computed_buffers(network, torch.device(device))
    return _finished(network, folder)


def _need_bitsandbytes(folder: Path) -> None:
    try:
        quietly_import_bitsandbytes()
    except ImportError as error:
        raise CheckpointError(f"{folder}: 4-bit weights need bitsandbytes, which is not installed") from error


def _refuse_other_quantization(settings: Any) -> None:
    wanted = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    wanted["bnb_4bit_use_double_quant"] = True
    different = [name for name, value in wanted.items() if settings.get(name) != value]
    if different:
        raise CheckpointError(f"its quantization is not NF4 with double quantization ({', '.join(different)})")


def _expected_shapes(network: nn.Module, linears: set[str]) -> dict[str, tuple[int, ...] | None]:
    """Every tensor of a 4-bit checkpoint and its shape; ``None`` for the blob, whose length may vary."""
    shapes: dict[str, tuple[int, ...] | None] = {}
    for name, weight in network.state_dict().items():
        if name not in linears:
            shapes[name] = tuple(weight.shape)
            continue
        blocks = -(-weight.numel() // _BLOCK)
        shapes[name] = (-(-weight.numel() // 2), 1)
        shapes[f"{name}.absmax"] = (blocks,)
        shapes[f"{name}.quant_map"] = (16,)
        shapes[f"{name}.nested_absmax"] = (-(-blocks // _NESTED_BLOCK),)
        shapes[f"{name}.nested_quant_map"] = (256,)
        shapes[f"{name}.{NF4_BLOB}"] = None
    return shapes


def _make_room_for_4_bit(network: nn.Module, linears: Iterable[str], dtype: torch.dtype) -> None:
    make = quietly_import_bitsandbytes().nn.Linear4bit
    for name in linears:
        path = name.removesuffix(".weight")
        old = network.get_submodule(path)
        new = make(old.in_features, old.out_features, bias=False, compute_dtype=dtype, quant_type="nf4", device="meta")
        network.set_submodule(path, new)


def _read(folder: Path, device: torch.device | str) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for file in weight_files(folder):
        tensors |= weights_alone(load_file(file, device=str(device)))
    return tensors


def _quantized(folder: Path, linears: set[str], device: torch.device | str) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in full_tensors(folder):
        # a weight of another shape is refused later, by its name
        tensors |= quantize(name, tensor, device) if name in linears else {name: tensor}
    return tensors


def _differences(expected: dict[str, tuple[int, ...] | None], tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """In the form of transformers' loading report."""
    return {
        "missing_keys": expected.keys() - tensors.keys(),
        "unexpected_keys": tensors.keys() - expected.keys(),
        "mismatched_keys": [
            name
            for name, shape in expected.items()
            if shape is not None and name in tensors and tuple(tensors[name].shape) != shape
        ],
    }


def _install(
    network: nn.Module, tensors: dict[str, torch.Tensor], linears: set[str], dtype: torch.dtype, device: torch.device
) -> None:
    """Puts every tensor where it belongs; ``tensors`` is emptied on the way, so that nothing is held twice."""
    make = quietly_import_bitsandbytes().nn.Params4bit.from_prequantized
    for name in linears:
        module: Any = network.get_submodule(name.removesuffix(".weight"))
        parts = {part: tensors.pop(f"{name}.{part}") for part in NF4_PARTS}
        weight = make(tensors.pop(name), parts, device=device, module=module)
        _check_state(name, weight.quant_state, (module.out_features, module.in_features))
        if dtype == torch.float16:  # a card without bfloat16 must not be asked to turn weights back into it
            weight.quant_state.dtype = dtype
        module.weight = weight
    for name in list(tensors):
        path, _, leaf = name.rpartition(".")
        value = tensors.pop(name).to(device, dtype)
        network.get_submodule(path).register_parameter(leaf, nn.Parameter(value, requires_grad=False))


def _check_state(name: str, state: Any, shape: tuple[int, int]) -> None:
    """The native code trusts these numbers, so a file must not lie about them."""
    honest = (
        tuple(state.shape) == shape
        and (state.blocksize, state.state2.blocksize) == (_BLOCK, _NESTED_BLOCK)
        and state.quant_type == "nf4"
    )
    if not honest:
        raise CheckpointError(f"weight {name} has another shape, or blocks of another size")


def _fill_computed_buffers(network: DragonflyForCausalLM, device: torch.device) -> None:
    """The two things that are in no file: Llama's rotation frequencies and the numbers of CLIP's positions."""
    llama = network.language_model.model
    embeddings = network.image_encoder.vision_model.embeddings
    with device:
        llama.rotary_emb = type(llama.rotary_emb)(network.config.text_config)
        embeddings.position_ids = torch.arange(embeddings.num_positions).expand((1, -1))


def _finished(network: DragonflyForCausalLM, folder: Path) -> DragonflyForCausalLM:
    if (folder / "generation_config.json").is_file():
        with naming(folder, "generation_config.json cannot be read"):
            network.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    network.stop_where_the_reference_stops()
    network.is_loaded_in_4bit = True  # what peft and transformers ask for
    return network.eval()
