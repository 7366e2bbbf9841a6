"""The GPU, its driver, 4-bit arithmetic and SDPA attention, each tried and not only looked up."""

import shutil
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dragonfly_cli.doctor.finding import DoctorSettings, Finding, ok, problem, warning
from dragonfly_cli.errors import DragonflyError

if TYPE_CHECKING:
    import torch

# bfloat16 has 8 bits of precision; a product over a thousand terms in another order differs by far less than this.
_LARGEST_ERROR = 1e-2

_ROWS, _WIDTH, _OUT = 16, 1024, 512


def gpu(settings: DoctorSettings) -> Iterator[Finding]:
    import torch

    try:
        device = _device(settings)
    except DragonflyError as error:
        yield problem("gpu", error.message, error.hint)
        return
    if device.type == "cuda":
        yield _card(device)
    elif torch.cuda.is_available():
        yield ok("gpu", "there is one; --device cpu leaves it alone")
    else:
        yield _no_card(torch.version.cuda or torch.version.hip)


def four_bit(settings: DoctorSettings) -> Iterator[Finding]:
    """A product with a 4-bit weight, and the same product with that weight turned back into numbers."""
    name = "4 bit"
    remedy = "run: pip install --upgrade bitsandbytes; until then use --quant none"
    try:
        device = _device(settings)
    except DragonflyError:
        return  # told with the GPU
    try:
        error = _error_of_a_product(device)
    except (ImportError, RuntimeError, OSError, AttributeError, NotImplementedError) as trouble:
        if isinstance(trouble, ModuleNotFoundError) and trouble.name == "bitsandbytes":
            yield warning(name, "bitsandbytes is not installed", "run: pip install bitsandbytes")
        else:
            yield problem(name, f"bitsandbytes does not work here: {trouble}", remedy)
        return
    if error <= _LARGEST_ERROR:
        yield ok(name, f"a product on {device} differs from its dequantized result by {error:.1e}")
    else:
        yield problem(name, f"a product on {device} differs from its dequantized result by {error:.1e}", remedy)


def attention(settings: DoctorSettings) -> Iterator[Finding]:
    """The kernel that ``--attn`` comes to here; SDPA, the one for every card, is compared with the plain formula."""
    from dragonfly_cli.engine.placement import choose_attention, choose_dtype

    try:
        device = _device(settings)
    except DragonflyError:
        return  # told with the GPU
    try:
        kernel = choose_attention(device, settings.attn)
    except DragonflyError as error:
        yield problem("attention", error.message, error.hint)
        return
    error_of_sdpa = _error_of_attention(device, choose_dtype(device))
    if error_of_sdpa <= _LARGEST_ERROR:
        yield ok("attention", f"{kernel} on {device}; SDPA differs from the plain formula by {error_of_sdpa:.1e}")
    else:
        yield problem(
            "attention", f"SDPA on {device} differs from the plain formula by {error_of_sdpa:.1e}", "use --attn eager"
        )


def _device(settings: DoctorSettings) -> "torch.device":
    from dragonfly_cli.engine.placement import choose_device

    return choose_device(settings.device)


def _card(device: "torch.device") -> Finding:
    import torch

    facts = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    return ok(
        "gpu",
        f"{facts.name}, compute capability {facts.major}.{facts.minor}, {free / 1e9:.1f} GB of {total / 1e9:.1f} GB "
        f"free, driver {_driver() or 'unknown'}, CUDA {torch.version.cuda or torch.version.hip}",
    )


def _no_card(cuda_of_torch: str | None) -> Finding:
    driver = _driver()
    if driver and cuda_of_torch is None:
        return warning(
            "gpu",
            f"PyTorch has no CUDA, but a card with driver {driver} is there",
            "install a CUDA build of PyTorch: https://pytorch.org/get-started/locally",
        )
    if driver:
        return warning(
            "gpu",
            f"driver {driver} is there, but PyTorch (CUDA {cuda_of_torch}) cannot use the card",
            "update the driver, and see that CUDA_VISIBLE_DEVICES does not hide the card",
        )
    return warning(
        "gpu", "none: answers are computed on the CPU", "use a machine with an NVIDIA card for the published models"
    )


def _driver() -> str | None:
    """The driver's version by ``nvidia-smi``; ``None`` where that is not there or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None


def _error_of_a_product(device: "torch.device") -> float:
    """Relative, of a bitsandbytes layer against its own dequantized weight."""
    import torch

    from dragonfly_cli.engine.placement import choose_dtype
    from dragonfly_med.quantization import quietly_import_bitsandbytes

    bitsandbytes = quietly_import_bitsandbytes()
    random = torch.Generator().manual_seed(0)
    dtype = choose_dtype(device)
    with torch.inference_mode():
        layer = bitsandbytes.nn.Linear4bit(_WIDTH, _OUT, bias=False, compute_dtype=dtype, quant_type="nf4")
        layer.weight.data.copy_(torch.randn(_OUT, _WIDTH, generator=random))
        layer = layer.to(dtype).to(device).eval()
        rows = torch.randn(_ROWS, _WIDTH, generator=random).to(device, dtype)
        # before the first product, which may repack the weight
        weight = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state, quant_type="nf4")
        expected = rows.float() @ weight.reshape(_OUT, _WIDTH).float().T
        return float((layer(rows).float() - expected).norm() / expected.norm())


def _error_of_attention(device: "torch.device", dtype: "torch.dtype") -> float:
    import torch

    random = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        query, key, value = (torch.randn(1, 4, 64, 32, generator=random).to(device, dtype) for _ in range(3))
        got = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        scores = query.float() @ key.float().mT / query.shape[-1] ** 0.5
        expected = scores.softmax(-1) @ value.float()
        return float((got.float() - expected).norm() / expected.norm())
