"""Where and how a model will run, decided before any weight is read: device, number format, bits, attention kernel.

The GPU memory that is needed is computed from the network's shapes and compared with what is free. A CPU is never
taken where a GPU was asked for. Non-goal: loading.
"""

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from dragonfly_cli.engine.checkpoints import Checkpoint
from dragonfly_cli.errors import DeviceError, LostDeviceError, ModelError, UsageError
from dragonfly_cli.option_values import Attention, Quant
from dragonfly_cli.store.copies import has_bitsandbytes
from dragonfly_med.device_memory import device_memory_needed
from dragonfly_med.loading import first_line, is_quantized, naming
from dragonfly_med.memory import is_of_a_gpu, is_out_of_memory
from dragonfly_med.quantization import read_config

_DEVICE = re.compile("cpu|cuda(?::([0-9]{1,3}))?")

# FlashAttention 2 needs an Ampere card or a later one.
_FLASH_CAPABILITY = (8, 0)

# Four bits cost some accuracy, so a network is only put into them where that saves something.
_WORTH_SAVING_BYTES = 10**9

MEMORY_HINT = "close other programs that use it, or use --device cpu"
_LOST_HINT = "see dragonfly doctor and nvidia-smi, then run the same command again, or use --device cpu"
_INSTALL = "run: pip install bitsandbytes, or use a checkpoint that is not quantized"
_KERNELS = {Attention.sdpa: "sdpa", Attention.eager: "eager", Attention.flash: "flash_attention_2"}


@dataclass(frozen=True)
class Placement:
    """``attention`` is transformers' name of the kernel."""

    device: torch.device
    dtype: torch.dtype
    quantized: bool
    attention: str


def place(checkpoint: Checkpoint, device: str, quant: Quant, attn: Attention) -> Placement:
    """Decides for one checkpoint; of its files only the configuration is read.

    Raises:
        UsageError: ``quant`` or ``attn`` asks for what cannot be had.
        DeviceError: there is no such device, or not enough memory is free on it.
        CheckpointError: the configuration is not that of a Dragonfly.
    """
    chosen = choose_device(device)
    attention = choose_attention(chosen, attn)
    stored = is_quantized(checkpoint.folder)
    if chosen.type != "cuda":
        return Placement(chosen, choose_dtype(chosen), _in_4_bit(checkpoint.id, stored, quant, Quant.none), attention)
    config = read_config(checkpoint.folder)
    with naming(checkpoint.folder, "the configuration cannot be used"):
        needed = {in_4_bit: device_memory_needed(config, in_4_bit) for in_4_bit in (True, False)}
    saved_bytes = needed[False] - needed[True]
    best = Quant.four_bit if saved_bytes >= _WORTH_SAVING_BYTES and has_bitsandbytes() else Quant.none
    quantized = _in_4_bit(checkpoint.id, stored, quant, best)
    check_memory(checkpoint.id, needed, quantized, chosen)
    return Placement(chosen, choose_dtype(chosen), quantized, attention)


def choose_device(device: str) -> torch.device:
    """The device that ``--device`` names."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    named = _DEVICE.fullmatch(device)
    if named is None:
        raise DeviceError(f"--device {device}: there is no such device", "give auto, cpu, cuda or cuda:N")
    if device != "cpu" and int(named[1] or 0) >= usable_gpus():
        raise DeviceError(
            f"--device {device}: no such GPU is usable (PyTorch can use {usable_gpus()})",
            "use --device cpu, or install a CUDA build of PyTorch and check nvidia-smi",
        )
    return torch.device(device)


def usable_gpus() -> int:
    """How many there are; none where PyTorch only counts them, as with a driver that is too old for it."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def choose_dtype(device: torch.device) -> torch.dtype:
    """float32 on a CPU; on a GPU bfloat16, and float16 where the card has no bfloat16 of its own."""
    if device.type == "cpu":
        return torch.float32
    with torch.cuda.device(device):
        own = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if own else torch.float16


def choose_attention(device: torch.device, wish: Attention) -> str:
    """transformers' name of the kernel; raises UsageError where FlashAttention was asked for and cannot run."""
    if wish is Attention.auto:
        wish = Attention.sdpa if _why_no_flash(device) else Attention.flash
    elif wish is Attention.flash and (why := _why_no_flash(device)):
        raise UsageError(f"--attn flash: {why}", "use --attn auto, which takes the fastest kernel that is there")
    return _KERNELS[wish]


def check_memory(model_id: str, needed: dict[bool, int], quantized: bool, device: torch.device) -> None:
    """Raises DeviceError, with the numbers and what would fit, when the GPU has not enough free memory.

    ``needed`` says how many bytes answering takes in 4 bit (True) and in full (False).
    """
    free, total = torch.cuda.mem_get_info(device)
    if needed[quantized] <= free:
        return
    raise DeviceError(
        f"model {model_id} needs {_gb(needed[quantized])} of GPU memory{' in 4 bit' if quantized else ''}, "
        f"and {_gb(free)} of {_gb(total)} are free on {device}",
        _what_would_fit(needed, quantized, free, total),
    )


@contextmanager
def device_errors(device: str, hint: str = MEMORY_HINT) -> Iterator[None]:
    """Turns a full memory into DeviceError, and what else goes wrong on a GPU into LostDeviceError."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise DeviceError(f"out of memory on {device}", hint) from error
        if is_of_a_gpu(error):
            raise LostDeviceError(f"{device} cannot go on: {first_line(error)}", _LOST_HINT) from error
        raise


def _in_4_bit(model_id: str, stored: bool, wish: Quant, best: Quant) -> bool:
    """Whether the weights will be in 4 bit; ``best`` is what ``auto`` means here."""
    if stored and wish is Quant.none:
        raise UsageError(
            f"--quant none: model {model_id} is stored in 4 bit", "leave --quant out, or give the full checkpoint"
        )
    if stored and not has_bitsandbytes():
        raise ModelError(f"model {model_id} is stored in 4 bit, and bitsandbytes is not installed", _INSTALL)
    if stored or wish is Quant.none:
        return stored
    if wish is Quant.four_bit and not has_bitsandbytes():
        raise UsageError("--quant 4bit: bitsandbytes is not installed", _INSTALL)
    return (best if wish is Quant.auto else wish) is Quant.four_bit


def _why_no_flash(device: torch.device) -> str:
    if device.type != "cuda":
        return "FlashAttention runs on NVIDIA cards only"
    if find_spec("flash_attn") is None:
        return "FlashAttention is not installed (pip install flash-attn --no-build-isolation)"
    if not _can_import_flash():
        return "the FlashAttention that is installed does not fit this PyTorch and transformers"
    if torch.cuda.get_device_capability(device) < _FLASH_CAPABILITY:
        return "FlashAttention needs an Ampere card or a later one"
    return ""


def _can_import_flash() -> bool:
    """Whether it is of a version that transformers uses, and was built for this PyTorch."""
    from transformers.utils import is_flash_attn_2_available

    try:
        importlib.import_module("flash_attn")
    except (ImportError, OSError):
        return False
    return bool(is_flash_attn_2_available())


def _what_would_fit(needed: dict[bool, int], quantized: bool, free: int, total: int) -> str:
    if not quantized and needed[True] <= free:
        return f"--quant 4bit needs {_gb(needed[True])} and would fit"
    if needed[quantized] <= total:
        return "close other programs that use the card and it would fit, or use --device cpu"
    if needed[True] <= total:
        return f"--quant 4bit needs {_gb(needed[True])}: close other programs that use the card, or use --device cpu"
    return "a smaller model or a larger card would fit; --device cpu always does, slowly"


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
