"""Tensors of a safetensors file on their way to a device; the host holds a few of them at a time."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

STORED = {"F16": torch.float16, "F32": torch.float32, "BF16": torch.bfloat16}

READERS = 4
"""Threads that read a file on its way to a GPU: one alone keeps neither disk nor bus busy."""

STAGING_BYTES = 16 * 1024**2
"""Pinned memory of one reader."""

Reader = Callable[[Path, list[str]], dict[str, Tensor]]
"""The named tensors of a complete file (`checkpoint.verify`), placed."""


def onto(device: torch.device, dtype: torch.dtype | None) -> Reader:
    """Copies to a device; `dtype` None keeps each tensor's stored dtype."""
    if device.type == "cuda":
        return lambda path, keys: _through_pinned_memory(path, keys, device, dtype)

    def place(tensor: Tensor) -> Tensor:
        # A tensor of the mapped file would keep the file mapped.
        kept = tensor.to(device=device, dtype=dtype)
        return kept.clone() if kept is tensor else kept

    return through(place)


def through(place: Callable[[Tensor], Tensor]) -> Reader:
    """Gives `place` one mapped tensor after the other; what it returns must not share the tensor's memory."""

    def read(path: Path, keys: list[str]) -> dict[str, Tensor]:
        with safe_open(path, framework="pt", device="cpu") as handle:
            return {key: place(handle.get_tensor(key)) for key in keys}

    return read


def _through_pinned_memory(
    path: Path, keys: list[str], device: torch.device, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """Reads into memory that the GPU copies from by itself: no page of the file is ever mapped."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        own = threading.local()

        def move(key: str) -> Tensor:
            described = header[key]
            begin, end = (8 + length + offset for offset in described["data_offsets"])
            if not hasattr(own, "staging"):
                own.staging = torch.empty(STAGING_BYTES, dtype=torch.uint8, pin_memory=True)
            out = torch.empty(described["shape"], dtype=STORED[described["dtype"]], device=device)
            flat = out.flatten().view(torch.uint8)
            for place in range(begin, end, STAGING_BYTES):
                part = own.staging[: min(STAGING_BYTES, end - place)]
                _read_exactly(file.fileno(), memoryview(part.numpy()), place)
                flat[place - begin :][: len(part)].copy_(part)
                os.posix_fadvise(file.fileno(), place, len(part), os.POSIX_FADV_DONTNEED)
            return out if dtype is None else out.to(dtype)

        with ThreadPoolExecutor(READERS) as readers:
            return dict(zip(keys, readers.map(move, keys), strict=True))


def _read_exactly(descriptor: int, into: memoryview, place: int) -> None:
    while into:
        count = os.preadv(descriptor, [into], place)
        if not count:
            raise OSError("the file ended early")
        into, place = into[count:], place + count
