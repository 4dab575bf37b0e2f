"""Where `hopper_attention` serves, and how it is started.

Gluon, the language it is written in, still changes between versions of Triton: so what it computes is
compared once per width and process with plain attention, and it is used where both agree.
"""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as fn
from torch import Tensor

CAPABILITY = 9
"""Major compute capability of Hopper; no other has its matrix products."""
MAIN, KEY_ROWS = 64, 128
"""Columns of the tiles in which queries, keys and values are loaded, and rows of the last two."""
TOLERANCE = 5e-3
"""Of the comparison, relative; float16 gives 5e-4 and bfloat16 3e-3."""

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]

log = logging.getLogger("sn17.trellis.engine")


def bounded_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
    """Softmax attention in base 2 of [B, L, H, 64 or 80] to [B, L, H * D], or None where it cannot serve.

    Keys have length 1 and queries hold the scale. Heads are dense and rows lie equally far apart.
    """
    attend = _attention(q.device, q.shape[3], q.dtype) if _loadable(q, k, v) else None
    return None if attend is None else attend(q, k, v)


def _loadable(*tensors: Tensor) -> bool:
    """Whether the tensor memory accelerator can load them: addresses and rows are multiples of 16 bytes."""
    return all(
        each.data_ptr() % 16 == 0 and each.stride(1) * each.element_size() % 16 == 0 for each in tensors
    )


@cache
def _attention(device: torch.device, width: int, dtype: torch.dtype) -> Attention | None:
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] != CAPABILITY:
        return None
    return compared(lambda: _started(device, width), device, width, dtype)


def compared(
    start: Callable[[], Attention], device: torch.device, width: int, dtype: torch.dtype
) -> Attention | None:
    """What `start` gives, if it computes what plain attention does; else None, and a warning says why.

    Raises:
        torch.OutOfMemoryError: the device has no memory for the comparison.
    """
    try:
        attend = start()
        error = _error(attend, device, width, dtype)
    except torch.OutOfMemoryError:
        raise
    # Whatever a version of Triton raises: there is another kernel.
    except Exception as problem:
        said = str(problem).strip().splitlines()
        why = f"{type(problem).__name__}: {said[-1] if said else 'no message'}"
    else:
        # Not a number compares false.
        if error < TOLERANCE:
            return attend
        why = f"its relative error is {error:.3g}"
    log.warning("the attention kernel for Hopper is not used, but a slower one, since %s", why)
    return None


def _started(device: torch.device, width: int) -> Attention:
    from triton.experimental.gluon.language._layouts import NVMMASharedLayout
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    from sn17_trellis.engine.hopper_attention import GROUPS, ROWS, hopper_attention_kernel

    rest, query_rows = width - MAIN, int(ROWS.value)
    queries = query_rows * int(GROUPS.value)
    programs = torch.cuda.get_device_properties(device).multi_processor_count
    # Without a rest the second descriptor is not used.
    parts = [
        (columns, NVMMASharedLayout(swizzle_byte_width=2 * columns, element_bitwidth=16, rank=2))
        for columns in (MAIN, rest or MAIN)
    ]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        branches, tokens, heads, _ = q.shape
        out = torch.empty((branches, tokens, heads * width), dtype=q.dtype, device=device)
        query_blocks = -(-tokens // queries)
        tiles = query_blocks * branches * heads
        sources = [
            TensorDescriptor(x, [branches * tokens, heads * width], [x.stride(1), 1], [rows, columns], layout)
            for x, rows in ((q, query_rows), (k, KEY_ROWS), (v, KEY_ROWS))
            for columns, layout in parts
        ]
        hopper_attention_kernel[(min(programs, tiles),)](
            *sources, out, tokens, tiles, query_blocks, heads=heads, rest=rest, num_warps=4
        )
        return out

    return attend


def _error(attend: Attention, device: torch.device, width: int, dtype: torch.dtype) -> float:
    """Relative error for two branches of 300 tokens, which fill neither their last keys nor queries."""
    drawn = torch.randn((2, 300, 6, width), generator=torch.Generator().manual_seed(0)).to(device)
    q, k, v = drawn[:, :, :2], fn.normalize(drawn[:, :, 2:4], dim=-1), drawn[:, :, 4:]
    got = attend(*(each.to(dtype).contiguous() for each in (q, k, v)))
    q, k, v = (each.to(dtype).float().transpose(1, 2) for each in (q, k, v))
    want = fn.scaled_dot_product_attention(q, k, v, scale=math.log(2)).transpose(1, 2).flatten(2)
    return float((got.float() - want).norm() / want.norm())
