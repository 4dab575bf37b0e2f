"""The transformer block in the form the fast path runs: one compiled function, weights as arguments.

The function ends with the next block's first norm, so that the gated sum and the norm that reads it are one
kernel. What compilers do badly is behind two operators of our own: attention and linear + GELU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from sn17_trellis.engine.layers import HeadNorm, ModulatedBlock

_HALF = (torch.float16, torch.bfloat16)


@torch.library.custom_op("sn17::attention", mutates_args=())
def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of [B, L, H, D] to [B, L, H * D]; cuDNN's kernel for half precision on a GPU.

    At head width 80 it is half as fast again as the flash kernels of torch.
    """
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if q.is_cuda and q.dtype in _HALF:
        out: Tensor = torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, False)[0]
    else:
        out = fn.scaled_dot_product_attention(q, k, v)
    return out.transpose(1, 2).reshape(q.shape[0], q.shape[2], -1)


@attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q.new_empty((q.shape[0], q.shape[1], v.shape[2] * v.shape[3]))


@torch.library.custom_op("sn17::linear_gelu", mutates_args=())
def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """tanh-GELU of a linear layer; on a GPU the matrix product applies it before writing its result."""
    if x.is_cuda:
        out: Tensor = torch._addmm_activation(bias, x.flatten(0, -2), weight.t(), use_gelu=True)
        return out.view(*x.shape[:-1], -1)
    return fn.gelu(fn.linear(x, weight, bias), approximate="tanh")


@linear_gelu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


class BlockWeights(NamedTuple):
    """Everything of a `ModulatedBlock` but its adaLN layer, whose results come from tables."""

    heads: int
    qkv: tuple[Tensor, Tensor]
    out: tuple[Tensor, Tensor]
    gammas: tuple[Tensor, Tensor] | None
    norm2: tuple[Tensor, Tensor]
    cross_q: tuple[Tensor, Tensor]
    cross_gamma: Tensor | None
    cross_out: tuple[Tensor, Tensor]
    mlp_in: tuple[Tensor, Tensor]
    mlp_out: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, block: ModulatedBlock) -> BlockWeights:
        """References to a block's parameters, no copies."""
        own, cross = block.self_attn, block.cross_attn
        gammas = None
        if isinstance(own.q_rms_norm, HeadNorm) and isinstance(own.k_rms_norm, HeadNorm):
            gammas = (own.q_rms_norm.gamma, own.k_rms_norm.gamma)
        return cls(
            heads=own.heads,
            qkv=_pair(own.to_qkv),
            out=_pair(own.to_out),
            gammas=gammas,
            norm2=_pair(block.norm2),
            cross_q=_pair(cross.to_q),
            cross_gamma=cross.q_rms_norm.gamma if isinstance(cross.q_rms_norm, HeadNorm) else None,
            cross_out=_pair(cross.to_out),
            mlp_in=_pair(block.mlp.mlp[0]),
            mlp_out=_pair(block.mlp.mlp[2]),
        )


def _pair(module: nn.Module) -> tuple[Tensor, Tensor]:
    return module.get_parameter("weight"), module.get_parameter("bias")


def _norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    return fn.layer_norm(x.float(), x.shape[-1:], weight, bias, 1e-6)


def _head_norm(x: Tensor, gamma: Tensor) -> Tensor:
    out: Tensor = fn.normalize(x.float(), dim=-1) * gamma * float(gamma.shape[-1] ** 0.5)
    return out.to(x.dtype)


def _heads(x: Tensor, *sizes: int) -> Tensor:
    return x.view(*x.shape[:-1], *sizes, -1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm(x) * (1 + scale) + shift, rounded once."""
    return (_norm(x) * (1 + scale.float()) + shift.float()).to(x.dtype)


def block_step(
    x: Tensor, h: Tensor, weights: BlockWeights, mod: Tensor, following: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """One block. x [B, L, C]; h: its first norm, modulated; key, value [B, M, H, D] of the condition.

    `mod` [6, C] modulates this block, rows 0 and 1 of `following` [6, C] the next one. Returns the next
    block's x and h.
    """
    heads = weights.heads
    q, k, v = _heads(fn.linear(h, *weights.qkv), 3, heads).unbind(-3)
    if weights.gammas is not None:
        q, k = _head_norm(q, weights.gammas[0]), _head_norm(k, weights.gammas[1])
    x = x + mod[2] * fn.linear(attention(q, k, v), *weights.out)
    q = _heads(fn.linear(_norm(x, *weights.norm2).to(x.dtype), *weights.cross_q), heads)
    if weights.cross_gamma is not None:
        q = _head_norm(q, weights.cross_gamma)
    x = x + fn.linear(attention(q, key, value), *weights.cross_out)
    hidden = linear_gelu(modulate(x, mod[3], mod[4]), *weights.mlp_in)
    x = x + mod[5] * fn.linear(hidden, *weights.mlp_out)
    return x, modulate(x, following[0], following[1])
