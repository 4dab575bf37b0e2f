"""The latent flow's convolution blocks in the form the fast path runs.

Where a layer does not widen, its 27 products run first, as one matrix product over all voxels, and the
neighbours' results are summed after: nothing is gathered 27-fold, and only neighbours that exist are read.
For the block that moves up a level this product runs on the coarse voxels, a quarter of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from sn17_trellis.engine.sparse import SparseResBlock, SubmanifoldConv
from sn17_trellis.engine.voxels import Voxels

TAPS = 27


def activate(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """SiLU of an affine norm, rounded once."""
    return fn.silu(fn.layer_norm(x.float(), x.shape[-1:], weight, bias, 1e-6)).to(x.dtype)


def modulated_activate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """SiLU of a modulated norm, rounded once."""
    h = fn.layer_norm(x.float(), x.shape[-1:], None, None, 1e-6)
    return fn.silu(h * (1 + scale.float()) + shift.float()).to(x.dtype)


def sum_neighbours(products: Tensor, slots: Tensor, bias: Tensor) -> Tensor:
    """products [B, R * 27, out]: each row's product with each tap; slots int32 [N, 27], -1 where absent."""
    total = bias.float().expand(products.shape[0], slots.shape[0], -1)
    for tap in range(TAPS):
        slot = slots[:, tap]
        part = products[:, slot.clamp(min=0)].float()
        total = total + torch.where((slot >= 0)[:, None], part, 0.0)
    return total.to(products.dtype)


def gather_neighbours(x: Tensor, rows: Tensor) -> Tensor:
    """x [B, N, in], rows int32 [N, 27], -1 where absent, to [B, N, 27 * in]."""
    picked = x[:, rows.clamp(min=0)]
    return torch.where((rows >= 0)[:, :, None], picked, 0.0).to(x.dtype).flatten(2)


@dataclass(frozen=True, slots=True, eq=False)
class LevelTables:
    """Index tables of one level, int32 for speed.

    `rows` [N, 27]: neighbours; `slots`: the same as positions among 27 products per row; `up_slots`: the
    same, but of the neighbours' parents (None on the transformer's level).
    """

    rows: Tensor
    slots: Tensor
    up_slots: Tensor | None

    @classmethod
    def of(cls, voxels: Voxels, *, has_coarse: bool) -> LevelTables:
        rows, taps = voxels.neighbours, torch.arange(TAPS, device=voxels.coords.device)
        present = rows < len(voxels)
        slots = torch.where(present, rows * TAPS + taps, -1)
        up_slots = None
        if has_coarse:
            parents = voxels.coarse.parent[rows.clamp(max=len(voxels) - 1)]
            up_slots = torch.where(present, parents * TAPS + taps, -1).int()
        return cls(torch.where(present, rows, -1).int(), slots.int(), up_slots)


class ConvWeights:
    """A convolution's weight as the matrix its order of work needs."""

    def __init__(self, conv: SubmanifoldConv) -> None:
        weight = conv.conv.get_parameter("weight").flatten(1, 3)
        self.bias = conv.conv.get_parameter("bias")
        self.out_channels, _, in_channels = weight.shape
        self.products_first = self.out_channels <= in_channels and self.out_channels <= 512
        if self.products_first:
            weight = weight.transpose(0, 1)
        self.matrix = weight.reshape(-1, in_channels) if self.products_first else weight.flatten(1)

    def products(self, x: Tensor) -> Tensor:
        """[B, R, in] to [B, R * 27, out]."""
        return fn.linear(x, self.matrix).view(x.shape[0], -1, self.out_channels)


class ResBlockWeights:
    """A `SparseResBlock` for the fast path."""

    def __init__(self, block: SparseResBlock) -> None:
        self.resample = block.resample
        self.norm1 = (block.norm1.get_parameter("weight"), block.norm1.get_parameter("bias"))
        self.conv1 = ConvWeights(block.conv1)
        self.conv2 = ConvWeights(block.conv2)
        self.emb_layers = block.emb_layers
        self.skip = block.skip_connection if isinstance(block.skip_connection, nn.Linear) else None
