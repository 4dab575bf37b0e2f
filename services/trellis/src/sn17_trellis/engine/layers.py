"""Building blocks of the TRELLIS networks. Parameter names are those of the released checkpoints.

Norms compute in float32 and return the dtype they were given, also where the weights around them are float16.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as fn
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


class LayerNorm32(nn.LayerNorm):
    """Layer norm over the last axis, computed in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class ChannelLayerNorm32(LayerNorm32):
    """Layer norm over axis 1 of [B, C, X, Y, Z], computed in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return LayerNorm32.forward(self, x.movedim(1, -1)).movedim(-1, 1)


class HeadNorm(nn.Module):
    """L2 norm of every head's vector times a learned gain and sqrt(head_dim); [..., H, D] to the same."""

    def __init__(self, heads: int, dim: int) -> None:
        super().__init__()
        self.scale = dim**0.5
        self.gamma = nn.Parameter(torch.ones(heads, dim))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = fn.normalize(x.float(), dim=-1) * self.gamma * self.scale
        return out.to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention of [B, L, H, D] tensors; `mask` [B, 1, 1, L] is true for keys that take part.

    Masked batches change shape with every object: they stay away from kernels that plan per shape.
    """
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if mask is None:
        out = fn.scaled_dot_product_attention(q, k, v)
    else:
        with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            out = fn.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Multi-head self-attention over [B, L, C], without positions (they are in the input)."""

    def __init__(self, channels: int, heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.to_out = nn.Linear(channels, channels)
        self.q_rms_norm: nn.Module = nn.Identity()
        self.k_rms_norm: nn.Module = nn.Identity()
        if qk_norm:
            self.q_rms_norm = HeadNorm(heads, channels // heads)
            self.k_rms_norm = HeadNorm(heads, channels // heads)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [..., H, D]."""
        qkv = self.to_qkv(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.unbind(-3)
        return self.q_rms_norm(q), self.k_rms_norm(k), v

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        out: Tensor = self.to_out(attend(*self.project(x), mask))
        return out


class CrossAttention(nn.Module):
    """Multi-head attention of [B, L, C] to a condition [B, M, Cc]."""

    def __init__(self, channels: int, cond_channels: int, heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels)
        self.to_kv = nn.Linear(cond_channels, 2 * channels)
        self.to_out = nn.Linear(channels, channels)
        self.q_rms_norm: nn.Module = nn.Identity()
        self.k_rms_norm: nn.Module = nn.Identity()
        if qk_norm:
            self.q_rms_norm = HeadNorm(heads, channels // heads)
            self.k_rms_norm = HeadNorm(heads, channels // heads)

    def keys_values(self, cond: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, M, H, D] of a condition; they do not change during sampling."""
        k, v = self.to_kv(cond).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return self.k_rms_norm(k), v

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        q = self.q_rms_norm(self.to_q(x).unflatten(-1, (self.heads, -1)))
        out: Tensor = self.to_out(attend(q, *self.keys_values(cond)))
        return out


class FeedForward(nn.Module):
    """Two linear layers around a tanh-approximated GELU."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        hidden = int(channels * ratio)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mlp(x)
        return out


class ModulatedBlock(nn.Module):
    """Transformer block with adaLN modulation: self-attention, cross-attention, feed-forward."""

    def __init__(
        self,
        channels: int,
        cond_channels: int,
        heads: int,
        ratio: float,
        *,
        qk_norm: bool,
        qk_norm_cross: bool,
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm32(channels, elementwise_affine=False, eps=1e-6)
        self.norm2 = LayerNorm32(channels, elementwise_affine=True, eps=1e-6)
        self.norm3 = LayerNorm32(channels, elementwise_affine=False, eps=1e-6)
        self.self_attn = SelfAttention(channels, heads, qk_norm=qk_norm)
        self.cross_attn = CrossAttention(channels, cond_channels, heads, qk_norm=qk_norm_cross)
        self.mlp = FeedForward(channels, ratio)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(channels, 6 * channels))

    def forward(self, x: Tensor, t_emb: Tensor, cond: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [B, L, C], t_emb [B, C], cond [B, M, Cc], mask [B, 1, 1, L] or None; returns [B, L, C]."""
        modulation = self.adaLN_modulation(t_emb).unsqueeze(1)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.chunk(6, dim=-1)
        x = x + gate_a * self.self_attn(self.norm1(x) * (1 + scale_a) + shift_a, mask)
        x = x + self.cross_attn(self.norm2(x), cond)
        out: Tensor = x + gate_m * self.mlp(self.norm3(x) * (1 + scale_m) + shift_m)
        return out


class TimestepEmbedder(nn.Module):
    """Sinusoids of the (thousandfold) time through a small network, in float32."""

    def __init__(self, channels: int, frequencies: int = 256) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(nn.Linear(frequencies, channels), nn.SiLU(), nn.Linear(channels, channels))

    def sinusoids(self, t: Tensor) -> Tensor:
        """[B] to [B, frequencies]: cosines, then sines.

        The table is made on the CPU: one unit in the last place of a frequency is visible after the phase.
        """
        half = self.frequencies // 2
        table = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
        phase = t.float()[:, None] * table.to(t.device)
        return torch.cat([phase.cos(), phase.sin()], dim=-1)

    def forward(self, t: Tensor) -> Tensor:
        out: Tensor = self.mlp(self.sinusoids(t))
        return out


def position_embedding(coords: Tensor, channels: int) -> Tensor:
    """Absolute position embedding of integer coordinates [N, 3] as float32 [N, channels].

    Per axis sines, then cosines; the axes one after the other, padded with zeros.
    """
    dim = channels // 3 // 2
    table = 1.0 / (10000 ** (torch.arange(dim, dtype=torch.float32) / dim))
    phase = coords.float()[:, :, None] * table.to(coords.device)
    out = torch.cat([phase.sin(), phase.cos()], dim=-1).flatten(1)
    return fn.pad(out, (0, channels - out.shape[1]))


def transformer_dtype(blocks: nn.ModuleList) -> torch.dtype:
    """The dtype a transformer's blocks keep their tokens in: that of their large weights."""
    return blocks[0].get_parameter("mlp.mlp.0.weight").dtype
