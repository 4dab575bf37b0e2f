"""The gaussian decoder on a GPU, with a fraction of the plain form's launches: the host could not keep up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as fn
from torch import Tensor

from sn17_trellis.engine import fused
from sn17_trellis.engine.gaussians import GaussianDecoder, WindowBlock
from sn17_trellis.engine.layers import HeadNorm, position_embedding, transformer_dtype
from sn17_trellis.engine.voxels import Voxels, window_ids


@dataclass(frozen=True, slots=True, eq=False)
class _Partition:
    """Voxels in the order of their windows: `order` and its inverse int64 [N], `offsets` int32 [W + 1]."""

    order: Tensor
    inverse: Tensor
    offsets: Tensor
    longest: int

    @classmethod
    def of(cls, voxels: Voxels, window: int, shift: int) -> _Partition:
        rank, counts = window_ids(voxels, window, shift)
        order = torch.argsort(rank, stable=True)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        offsets = fn.pad(counts.cumsum(0), (1, 0)).int()
        return cls(order, inverse, offsets, int(counts.max()))


class _FusedWindowBlock:
    """A `WindowBlock` over tokens that lie in the order of its windows."""

    def __init__(self, block: WindowBlock) -> None:
        own = block.attn
        self.attn, self.heads = own, own.heads
        self.gammas = None
        if isinstance(own.q_rms_norm, HeadNorm) and isinstance(own.k_rms_norm, HeadNorm):
            self.gammas = torch.cat([own.q_rms_norm.gamma, own.k_rms_norm.gamma])
        self.mlp_in, self.mlp_out = block.mlp.mlp[0], block.mlp.mlp[2]

    def __call__(self, x: Tensor, h: Tensor, windows: _Partition, zeros: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, C] and h, its norm, to the same of the next block."""
        qkv = self.attn.to_qkv(h).view(len(h), 3 * self.heads, -1)
        qk, v = qkv[:, : 2 * self.heads], qkv[:, 2 * self.heads :]
        if self.gammas is not None:
            qk = fused.head_norm(qk[None], self.gammas)[0]
        y = fused.window_attention(
            qk[:, : self.heads], qk[:, self.heads :], v, windows.offsets, windows.longest
        )
        x, h = fused.residual_norm(x, self.attn.to_out(y), None, zeros, zeros, modulate=True)
        hidden = fused.linear_gelu(h, self.mlp_in.get_parameter("weight"), self.mlp_in.get_parameter("bias"))
        return fused.residual_norm(x, self.mlp_out(hidden), None, zeros, zeros, modulate=True)


class FusedGaussianDecoder:
    """A `GaussianDecoder`; between blocks tokens move from one partition's order to the other's."""

    def __init__(self, decoder: GaussianDecoder) -> None:
        self._decoder = decoder
        self._blocks = [_FusedWindowBlock(b) for b in decoder.blocks if isinstance(b, WindowBlock)]
        self._dtype = transformer_dtype(decoder.blocks)
        width = decoder.config.model_channels
        self._zeros = torch.zeros(width, device=decoder.offset_perturbation.device)

    def __call__(self, latents: Tensor, voxels: Voxels) -> Tensor:
        """[N, latent] to raw channels [N, 14 * num_gaussians]."""
        decoder, zeros = self._decoder, self._zeros
        size, channels = decoder.config.window_size, decoder.config.model_channels
        plain, shifted = (_Partition.of(voxels, size, shift) for shift in (0, size // 2))
        moves = (shifted.inverse[plain.order], plain.inverse[shifted.order])
        x = decoder.input_layer(latents) + position_embedding(voxels.coords[:, 1:], channels)
        x = x.to(self._dtype)[plain.order]
        _, h = fused.residual_norm(x, None, None, zeros, zeros, modulate=True)
        for index, block in enumerate(self._blocks):
            if index:
                x, h = x[moves[index % 2]], h[moves[index % 2]]
            x, h = block(x, h, (plain, shifted)[index % 2], zeros)
        last = (plain, shifted)[(len(self._blocks) - 1) % 2]
        x = fn.layer_norm(x.float(), x.shape[-1:])
        out: Tensor = decoder.out_layer(x)[last.inverse]
        return out
