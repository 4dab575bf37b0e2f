"""Transformer and convolution blocks with their weights arranged for the fast path."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from sn17_trellis.engine import fused
from sn17_trellis.engine.layers import HeadNorm, ModulatedBlock
from sn17_trellis.engine.sparse import SparseResBlock, SubmanifoldConv
from sn17_trellis.engine.voxels import Coarsening, Voxels

TAPS = 27

KeysValues = tuple[Tensor, Tensor]
"""Keys and values [B, M, H, D] of a condition, for one block."""


class FusedBlock:
    """A `ModulatedBlock` whose modulation and whose condition's keys and values come from tables."""

    def __init__(self, block: ModulatedBlock, *, hopper: bool = True) -> None:
        own = block.self_attn
        self.block = block
        self.hopper = hopper
        self.heads = own.heads
        self.gammas = self.bounded = None
        if isinstance(own.q_rms_norm, HeadNorm) and isinstance(own.k_rms_norm, HeadNorm):
            self.gammas = torch.cat([own.q_rms_norm.gamma, own.k_rms_norm.gamma])
            self.bounded = fused.bounded_gammas(self.gammas)
        norm = block.cross_attn.q_rms_norm
        self.cross_gamma = norm.gamma if isinstance(norm, HeadNorm) else None
        self.mlp_in, self.mlp_out = block.mlp.mlp[0], block.mlp.mlp[2]

    def __call__(
        self,
        x: Tensor,
        h: Tensor,
        mod: Tensor,
        following: Tensor,
        keys_values: KeysValues,
    ) -> tuple[Tensor, Tensor]:
        """x [B, L, C] and h, its first norm, modulated; returns both for the next block.

        There are as many branches as conditions: where x is one for all of them, they part here.

        `mod` [6, C] modulates this block, rows 0 and 1 of `following` [6, C] the next one's first norm: so
        every gated sum and the norm that reads it are one pass over memory.
        """
        block, (key, value) = self.block, keys_values
        qkv = block.self_attn.to_qkv(h).view(*h.shape[:2], 3 * self.heads, -1)
        y = block.self_attn.to_out(self._attend(qkv))
        x, h = fused.residual_norm(x, y, mod[2], block.norm2.weight, block.norm2.bias, modulate=False)
        q = block.cross_attn.to_q(h).view(*h.shape[:2], self.heads, -1)
        y = block.cross_attn.to_out(fused.cross_attention(q, key, value, self.cross_gamma))
        if len(x) < len(key):
            x = x.expand(len(key), *x.shape[1:]).contiguous()
        x, h = fused.residual_norm(x, y, None, mod[4], mod[3], modulate=True)
        hidden = fused.linear_gelu(h, self.mlp_in.get_parameter("weight"), self.mlp_in.get_parameter("bias"))
        return fused.residual_norm(x, self.mlp_out(hidden), mod[5], following[1], following[0], modulate=True)

    def _attend(self, qkv: Tensor) -> Tensor:
        heads = self.heads
        qk, v = qkv[:, :, : 2 * heads], qkv[:, :, 2 * heads :]
        if self.bounded is not None:
            qk = fused.head_norm(qk, self.bounded)
            return fused.bounded_attention(qk[:, :, :heads], qk[:, :, heads:], v, on_hopper=self.hopper)
        if self.gammas is not None:
            qk = fused.head_norm(qk, self.gammas)
        return fused.self_attention(qk[:, :, :heads], qk[:, :, heads:], v)


@dataclass(frozen=True, slots=True, eq=False)
class LevelTables:
    """Index tables of one level, int32 [N, 27], -1 where a voxel has no such neighbour.

    `rows`: the neighbours; `slots`: the same as positions among 27 products per row; `up_slots`: the same,
    but of the neighbours' parents (None on the transformer's level).
    """

    rows: Tensor
    slots: Tensor
    up_slots: Tensor | None

    @classmethod
    def of(cls, voxels: Voxels, *, has_coarse: bool) -> LevelTables:
        rows, taps = voxels.neighbours, torch.arange(TAPS, device=voxels.coords.device)
        present = rows < len(voxels)
        up_slots = None
        if has_coarse:
            parents = voxels.coarse.parent[rows.clamp(max=len(voxels) - 1)]
            up_slots = torch.where(present, parents * TAPS + taps, -1).int()
        return cls(rows, torch.where(present, rows * TAPS + taps, -1).int(), up_slots)


class FusedConv:
    """A submanifold convolution.

    Where it does not widen, its 27 products run first, as one matrix product over all voxels, and are summed
    after: nothing is gathered 27-fold, and only neighbours that exist are read.
    """

    def __init__(self, conv: SubmanifoldConv) -> None:
        weight = conv.conv.get_parameter("weight").flatten(1, 3)
        self.bias = conv.conv.get_parameter("bias")
        self.out_channels, _, in_channels = weight.shape
        self.products_first = self.out_channels <= in_channels
        self.matrix = weight.flatten(1)
        if self.products_first:
            self.matrix = weight.transpose(0, 1).reshape(-1, in_channels).contiguous()

    def __call__(self, x: Tensor, tables: LevelTables, up: Coarsening | None = None) -> Tensor:
        """[B, R, in] to [B, N, out]; with `up`, x lies on the coarse level, a quarter of the rows."""
        slots = tables.slots
        if up is not None:
            if self.products_first and tables.up_slots is not None:
                slots = tables.up_slots
            else:
                x = up.spread(x)
        if self.products_first:
            products = fn.linear(x, self.matrix).view(x.shape[0], -1, self.out_channels)
            return fused.sum_neighbours(products, slots, self.bias)
        gathered = fn.pad(x, (0, 0, 0, 1))[:, tables.rows].flatten(2)
        return fn.linear(gathered, self.matrix, self.bias)


class FusedResBlock:
    """A `SparseResBlock`."""

    def __init__(self, block: SparseResBlock) -> None:
        self.resample = block.resample
        self.norm1 = (block.norm1.weight, block.norm1.bias)
        self.conv1 = FusedConv(block.conv1)
        self.conv2 = FusedConv(block.conv2)
        self.emb_layers = block.emb_layers
        self.skip = block.skip_connection if isinstance(block.skip_connection, nn.Linear) else None

    def __call__(
        self,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        tables: LevelTables,
        up: Coarsening | None = None,
    ) -> Tensor:
        """With `up`, x lies on the coarse level: norm, SiLU, products and skip commute with spreading."""
        _, h = fused.residual_norm(x, None, None, *self.norm1, modulate=False, silu=True)
        h = self.conv1(h, tables, up)
        _, h = fused.residual_norm(h, None, None, scale, shift, modulate=True, silu=True)
        h = self.conv2(h, tables)
        skip = x if self.skip is None else self.skip(x)
        return h + (skip if up is None else up.spread(skip))
