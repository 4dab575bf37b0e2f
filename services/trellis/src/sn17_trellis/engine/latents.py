"""Second stage: the flow over the latents of occupied voxels."""

from __future__ import annotations

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from sn17_trellis.engine.config import LatentFlowConfig
from sn17_trellis.engine.layers import ModulatedBlock, TimestepEmbedder, position_embedding, transformer_dtype
from sn17_trellis.engine.sparse import SparseResBlock
from sn17_trellis.engine.voxels import Padding, Voxels


class LatentFlow(nn.Module):
    """Velocity of the structured latents: (x [B, N, in], t [B], cond [B, M, Cc], voxels) to [B, N, out].

    The B branches (condition and its absence) share one object's voxels. With several objects in `voxels`
    (training) B is 1, and `t` and `cond` have one row per object.
    """

    def __init__(self, config: LatentFlowConfig) -> None:
        super().__init__()
        self.config = config
        channels, levels, count = config.model_channels, config.levels, config.num_io_res_blocks
        self.t_embedder = TimestepEmbedder(channels)
        self.input_layer = nn.Linear(config.in_channels, levels[0] if levels else channels)
        self.input_blocks = nn.ModuleList()
        for width, wider in zip(levels, (*levels[1:], channels), strict=False):
            self.input_blocks.extend(SparseResBlock(width, channels, width) for _ in range(count - 1))
            self.input_blocks.append(SparseResBlock(width, channels, wider, "down"))
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
        self.out_blocks = nn.ModuleList()
        both = 2 if config.use_skip_connection else 1
        for width, wider in zip(reversed(levels), (channels, *reversed(levels[1:])), strict=False):
            self.out_blocks.append(SparseResBlock(both * wider, channels, width, "up"))
            self.out_blocks.extend(SparseResBlock(both * width, channels, width) for _ in range(count - 1))
        self.out_layer = nn.Linear(levels[0] if levels else channels, config.out_channels)

    @property
    def transformer_dtype(self) -> torch.dtype:
        """Dtype of the transformer's weights and tokens."""
        return transformer_dtype(self.blocks)

    def levels(self, voxels: Voxels) -> list[Voxels]:
        """The voxels of every level, finest first; the last is the transformer's."""
        out = [voxels]
        for _ in self.config.levels:
            out.append(out[-1].coarse.voxels)
        return out

    def position(self, voxels: Voxels) -> Tensor:
        """Position embedding of the transformer's tokens, in its dtype."""
        return position_embedding(voxels.coords[:, 1:], self.config.model_channels).to(self.transformer_dtype)

    def head(self, h: Tensor) -> Tensor:
        """The final norm stays in the transformer's dtype; the output is float32."""
        out: Tensor = self.out_layer(fn.layer_norm(h, h.shape[-1:]).float())
        return out

    def forward(self, x: Tensor, t: Tensor, cond: Tensor, voxels: Voxels) -> Tensor:
        h = self.input_layer(x).to(self.transformer_dtype)
        t_emb, cond = self.t_embedder(t).to(h.dtype), cond.to(h.dtype)
        grids = self.levels(voxels)
        level, skips = 0, []
        for block in self.input_blocks:
            h = block(h, t_emb, grids[level])
            level += block.resample == "down"
            skips.append(h)
        h = self._transform(h + self.position(grids[-1]), t_emb, cond, grids[-1])
        for block in self.out_blocks:
            level -= block.resample == "up"
            if self.config.use_skip_connection:
                h = torch.cat([h, skips.pop()], dim=-1)
            h = block(h, t_emb, grids[level])
        return self.head(h)

    def _transform(self, h: Tensor, t_emb: Tensor, cond: Tensor, voxels: Voxels) -> Tensor:
        if voxels.objects == 1:
            for block in self.blocks:
                h = block(h, t_emb, cond)
            return h
        padding = Padding.of(voxels.batch, voxels.objects)
        h = padding.pack(h[0])
        for block in self.blocks:
            h = block(h, t_emb, cond, padding.mask)
        return padding.unpack(h)[None]
