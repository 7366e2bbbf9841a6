"""What does not fit into memory at once is computed in parts."""

from collections.abc import Callable
from typing import TypeVar

import torch

Part = TypeVar("Part")

# A shortage is an error of its own kind where PyTorch's allocator meets it on a GPU, and else a RuntimeError: of a CPU,
# or of oneDNN, which makes its kernels when they are first needed; of a card that others fill, or of cuBLAS.
_TOLD_AS = (
    "DefaultCPUAllocator",
    "could not create a primitive",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _TOLD_AS)


def is_of_a_gpu(error: BaseException) -> bool:
    """Whether a GPU is full, or it or its driver has failed, so that nothing can be computed there any more."""
    said = isinstance(error, RuntimeError) and str(error).startswith("CUDA error")
    return said or isinstance(error, torch.OutOfMemoryError)


def in_parts(length: int, compute: Callable[[int, int], Part], most: int | None = None) -> list[Part]:
    """``[compute(0, length)]``, or where memory runs out ``compute(start, end)`` of consecutive parts.

    No part is longer than ``most``. One that does not fit is tried again at half its length, and so are those behind
    it, down to a length of one. ``compute`` may be called again for what it has begun. Raises what it raises, out of
    memory at a length of one.
    """
    parts: list[Part] = []
    start, size = 0, min(length, most or length)
    while start < length:
        end = min(start + size, length)
        try:
            parts.append(compute(start, end))
        except RuntimeError as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            size = (end - start) // 2 or 1
        else:
            start = end
    return parts
