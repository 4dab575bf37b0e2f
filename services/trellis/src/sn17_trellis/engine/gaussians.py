"""Last stage: latents of voxels into gaussians, and gaussians into the y-up PLY convention."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from sn17_trellis.engine.config import GaussianDecoderConfig, RepresentationConfig
from sn17_trellis.engine.layers import (
    FeedForward,
    LayerNorm32,
    SelfAttention,
    position_embedding,
    transformer_dtype,
)
from sn17_trellis.engine.voxels import Padding, Voxels, window_ids

LOGIT_LIMIT = 15.0
"""Opacity logits are written within +-15: beyond, float32's sigmoid saturates and readers see infinities."""

COLUMNS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *(f"{name}_{axis}" for name, count in (("scale", 3), ("rot", 4)) for axis in range(count)),
)
"""Columns of the packed output, in the order of the PLY's properties."""


@dataclass(slots=True, eq=False)
class Windows:
    """One partition of voxels into attention windows, grouped by similar size so that padding stays small."""

    order: Tensor
    inverse: Tensor
    groups: list[tuple[slice, Padding]]

    @classmethod
    def of(cls, voxels: Voxels, window: int, shift: int) -> Windows:
        rank, counts = window_ids(voxels, window, shift)
        by_size = torch.argsort(counts, stable=True)
        place = torch.empty_like(by_size)
        place[by_size] = torch.arange(len(by_size), device=by_size.device)
        order = torch.argsort(place[rank], stable=True)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        sizes = counts[by_size].tolist()
        groups, start, first = [], 0, 0
        while first < len(sizes):
            last = first
            while last < len(sizes) and sizes[last] <= max(16, 2 * sizes[first]):
                last += 1
            stop = start + sum(sizes[first:last])
            group = place[rank][order[start:stop]] - first
            groups.append((slice(start, stop), Padding.of(group, last - first)))
            start, first = stop, last
        return cls(order=order, inverse=inverse, groups=groups)


class WindowBlock(nn.Module):
    """Transformer block whose attention sees only the voxels of one window."""

    def __init__(self, channels: int, heads: int, ratio: float, *, qk_norm: bool) -> None:
        super().__init__()
        self.norm1 = LayerNorm32(channels, elementwise_affine=False, eps=1e-6)
        self.norm2 = LayerNorm32(channels, elementwise_affine=False, eps=1e-6)
        self.attn = SelfAttention(channels, heads, qk_norm=qk_norm)
        self.mlp = FeedForward(channels, ratio)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """x [N, C] to the same."""
        ordered = self.norm1(x)[windows.order]
        parts = [
            padding.unpack(self.attn(padding.pack(ordered[piece]), padding.mask))
            for piece, padding in windows.groups
        ]
        x = x + torch.cat(parts)[windows.inverse]
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Gaussians:
    """Gaussians before activation, voxel-major, in the model's frame (z up, unit cube from 0 to 1).

    xyz [M, 3], f_dc [M, 3], scaling [M, 3], rotation [M, 4] (w, x, y, z), opacity [M, 1]; float32.
    """

    xyz: Tensor
    f_dc: Tensor
    scaling: Tensor
    rotation: Tensor
    opacity: Tensor
    config: RepresentationConfig

    def positions(self) -> Tensor:
        """Centres in [-0.5, 0.5]^3."""
        return self.xyz - 0.5

    def scales(self) -> Tensor:
        """Standard deviations along the axes, never below the 3D filter's kernel."""
        cfg = self.config
        if cfg.scaling_activation == "softplus":
            sigma = fn.softplus(self.scaling + math.log(math.expm1(cfg.scaling_bias)))
        else:
            sigma = torch.exp(self.scaling + math.log(cfg.scaling_bias))
        return torch.sqrt(sigma**2 + cfg.filter_kernel_size_3d**2)

    def rotations(self) -> Tensor:
        """Quaternions w, x, y, z, not normalised."""
        return self.rotation + self.rotation.new_tensor([1.0, 0.0, 0.0, 0.0])

    def opacity_logits(self) -> Tensor:
        """Logits of the opacities, [M, 1]."""
        bias = self.config.opacity_bias
        return self.opacity + math.log(bias / (1 - bias))

    def pack(self) -> Tensor:
        """All columns of the PLY as float32 [M, 17] (`COLUMNS`), on the tensors' own device.

        The frame is turned as the released models' PLY files are: (x, y, z) -> (x, -z, y), which on
        rotations is the quaternion product with (sqrt 1/2, sqrt 1/2, 0, 0). Quaternions get unit length and
        a positive largest component.
        """
        x, y, z = self.positions().unbind(1)
        w, i, j, k = self.rotations().unbind(1)
        turned = torch.stack([w - i, w + i, j - k, j + k], dim=1)
        turned = fn.normalize(turned, dim=1)
        largest = turned.gather(1, turned.abs().argmax(1, keepdim=True))
        turned = torch.where(largest < 0, -turned, turned)
        zero = torch.zeros_like(x)[:, None]
        logits = self.opacity_logits().clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        place = torch.stack([x, -z, y], dim=1)
        return torch.cat([place, zero, zero, zero, self.f_dc, logits, self.scales().log(), turned], dim=1)


class GaussianDecoder(nn.Module):
    """Structured latents [N, latent] and their voxels to raw channels [N, 14 * num_gaussians]."""

    offset_perturbation: Tensor

    def __init__(self, config: GaussianDecoderConfig) -> None:
        super().__init__()
        self.config = config
        count = config.representation_config.num_gaussians
        self.input_layer = nn.Linear(config.latent_channels, config.model_channels)
        self.blocks = nn.ModuleList(
            WindowBlock(config.model_channels, config.heads, config.mlp_ratio, qk_norm=config.qk_rms_norm)
            for _ in range(config.num_blocks)
        )
        self.out_layer = nn.Linear(config.model_channels, 14 * count)
        self.register_buffer("offset_perturbation", torch.zeros(count, 3))

    def windows(self, voxels: Voxels) -> tuple[Windows, Windows]:
        """The plain partition (even blocks) and the one shifted by half a window (odd blocks)."""
        size = self.config.window_size
        return Windows.of(voxels, size, 0), Windows.of(voxels, size, size // 2)

    def forward(self, latents: Tensor, voxels: Voxels) -> Tensor:
        h = self.input_layer(latents) + position_embedding(voxels.coords[:, 1:], self.config.model_channels)
        h = h.to(transformer_dtype(self.blocks))
        windows = self.windows(voxels)
        for index, block in enumerate(self.blocks):
            h = block(h, windows[index % 2])
        out: Tensor = self.out_layer(fn.layer_norm(h.float(), h.shape[-1:]))
        return out

    def represent(self, raw: Tensor, voxels: Voxels) -> Gaussians:
        """Raw channels to gaussians: per voxel all offsets, then colours, scales, rotations, opacities."""
        cfg, resolution = self.config.representation_config, self.config.resolution
        n = cfg.num_gaussians
        xyz, f_dc, scaling, rotation, opacity = torch.split(raw, [3 * n, 3 * n, 3 * n, 4 * n, n], dim=1)
        offset = xyz.reshape(-1, n, 3) * cfg.lr["_xyz"]
        if cfg.perturb_offset:
            offset = offset + self.offset_perturbation
        offset = torch.tanh(offset) / resolution * 0.5 * cfg.voxel_size
        centre = (voxels.coords[:, None, 1:].float() + 0.5) / resolution
        return Gaussians(
            xyz=(centre + offset).flatten(0, 1),
            f_dc=f_dc.reshape(-1, 3) * cfg.lr["_features_dc"],
            scaling=scaling.reshape(-1, 3) * cfg.lr["_scaling"],
            rotation=rotation.reshape(-1, 4) * cfg.lr["_rotation"],
            opacity=opacity.reshape(-1, 1) * cfg.lr["_opacity"],
            config=cfg,
        )
