"""What a GPU spends its time on: the sum of its kernels' times, by kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

KINDS = {
    "cross-attention": ("cross_attention", "flash_fwd"),
    "self-attention": ("attention_kernel", "varlen"),
    "head norms": ("head_norm",),
    "norms and gated sums": ("norm_kernel",),
    "neighbour sums": ("sum_neighbours",),
    "matrix products": ("gemm", "nvjet", "cutlass"),
}


def kind_of(kernel: str) -> str:
    """The kind of a kernel, by its name."""
    name = kernel.lower()
    return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "other")


def kernel_seconds(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds of the GPU's kernels by kind while `work` runs, and of all of them as "sum"."""
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
        work()
        torch.cuda.synchronize()
    out: dict[str, float] = defaultdict(float)
    for event in found.key_averages():
        out[kind_of(event.key)] += event.self_device_time_total / 1e6
    return {**out, "sum": sum(out.values())}
