"""Fused operations of the fast path, each with a plain form for devices without these kernels.

What torch does well stays with torch: matrix products (with GELU applied before the result is written) and
attention. The norms around them, which a plain transformer block spends a third of its time on, run in the
kernels of `triton_kernels.py`.
"""

from __future__ import annotations

import os
from functools import cache
from types import ModuleType

import torch
import torch.nn.functional as fn
from torch import Tensor

EPS = 1e-6
PLAN_LENGTHS = 128
"""Lengths that share one plan of cuDNN's attention; multiples of its tile run 10 % faster than others."""
MASK_WIDTH = 16
"""How much wider masked queries and keys are; 16 ran faster than 8, and a bias took half as long again."""
MASKED = -60_000.0
"""Scaled and added to a logit it leaves nothing of a key's weight, and half precision holds it."""
_HALF = (torch.float16, torch.bfloat16)


@cache
def _triton() -> ModuleType | None:
    try:
        from sn17_trellis.engine import triton_kernels
    except ImportError:
        return None
    return triton_kernels


def _kernels(x: Tensor) -> ModuleType | None:
    """The kernels, where they serve this tensor."""
    return _triton() if x.is_cuda and x.dtype in _HALF and x.is_contiguous() else None


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
    kernels.head_norm_kernel[(x.shape[0] * x.shape[1],)](
        x,
        gamma,
        out,
        x.stride(1),
        vectors,
        width,
        float(width**0.5),
        vector_block=_block(vectors),
        width_block=_block(width),
        num_warps=4,
    )
    return out


def filled_heads(qkv: Tensor, gamma: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of tokens [B, L, 3 H, D], the first two normed, as for `length` tokens.

    Queries and keys [B, length, H, D + MASK_WIDTH], values [B, length, H, D]. No query sees a key that was
    filled in: past their values queries hold 1, 0, 0 ..., keys 0, or `MASKED` where they do not count.
    """
    batch, tokens, vectors, width = qkv.shape
    heads, wide = vectors // 3, width + MASK_WIDTH
    kernels = _kernels(qkv)
    if kernels is None:
        qk = fn.pad(head_norm(qkv[:, :, : 2 * heads], gamma), (0, MASK_WIDTH, 0, 0, 0, length - tokens))
        qk[:, :, :heads, width] = 1
        qk[:, tokens:, heads:, width] = MASKED
        v = fn.pad(qkv[:, :, 2 * heads :], (0, 0, 0, 0, 0, length - tokens))
        return qk[:, :, :heads], qk[:, :, heads:], v
    qk = torch.empty((batch, length, 2 * heads, wide), dtype=qkv.dtype, device=qkv.device)
    v = torch.empty((batch, length, heads, width), dtype=qkv.dtype, device=qkv.device)
    kernels.filled_heads_kernel[(batch * length,)](
        qkv,
        gamma,
        qk,
        v,
        tokens,
        length,
        heads,
        width,
        float(width**0.5),
        MASKED,
        extra=MASK_WIDTH,
        vector_block=_block(vectors),
        width_block=_block(wide),
        num_warps=4,
    )
    return qk[:, :, :heads], qk[:, :, heads:], v


def planned_length(tokens: int) -> int:
    """Tokens to run `planned_attention` with for so many: the next length that has a plan of its own."""
    return -(-tokens // PLAN_LENGTHS) * PLAN_LENGTHS


def planned_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of [B, L, H, D] to [B, L, H * D] by cuDNN: half as fast again as flash at width 80.

    Its price is a plan per length and batch size: 40 to 70 ms and 1.2 MiB of the host, never given back. q
    and k may be wider than v (`filled_heads`): the scale is that of v's width.
    """
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    scale = float(v.shape[-1] ** -0.5)
    if q.is_cuda and q.dtype in _HALF and q.shape[-1] % 8 == 0:
        cudnn = torch.ops.aten._scaled_dot_product_cudnn_attention
        out: Tensor = cudnn(q, k, v, None, False, scale=scale)[0]
    else:
        out = fn.scaled_dot_product_attention(q, k, v, scale=scale)
    return out.transpose(1, 2).flatten(2)


def flash_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same by flash attention, which needs no plan; to few keys it is as fast as any."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if q.is_cuda and q.dtype in _HALF and q.shape[-1] % 8 == 0:
        out: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
    else:
        out = fn.scaled_dot_product_attention(q, k, v)
    return out.transpose(1, 2).flatten(2)


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
