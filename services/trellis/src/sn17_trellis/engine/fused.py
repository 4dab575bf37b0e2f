"""Fused operations of the fast path, each with a plain form for devices without these kernels.

What torch does well stays with torch: matrix products (with GELU applied before the result is written) and
attention. The norms around them, which a plain transformer block spends a third of its time on, run in the
kernels of `triton_kernels.py`.
"""

from __future__ import annotations

import os
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as fn
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn

from sn17_trellis.engine import hopper

EPS = 1e-6
WIDTHS = {64: (64, 0), 80: (64, 16)}
"""Widths of heads that our attention takes, as powers of two: those of the released models."""
QUERY_BLOCK, KEY_BLOCK = 128, 64
REGISTERS = 128
"""Of a thread at most: with more the second block of queries has no room beside the first."""
FEW_KEYS, FEW_QUERIES = 128, 64
"""Keys that cross-attention takes at once, and how many queries it takes of them."""
LARGEST_BOUND = 24.0
"""Of a logit in base 2, for the attention that needs no maximum: a query whose largest logit is 28 below its
bound loses accuracy, and none can be further below than twice the bound."""
LOG2_E = 1.4426950408889634
_HALF = (torch.float16, torch.bfloat16)


@cache
def _triton() -> ModuleType | None:
    try:
        from sn17_trellis.engine import triton_kernels
    except ImportError:
        return None
    return triton_kernels


@cache
def _attention_kernel() -> Any:
    try:
        from sn17_trellis.engine.triton_attention import attention_kernel
    except ImportError:
        return None
    return attention_kernel


@cache
def _cross_kernel() -> Any:
    try:
        from sn17_trellis.engine.triton_cross import cross_attention_kernel
    except ImportError:
        return None
    return cross_attention_kernel


def _rows_regular(*tensors: Tensor) -> bool:
    """Whether [B, L, H, D] have dense heads, and rows that lie equally far apart through all branches."""
    return all(
        x.stride(3) == 1
        and x.stride(2) == x.shape[3]
        and (x.shape[0] == 1 or x.stride(0) == x.shape[1] * x.stride(1))
        for x in tensors
    )


def _kernels(x: Tensor) -> ModuleType | None:
    """The kernels, where they serve this tensor."""
    return _triton() if x.is_cuda and x.dtype in _HALF and x.is_contiguous() else None


def growing_segments() -> None:
    """Have the allocator extend the memory it holds instead of taking another piece for each larger object.

    From the first allocation of the process on. Without it 40 objects of mixed sizes took 6.8 GiB where the
    largest alone needs 4.4 (H200, latent flow of text-xlarge), more after every clean-up.
    """
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        os.environ.setdefault(name, "expandable_segments:True")


def without_workspace() -> None:
    """Have matrix products use no scratch memory, from the first one of the process on.

    Those that use some clear it each time, hundreds of times a step. The others are as fast, and a job on an
    H100 is 1 % shorter.
    """
    os.environ.setdefault("CUBLASLT_WORKSPACE_SIZE", "0")


def _block(width: int) -> int:
    return int(1 << max(5, (width - 1).bit_length()))


def residual_norm(
    x: Tensor,
    y: Tensor | None,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    *,
    modulate: bool,
    silu: bool = False,
) -> tuple[Tensor, Tensor]:
    """(x + gate * y, its norm) for tokens [..., C].

    The norm is followed by * weight + bias, or by * (1 + weight) + bias where `modulate`, and by SiLU where
    asked. Sums and norm are in float32, each result is rounded once. Without y the first result is x itself.
    """
    kernels = _kernels(x)
    if kernels is None:
        if y is not None:
            x = x + (y if gate is None else gate * y)
        h = fn.layer_norm(x.float(), x.shape[-1:], eps=EPS)
        h = h * (weight.float() + (1 if modulate else 0)) + bias.float()
        return x, (fn.silu(h) if silu else h).to(x.dtype)
    width = x.shape[-1]
    h, total = torch.empty_like(x), x if y is None else torch.empty_like(x)
    kernels.norm_kernel[(x.numel() // width,)](
        x,
        x if y is None else y,
        x if gate is None else gate,
        weight,
        bias,
        total,
        h,
        width,
        EPS,
        residual=y is not None,
        gated=gate is not None,
        mode="modulate" if modulate else "affine",
        silu=silu,
        block=_block(width),
        num_warps=4,
    )
    return total, h


def head_norm(x: Tensor, gamma: Tensor) -> Tensor:
    """L2 norm of each vector of x [B, L, V, D] times gamma [V, D] and sqrt(D); x may be a slice of V."""
    vectors, width = gamma.shape
    kernels = _triton() if x.is_cuda and x.dtype in _HALF else None
    rows_regular = x.stride(3) == 1 and x.stride(2) == width and x.stride(0) == x.shape[1] * x.stride(1)
    if kernels is None or not rows_regular:
        out: Tensor = fn.normalize(x.float(), dim=-1) * gamma * float(width**0.5)
        return out.to(x.dtype)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    main = 1 << (width.bit_length() - 1)
    kernels.head_norm_kernel[(x.shape[0] * x.shape[1],)](
        x,
        gamma,
        out,
        x.stride(1),
        float(width**0.5),
        vectors=vectors,
        width=width,
        vector_block=_block(vectors),
        main=main,
        rest=1 << max(4, (width - main - 1).bit_length()),
        num_warps=4,
    )
    return out


def bounded_gammas(gammas: Tensor) -> Tensor | None:
    """Gains [2 H, D] of queries and keys for `bounded_attention`, or None where they are too large for it.

    Queries get the product of both, the softmax's scale and log2(e), keys a length of 1: so no logit is
    larger than its query is long.
    """
    width = gammas.shape[1]
    of_queries, of_keys = gammas.float().chunk(2)
    gain = of_queries * of_keys * LOG2_E
    if float(gain.abs().max()) * width**0.5 > LARGEST_BOUND:
        return None
    # Norms of heads multiply by the square root of the width.
    return torch.cat([gain, torch.full_like(gain, width**-0.5)])


def bounded_attention(q: Tensor, k: Tensor, v: Tensor, *, on_hopper: bool = True) -> Tensor:
    """`self_attention` of queries and keys that were normed with `bounded_gammas`.

    `on_hopper`: by the kernel for Hopper GPUs, where it serves.
    """
    out = None
    served = q.is_cuda and q.dtype in _HALF and q.shape[-1] in WIDTHS
    if on_hopper and served and _rows_regular(q, k, v):
        out = hopper.bounded_attention(q, k, v)
    if out is None:
        out = _own_attention(q, k, v, 1.0, bounded=True)
    return few_keys_attention(q, k, v, 1 / LOG2_E) if out is None else out


def self_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of [B, L, H, D] to [B, L, H * D], L the same for all three.

    Rows may lie apart, as slices of one product do.
    """
    out = _own_attention(q, k, v, float(q.shape[-1] ** -0.5) * LOG2_E, bounded=False)
    return few_keys_attention(q, k, v) if out is None else out


def _own_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, *, bounded: bool) -> Tensor | None:
    """By our kernel, where it serves these tensors; `scale` in base 2."""
    width = q.shape[-1]
    parts = WIDTHS.get(width)
    kernel = _attention_kernel() if q.is_cuda and q.dtype in _HALF and parts else None
    if kernel is None or parts is None or not _rows_regular(q, k, v):
        return None
    batch, tokens, heads, _ = q.shape
    out = torch.empty((batch, tokens, heads * width), dtype=q.dtype, device=q.device)
    kernel[(-(-tokens // QUERY_BLOCK), batch * heads)](
        q,
        k,
        v,
        out,
        q.stride(1),
        k.stride(1),
        v.stride(1),
        tokens,
        scale,
        heads=heads,
        main=parts[0],
        rest=parts[1],
        query_block=QUERY_BLOCK,
        key_block=KEY_BLOCK,
        bounded=bounded,
        num_warps=8,
        num_stages=3,
        maxnreg=REGISTERS,
    )
    return out


def cross_attention(q: Tensor, k: Tensor, v: Tensor, gamma: Tensor | None) -> Tensor:
    """Softmax attention of queries [B or 1, L, H, D] to keys and values [B, M, H, D]: [B, L, H * D].

    Queries are first normed with `gamma` [H, D], if there is one; one query for all branches is not copied.
    """
    width, branches = q.shape[-1], len(k)
    parts = WIDTHS.get(width)
    served = q.is_cuda and q.dtype in _HALF and parts and k.shape[1] <= FEW_KEYS
    kernel = _cross_kernel() if served else None
    if kernel is None or parts is None or not all(each.is_contiguous() for each in (q, k, v)):
        q = q if gamma is None else head_norm(q, gamma)
        return few_keys_attention(q.expand(branches, -1, -1, -1), k, v)
    _, tokens, heads, _ = q.shape
    out = torch.empty((branches, tokens, heads * width), dtype=q.dtype, device=q.device)
    kernel[(-(-tokens // FEW_QUERIES), branches * heads)](
        q,
        k,
        v,
        q if gamma is None else gamma,
        out,
        0 if len(q) < branches else q.stride(0),
        tokens,
        k.shape[1],
        float(width**-0.5) * LOG2_E,
        heads=heads,
        main=parts[0],
        rest=parts[1],
        query_block=FEW_QUERIES,
        key_block=FEW_KEYS,
        normed=gamma is not None,
        num_warps=4,
        num_stages=2,
    )
    return out


def few_keys_attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """The same for any number of keys, by flash attention; `scale` None: one by the square root of D."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if q.is_cuda and q.dtype in _HALF and q.shape[-1] % 8 == 0:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            out = fn.scaled_dot_product_attention(q, k, v, scale=scale)
    else:
        out = fn.scaled_dot_product_attention(q, k, v, scale=scale)
    return out.transpose(1, 2).flatten(2)


def window_attention(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, longest: int) -> Tensor:
    """Softmax attention within windows, [N, H, D] to [N, H * D].

    Window w holds the tokens `offsets[w]` to `offsets[w + 1]` (int32), at most `longest` of them.
    """
    if q.is_cuda and q.dtype in _HALF:
        out = varlen_attn(q, k, v, offsets, offsets, longest, longest)
        assert isinstance(out, Tensor)
        return out.flatten(1)
    q, k, v = q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)
    parts = [
        fn.scaled_dot_product_attention(q[:, start:stop], k[:, start:stop], v[:, start:stop])
        for start, stop in pairwise(offsets.tolist())
    ]
    return torch.cat(parts, dim=1).transpose(0, 1).flatten(1)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """tanh-GELU of a linear layer; on a GPU the matrix product applies it before writing its result."""
    if x.is_cuda:
        out: Tensor = torch._addmm_activation(bias, x.flatten(0, -2), weight.t(), use_gelu=True)
        return out.view(*x.shape[:-1], -1)
    return fn.gelu(fn.linear(x, weight, bias), approximate="tanh")


def sum_neighbours(products: Tensor, slots: Tensor, bias: Tensor) -> Tensor:
    """out[b, n] = bias + the sum over taps of products[b, slots[n, tap]].

    products [B, R, out]; slots int32 [N, 27], -1 where a voxel has no such neighbour. Sums in float32.
    """
    batch, rows, width = products.shape[0], slots.shape[0], products.shape[2]
    kernels = _kernels(products)
    if kernels is None:
        total = bias.float().expand(batch, rows, -1)
        for slot in slots.unbind(1):
            part = products[:, slot.clamp(min=0)].float()
            total = total + torch.where((slot >= 0)[:, None], part, 0.0)
        return total.to(products.dtype)
    out = torch.empty((batch, rows, width), dtype=products.dtype, device=products.device)
    row_block, column_block = 8, min(256, _block(width))
    grid = (-(-rows // row_block), -(-width // column_block), batch)
    kernels.sum_neighbours_kernel[grid](
        products,
        slots,
        bias,
        out,
        rows,
        products.shape[1],
        width,
        row_block=row_block,
        column_block=column_block,
        num_warps=4,
    )
    return out
