"""Index tables over a set of occupied voxels: made once per request, used by every convolution and window.

Coordinates are int32 [N, 4] rows (object, x, y, z), unique, in lexicographic order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as fn
from torch import Tensor


def _flat(coords: Tensor, size: int) -> Tensor:
    """Lexicographic rank of each coordinate in a [objects, size, size, size] grid, int64."""
    b, x, y, z = coords.long().unbind(1)
    return ((b * size + x) * size + y) * size + z


@dataclass(slots=True, eq=False)
class Voxels:
    """Occupied voxels at one resolution.

    `resolution` is the grid's edge; missing neighbours point at row N, which readers pad with zeros.
    """

    coords: Tensor
    resolution: int
    objects: int = 1
    _neighbours: Tensor | None = field(default=None, init=False, repr=False)
    _coarse: Coarsening | None = field(default=None, init=False, repr=False)

    def __len__(self) -> int:
        return self.coords.shape[0]

    @property
    def batch(self) -> Tensor:
        """Object of each voxel, int64 [N]."""
        return self.coords[:, 0].long()

    @property
    def neighbours(self) -> Tensor:
        """Row of the neighbour at each of the 27 offsets (x, y, z from -1 to 1, z fastest), int64 [N, 27]."""
        if self._neighbours is None:
            size = self.resolution + 2
            padded = _flat(self.coords + self.coords.new_tensor([0, 1, 1, 1]), size)
            rows = torch.full((self.objects * size**3,), len(self), dtype=torch.int64, device=padded.device)
            rows[padded] = torch.arange(len(self), device=padded.device)
            step = torch.arange(-1, 2, device=padded.device)
            offsets = (step[:, None, None] * size + step[:, None]) * size + step
            self._neighbours = rows[padded[:, None] + offsets.flatten()]
        return self._neighbours

    @property
    def coarse(self) -> Coarsening:
        """The voxels of half the resolution that contain these."""
        if self._coarse is None:
            self._coarse = Coarsening.of(self)
        return self._coarse


@dataclass(slots=True, eq=False)
class Coarsening:
    """How fine voxels relate to the coarse ones that contain them.

    `parent` int64 [N]: coarse row of each fine voxel. `children` int64 [Nc, 8]: fine rows, row N where
    absent. `divisor` float32 [Nc, 1]: children + 1, the released models' mean divisor (they were trained
    with the zero-initialised accumulator counted in).
    """

    voxels: Voxels
    parent: Tensor
    children: Tensor
    divisor: Tensor

    @classmethod
    def of(cls, fine: Voxels) -> Coarsening:
        size = (fine.resolution + 1) // 2
        halved = torch.cat([fine.coords[:, :1], fine.coords[:, 1:] // 2], dim=1)
        codes, parent, counts = torch.unique(_flat(halved, size), return_inverse=True, return_counts=True)
        axes = [codes // size**3, codes // size**2 % size, codes // size % size, codes % size]
        coords = torch.stack(axes, dim=1).to(torch.int32)
        odd = fine.coords[:, 1:].long() & 1
        children = torch.full((len(codes), 8), len(fine), dtype=torch.int64, device=codes.device)
        children[parent, odd[:, 0] * 4 + odd[:, 1] * 2 + odd[:, 2]] = torch.arange(
            len(fine), device=codes.device
        )
        return cls(
            voxels=Voxels(coords, size, fine.objects),
            parent=parent,
            children=children,
            divisor=(counts + 1).float()[:, None],
        )

    def pool(self, feats: Tensor) -> Tensor:
        """Sum of the children over (children + 1): [B, N, C] to [B, Nc, C], summed in float32.

        Gathering in a fixed order instead of scattering keeps results the same from run to run on a GPU.
        """
        total: Tensor = _SumChildren.apply(feats, self.children, self.parent)
        return (total / self.divisor).to(feats.dtype)

    def spread(self, feats: Tensor) -> Tensor:
        """Each fine voxel takes its parent's row: [B, Nc, C] to [B, N, C]."""
        out: Tensor = _Spread.apply(feats, self.children, self.parent)
        return out


def _sum_children(feats: Tensor, children: Tensor) -> Tensor:
    return fn.pad(feats, (0, 0, 0, 1))[:, children].sum(2, dtype=torch.float32)


class _SumChildren(torch.autograd.Function):
    """Its gradient is `_Spread` and the other way round: gathers both, where autograd would scatter."""

    @staticmethod
    def forward(ctx: Any, feats: Tensor, children: Tensor, parent: Tensor) -> Tensor:
        ctx.parent, ctx.dtype = parent, feats.dtype
        return _sum_children(feats, children)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad[:, ctx.parent].to(ctx.dtype), None, None


class _Spread(torch.autograd.Function):
    """Each fine voxel takes its parent's row."""

    @staticmethod
    def forward(ctx: Any, feats: Tensor, children: Tensor, parent: Tensor) -> Tensor:
        ctx.children, ctx.dtype = children, feats.dtype
        return feats[:, parent]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _sum_children(grad, ctx.children).to(ctx.dtype), None, None


class GatherNeighbours(torch.autograd.Function):
    """x [B, N, C] and neighbours [M, 27] (row N where absent) to [B, M, 27 * C].

    The gradient needs all voxels (M = N) and uses that being neighbours is mutual: tap t of one is tap
    26 - t of the other. So it is a sum of gathers, as fast as the way forward and the same every time.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, neighbours: Tensor) -> Tensor:
        ctx.neighbours = neighbours
        return fn.pad(x, (0, 0, 0, 1))[:, neighbours].flatten(2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        neighbours: Tensor = ctx.neighbours
        taps = neighbours.shape[1]
        padded = fn.pad(grad, (0, 0, 0, 1))
        padded = padded.view(*padded.shape[:2], taps, -1)
        total = torch.zeros_like(padded[:, :-1, 0], dtype=torch.float32)
        for tap in range(taps):
            total += padded[:, neighbours[:, taps - 1 - tap], tap]
        return total.to(grad.dtype), None


@dataclass(slots=True, eq=False)
class Padding:
    """Tokens of several groups as a padded batch.

    `rows` int64 [groups, L]: token of each place (N where padded); `mask` bool [groups, 1, 1, L]: true for
    real ones; `position` int64 [N]: place of each token in the flattened batch.
    """

    rows: Tensor
    mask: Tensor
    position: Tensor

    @classmethod
    def of(cls, group: Tensor, groups: int) -> Padding:
        """`group` int64 [N]: the group of each token; tokens keep their order within it."""
        counts = torch.bincount(group, minlength=groups)
        order = torch.argsort(group, stable=True)
        start = counts.cumsum(0) - counts
        rank = torch.empty_like(group)
        rank[order] = torch.arange(len(group), device=group.device) - start[group[order]]
        longest = int(counts.max()) if len(group) else 0
        rows = torch.full((groups, longest), len(group), dtype=torch.int64, device=group.device)
        rows[group, rank] = torch.arange(len(group), device=group.device)
        return cls(rows=rows, mask=(rows < len(group))[:, None, None], position=group * longest + rank)

    def pack(self, feats: Tensor) -> Tensor:
        """[N, ...] to [groups, L, ...]."""
        flat = feats.new_zeros((self.rows.numel(), *feats.shape[1:]))
        return flat.index_copy(0, self.position, feats).view(*self.rows.shape, *feats.shape[1:])

    def unpack(self, padded: Tensor) -> Tensor:
        """[groups, L, ...] to [N, ...]."""
        return padded.flatten(0, 1).index_select(0, self.position)


def window_ids(voxels: Voxels, window: int, shift: int) -> tuple[Tensor, Tensor]:
    """Window of each voxel (rank in lexicographic order of windows, int64 [N]) and window sizes (int64 [W]).

    A voxel lies in window (coordinate + shift) // window per axis of its own object.
    """
    place = (voxels.coords[:, 1:] + shift) // window
    size = (voxels.resolution + shift) // window + 1
    code = _flat(torch.cat([voxels.coords[:, :1], place], dim=1), size)
    _, rank, counts = torch.unique(code, return_inverse=True, return_counts=True)
    return rank, counts


def shell(count: int, resolution: int, device: torch.device) -> Voxels:
    """The `count` voxels nearest to a bumpy sphere's surface: a structure such as objects have."""
    count = min(count, resolution**3)
    axis = torch.arange(resolution, dtype=torch.float32) - (resolution - 1) / 2
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    radius = (x**2 + y**2 + z**2).sqrt()
    target = (count / 27) ** 0.5 * 1.15 + 2 * torch.sin(x / 4) * torch.cos(y / 5)
    nearest = (radius - target).abs().flatten().argsort(stable=True)[:count].sort().values
    r = resolution
    coords = torch.stack([nearest * 0, nearest // r**2, nearest // r % r, nearest % r], dim=1)
    return Voxels(coords.int().to(device), resolution)
