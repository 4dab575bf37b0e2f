"""Convolution and residual blocks on occupied voxels, as plain gathers and matrix products."""

from __future__ import annotations

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from sn17_trellis.engine.layers import LayerNorm32
from sn17_trellis.engine.voxels import GatherNeighbours, Voxels

GATHER_BYTES = 256 * 1024**2
"""Largest gathered input of one matrix product; larger ones run in pieces."""


class SubmanifoldConv(nn.Module):
    """3x3x3 convolution read at the occupied voxels only; weight [out, 3, 3, 3, in] as stored."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Module()
        self.conv.weight = nn.Parameter(torch.empty(out_channels, 3, 3, 3, in_channels))
        self.conv.bias = nn.Parameter(torch.zeros(out_channels))
        if self.conv.weight.device.type != "meta":
            nn.init.kaiming_uniform_(self.conv.weight.flatten(1), a=5**0.5)

    def forward(self, x: Tensor, voxels: Voxels) -> Tensor:
        """[B, N, in] to [B, N, out]."""
        weight, bias = self.conv.weight, self.conv.bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        row_bytes = 27 * x.shape[0] * x.shape[2] * x.element_size()
        rows = len(voxels) if torch.is_grad_enabled() else max(1, GATHER_BYTES // row_bytes)
        pieces = [
            fn.linear(GatherNeighbours.apply(x, piece), weight.flatten(1), bias)
            for piece in torch.split(voxels.neighbours, rows)
        ]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)


class SparseResBlock(nn.Module):
    """Residual block with time modulation; optionally first moves one level down or up.

    `resample` is "down", "up" or None. The skip path has a linear layer where the channels change.
    """

    def __init__(
        self, in_channels: int, emb_channels: int, out_channels: int, resample: str | None = None
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm1 = LayerNorm32(in_channels, elementwise_affine=True, eps=1e-6)
        self.norm2 = LayerNorm32(out_channels, elementwise_affine=False, eps=1e-6)
        self.conv1 = SubmanifoldConv(in_channels, out_channels)
        self.conv2 = SubmanifoldConv(out_channels, out_channels)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, 2 * out_channels))
        self.skip_connection: nn.Module = (
            nn.Linear(in_channels, out_channels) if in_channels != out_channels else nn.Identity()
        )

    def modulation(self, t_emb: Tensor, voxels: Voxels) -> tuple[Tensor, Tensor]:
        """Scale and shift, broadcastable to [B, N, out]: per branch, or per voxel's object in a batch."""
        emb = self.emb_layers(t_emb)
        if voxels.objects == 1:
            emb = emb[:, None]
        else:
            emb = (fn.one_hot(voxels.batch, voxels.objects).to(emb.dtype) @ emb)[None]
        scale, shift = emb.chunk(2, dim=-1)
        return scale, shift

    def forward(self, x: Tensor, t_emb: Tensor, fine: Voxels) -> Tensor:
        """x [B, N, in]; `fine` is the finer of the two levels where the block changes level."""
        voxels = fine
        if self.resample == "down":
            x, voxels = fine.coarse.pool(x), fine.coarse.voxels
        elif self.resample == "up":
            x = fine.coarse.spread(x)
        scale, shift = self.modulation(t_emb, voxels)
        h = self.conv1(fn.silu(self.norm1(x)), voxels)
        h = self.norm2(h) * (1 + scale) + shift
        h = self.conv2(fn.silu(h), voxels)
        out: Tensor = h + self.skip_connection(x)
        return out
