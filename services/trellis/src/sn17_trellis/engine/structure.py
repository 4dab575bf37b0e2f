"""First stage: the flow over a dense latent grid, and the decoder of that grid into occupancy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from sn17_trellis.engine.config import StructureDecoderConfig, StructureFlowConfig
from sn17_trellis.engine.layers import (
    ChannelLayerNorm32,
    ModulatedBlock,
    TimestepEmbedder,
    position_embedding,
    transformer_dtype,
)


@dataclass(slots=True, eq=False)
class DeepBlocks:
    """Of one branch's last full run: the first block's tokens and what the later blocks added, [B, L, C].

    `before`: what they added in the run before that.
    """

    first: Tensor | None = None
    contribution: Tensor | None = None
    before: Tensor | None = None

    def carried(self, slopes: float) -> Tensor:
        """The last contribution, carried on by so many times its difference from the one before."""
        assert self.contribution is not None
        if not slopes:
            return self.contribution
        assert self.before is not None
        return self.contribution + slopes * (self.contribution - self.before)


class StructureFlow(nn.Module):
    """Velocity of the structure latent: (x [B, in, r, r, r], t [B], cond [B, M, Cc]) to [B, out, r, r, r]."""

    pos_emb: Tensor

    def __init__(self, config: StructureFlowConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.model_channels
        self.t_embedder = TimestepEmbedder(channels)
        self.input_layer = nn.Linear(config.in_channels, channels)
        self.blocks = nn.ModuleList(
            ModulatedBlock(
                channels,
                config.cond_channels,
                config.heads,
                config.mlp_ratio,
                qk_norm=config.qk_rms_norm,
                qk_norm_cross=config.qk_rms_norm_cross,
            )
            for _ in range(config.num_blocks)
        )
        self.out_layer = nn.Linear(channels, config.out_channels)
        axis = torch.arange(config.resolution)
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
        self.register_buffer("pos_emb", position_embedding(grid, channels))

    @property
    def transformer_dtype(self) -> torch.dtype:
        """Dtype of the transformer's weights and tokens."""
        return transformer_dtype(self.blocks)

    def embed(self, x: Tensor) -> Tensor:
        """Latent grid to tokens [B, r^3, C], x-major, with positions."""
        tokens: Tensor = self.input_layer(x.flatten(2).transpose(1, 2)) + self.pos_emb
        return tokens.to(self.transformer_dtype)

    def head(self, h: Tensor) -> Tensor:
        """Tokens back to a grid, in float32."""
        h = fn.layer_norm(h.float(), h.shape[-1:])
        r = self.config.resolution
        out: Tensor = self.out_layer(h).transpose(1, 2).unflatten(2, (r, r, r))
        return out

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        cond: Tensor,
        deep: DeepBlocks | None = None,
        *,
        carried: float | None = None,
    ) -> Tensor:
        """With `carried`, the blocks after the first contribute what `deep` kept, by so many slopes."""
        h = self.embed(x)
        t_emb, cond = self.t_embedder(t).to(h.dtype), cond.to(h.dtype)
        h = first = self.blocks[0](h, t_emb, cond)
        if carried is not None:
            assert deep is not None
            return self.head(first + deep.carried(carried))
        for block in self.blocks[1:]:
            h = block(h, t_emb, cond)
        if deep is not None:
            deep.first, deep.before, deep.contribution = first, deep.contribution, h - first
        return self.head(h)


class DenseResBlock(nn.Module):
    """Residual block of the decoder on a dense grid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelLayerNorm32(channels)
        self.norm2 = ChannelLayerNorm32(channels)
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(fn.silu(self.norm1(x)))
        out: Tensor = x + self.conv2(fn.silu(self.norm2(h)))
        return out


class Upsample(nn.Module):
    """Convolution to eight times the channels, moved into twice the resolution per axis."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, 8 * out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x).unflatten(1, (-1, 2, 2, 2))
        b, c, _, _, _, d, e, f = h.shape
        out: Tensor = h.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, c, 2 * d, 2 * e, 2 * f)
        return out


class StructureDecoder(nn.Module):
    """Latent grid [B, latent, r, r, r] to occupancy logits [B, out, R, R, R]; occupied where above zero."""

    def __init__(self, config: StructureDecoderConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.input_layer = nn.Conv3d(config.latent_channels, channels[0], 3, padding=1)
        self.middle_block = nn.Sequential(
            *(DenseResBlock(channels[0]) for _ in range(config.num_res_blocks_middle))
        )
        blocks: list[nn.Module] = []
        for level, width in enumerate(channels):
            blocks += [DenseResBlock(width) for _ in range(config.num_res_blocks)]
            if level + 1 < len(channels):
                blocks.append(Upsample(width, channels[level + 1]))
        self.blocks = nn.ModuleList(blocks)
        self.out_layer = nn.Sequential(
            ChannelLayerNorm32(channels[-1]),
            nn.SiLU(),
            nn.Conv3d(channels[-1], config.out_channels, 3, padding=1),
        )

    @property
    def scale(self) -> int:
        """Output voxels per latent voxel and axis."""
        return int(2 ** (len(self.config.channels) - 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.input_layer(x)
        first = self.middle_block[0]
        assert isinstance(first, DenseResBlock)
        h = self.middle_block(h.to(first.conv1.weight.dtype))
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.out_layer(h.float())
        return out
