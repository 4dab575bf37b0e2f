"""A device's pending work, its cached memory, and how libraries say that it has none left."""

from __future__ import annotations

import gc
from typing import Final

import torch

NO_MEMORY: Final = ("out of memory", "ALLOC_FAILED", "cudaErrorMemoryAllocation")
"""How torch, cuBLAS, cuDNN and the driver say that the device has no room."""


def settle(device: torch.device) -> None:
    """Wait until a GPU has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def empty_caches(device: torch.device) -> None:
    """Give back what nobody refers to any more, and what the device's allocator keeps of it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or of a library under it means that the device's memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in NO_MEMORY)
