"""The fast way to run the flows on a GPU; the same numbers as the plain modules up to rounding.

Per request: adaLN modulation of all steps, keys and values of the condition, voxel tables. Per guided step:
both branches as one batch, and what comes before the first cross-attention once for both. Every step is
replayed as a CUDA graph: the structure flow's are kept, since its shapes never change; the latents' last for
one request.
"""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch import Tensor

from sn17_trellis.engine import fused
from sn17_trellis.engine.config import SamplerParams
from sn17_trellis.engine.fast_gaussians import FusedGaussianDecoder
from sn17_trellis.engine.fused_blocks import FusedBlock, FusedResBlock, KeysValues, LevelTables
from sn17_trellis.engine.gaussians import GaussianDecoder
from sn17_trellis.engine.graphs import GraphMemory, Replays
from sn17_trellis.engine.latents import LatentFlow
from sn17_trellis.engine.layers import ModulatedBlock
from sn17_trellis.engine.runners import timesteps
from sn17_trellis.engine.sampler import RUN, Deep, Velocity
from sn17_trellis.engine.sparse import SparseResBlock
from sn17_trellis.engine.structure import StructureFlow
from sn17_trellis.engine.voxels import Coarsening, Voxels

KEPT, CACHED = 2, 4
"""Added to the number of branches, keys of recordings that keep what the deep blocks contribute or use it."""
CUTS = frozenset((2, 6, 14))
"""Blocks after which a recording is cut, so that the GPU runs one piece while the host records the next."""


class _Blocks:
    """The blocks of one flow and what is computed per request for them."""

    def __init__(self, flow: StructureFlow | LatentFlow, *, hopper: bool) -> None:
        self._t_embedder = flow.t_embedder
        blocks = (block for block in flow.blocks if isinstance(block, ModulatedBlock))
        self._blocks = [FusedBlock(block, hopper=hopper) for block in blocks]
        self.dtype = flow.transformer_dtype
        self._tables: tuple[Tensor, Tensor] | None = None
        self._table_key: SamplerParams | None = None

    def tables(self, params: SamplerParams, device: torch.device) -> tuple[Tensor, Tensor]:
        """Of all steps: embeddings of their times [steps, C], and all blocks' modulation.

        [steps, blocks + 1, 6, C], the last row zeros; both in the transformer's dtype. Those of the last
        parameters are kept.
        """
        if self._tables is None or self._table_key != params:
            t_emb: Tensor = self._t_embedder(timesteps(params, device)).to(self.dtype)
            rows = [each.block.adaLN_modulation(t_emb).view(len(t_emb), 6, -1) for each in self._blocks]
            self._tables = t_emb, torch.stack([*rows, torch.zeros_like(rows[0])], dim=1)
            self._table_key = params
        return self._tables

    def keys_values(self, cond: Tensor) -> list[KeysValues]:
        """Per block keys and values of the condition."""
        cond = cond.to(self.dtype)
        pairs = [each.block.cross_attn.keys_values(cond) for each in self._blocks]
        return [(k.contiguous(), v.contiguous()) for k, v in pairs]

    def run(
        self,
        x: Tensor,
        modulation: Tensor,
        keys_values: list[KeysValues],
        batch: int,
        *,
        h: Tensor | None = None,
        first: int = 0,
        last: int | None = None,
    ) -> Generator[None, None, tuple[Tensor, Tensor]]:
        """Blocks `first` to `last` over tokens with one step's modulation [blocks + 1, 6, C].

        x [1, L, C] becomes [B, L, C], a branch for each of the first B = `batch` conditions: they part at
        the first cross-attention. The second result, and `h` of the next call, is x normed for what follows.
        """
        mods = modulation.unbind(0)
        if h is None:
            _, h = fused.residual_norm(x, None, None, mods[first][1], mods[first][0], modulate=True)
        for index in range(first, len(self._blocks) if last is None else last):
            key, value = keys_values[index]
            x, h = self._blocks[index](x, h, mods[index], mods[index + 1], (key[:batch], value[:batch]))
            if index + 1 in CUTS:
                yield
        return x, h


class _StructureState:
    """One structure flow: static buffers that its graphs read, and the graphs by batch size."""

    def __init__(self, flow: StructureFlow, memory: GraphMemory | None, *, hopper: bool) -> None:
        self._flow = flow
        self._blocks = _Blocks(flow, hopper=hopper)
        self._memory = memory
        self._replays = Replays(memory)
        self._x: Tensor | None = None
        self._modulation: Tensor | None = None
        self._contributions: Tensor | None = None
        self._slopes: Tensor | None = None
        self._keys_values: list[KeysValues] = []
        self._table: Tensor | None = None

    def bind(self, params: SamplerParams, cond: Tensor, uncond: Tensor) -> _StructureVelocity:
        """Tables of one request. The order of branches is condition, absence."""
        _, self._table = self._blocks.tables(params, cond.device)
        fresh = self._blocks.keys_values(torch.cat([cond, uncond]))
        held = self._keys_values
        if held and held[0][0].shape == fresh[0][0].shape:
            for (key, value), (new_key, new_value) in zip(held, fresh, strict=True):
                key.copy_(new_key)
                value.copy_(new_value)
        else:
            self._keys_values = fresh
            self.free()
        return _StructureVelocity(self)

    def free(self) -> None:
        """Let go of the graphs; they are made again when they are wanted."""
        self._replays = Replays(self._memory)

    def velocity(self, x: Tensor, step: int, batch: int, deep: Deep) -> Tensor:
        """[1, C, r, r, r] to [batch, C, r, r, r]; valid until the next call."""
        assert self._table is not None
        if self._x is None or self._modulation is None:
            self._x, self._modulation = x.clone(), self._table[step].clone()
        held, modulation = self._x.copy_(x), self._modulation.copy_(self._table[step])
        key = batch
        if deep.carried is not None:
            assert self._slopes is not None
            self._slopes[:batch].copy_(torch.tensor(deep.carried)[:, None, None], non_blocking=True)
            key += CACHED
        elif deep.kept:
            key += KEPT
        return self._replays.run(key, lambda: self._forward(held, modulation, batch, deep))

    def _forward(
        self, x: Tensor, modulation: Tensor, batch: int, deep: Deep
    ) -> Generator[None, None, Tensor]:
        blocks, tokens = self._blocks, self._flow.embed(x)
        first, h = yield from blocks.run(tokens, modulation, self._keys_values, batch, last=1)
        if deep.carried is not None:
            assert self._contributions is not None
            assert self._slopes is not None
            before, last = self._contributions[:, :batch]
            return self._flow.head(first + torch.lerp(before, last, 1 + self._slopes[:batch]))
        out, _ = yield from blocks.run(first, modulation, self._keys_values, batch, h=h, first=1)
        if deep.kept:
            self._keep(out, first)
        return self._flow.head(out)

    def _keep(self, out: Tensor, first: Tensor) -> None:
        """What the deep blocks contributed, and beside it what they did the time before."""
        if self._contributions is None or self._slopes is None:
            self._contributions = first.new_zeros((2, 2, *first.shape[1:]))
            self._slopes = first.new_zeros((2, 1, 1))
        before, last = self._contributions[:, : len(first)]
        before.copy_(last)
        torch.sub(out, first, out=last)


class _StructureVelocity:
    def __init__(self, state: _StructureState) -> None:
        self._state = state

    def branches(self, x: Tensor, step: int, count: int, deep: Deep = RUN) -> tuple[Tensor, ...]:
        out = self._state.velocity(x, step, count, deep)
        return tuple(out[branch : branch + 1] for branch in range(count))


class _LatentState:
    """One latent flow with its weights arranged for the fast path.

    `seen`: numbers of branches whose kernels are compiled, for any number of voxels.
    """

    def __init__(self, flow: LatentFlow, memory: GraphMemory | None, *, hopper: bool) -> None:
        self.flow = flow
        self.memory = memory
        self.seen = set[int]()
        self.blocks = _Blocks(flow, hopper=hopper)
        self.input_blocks = [FusedResBlock(b) for b in flow.input_blocks if isinstance(b, SparseResBlock)]
        self.out_blocks = [FusedResBlock(b) for b in flow.out_blocks if isinstance(b, SparseResBlock)]


class _LatentVelocity:
    """One request: one object's voxels, one condition, one time sequence."""

    def __init__(
        self, state: _LatentState, params: SamplerParams, cond: Tensor, uncond: Tensor, voxels: Voxels
    ) -> None:
        self._state = state
        blocks, flow = state.blocks, state.flow
        t_emb, self._modulations = blocks.tables(params, cond.device)
        scales = [block.emb_layers(t_emb) for block in (*state.input_blocks, *state.out_blocks)]
        self._widths = [scale.shape[1] for scale in scales]
        self._embeddings = torch.cat(scales, dim=1)
        self._keys_values = blocks.keys_values(torch.cat([cond, uncond]))
        grids = flow.levels(voxels)
        self._coarse: list[Coarsening] = [grid.coarse for grid in grids[:-1]]
        self._tables = [LevelTables.of(grid, has_coarse=grid is not grids[-1]) for grid in grids]
        self._position = flow.position(grids[-1])
        self._x = torch.empty((len(voxels), flow.config.in_channels), device=cond.device)
        self._modulation = torch.empty_like(self._modulations[0])
        self._embedding = torch.empty_like(self._embeddings[0])
        self._replays = Replays(state.memory, state.seen)

    def branches(self, x: Tensor, step: int, count: int, deep: Deep = RUN) -> tuple[Tensor, ...]:
        assert deep == RUN
        return self._run(x, step, count).unbind(0)

    def _run(self, x: Tensor, step: int, batch: int) -> Tensor:
        self._x.copy_(x)
        self._modulation.copy_(self._modulations[step])
        self._embedding.copy_(self._embeddings[step])
        return self._replays.run(batch, lambda: self._forward(batch))

    def _forward(self, batch: int) -> Generator[None, None, Tensor]:
        flow, state = self._state.flow, self._state
        embeddings = iter(torch.split(self._embedding, self._widths))
        h = flow.input_layer(self._x)[None].to(state.blocks.dtype)
        level, skips = 0, []
        for block in state.input_blocks:
            if block.resample == "down":
                h = self._coarse[level].pool(h)
                level += 1
            scale, shift = next(embeddings).chunk(2)
            h = block(h, scale, shift, self._tables[level])
            skips.append(h)
        h, _ = yield from state.blocks.run(h + self._position, self._modulation, self._keys_values, batch)
        for block in state.out_blocks:
            if flow.config.use_skip_connection:
                h = torch.cat([h, skips.pop().expand(batch, -1, -1)], dim=-1)
            up = None
            if block.resample == "up":
                level -= 1
                up = self._coarse[level]
            scale, shift = next(embeddings).chunk(2)
            h = block(h, scale, shift, self._tables[level], up)
        return flow.head(h)


class FastRunner:
    """Runs flows by fused blocks; holds every flow it has run, and what it prepared for it.

    `graphs` needs CUDA; without it the same arithmetic runs on any device. `hopper` False: without the
    attention kernel for Hopper GPUs.
    """

    def __init__(self, *, graphs: bool = True, hopper: bool = True) -> None:
        fused.without_workspace()
        fused.growing_segments()
        self._memory = GraphMemory() if graphs else None
        self._hopper = hopper
        self._structure: dict[StructureFlow, _StructureState] = {}
        self._latents: dict[LatentFlow, _LatentState] = {}
        self._decoders: dict[GaussianDecoder, FusedGaussianDecoder] = {}

    def structure(self, flow: StructureFlow, params: SamplerParams, cond: Tensor, uncond: Tensor) -> Velocity:
        """Velocity of the structure latent; one request per flow at a time."""
        if flow not in self._structure:
            self._structure[flow] = _StructureState(flow, self._memory, hopper=self._hopper)
        return self._structure[flow].bind(params, cond, uncond)

    def latents(
        self, flow: LatentFlow, params: SamplerParams, cond: Tensor, uncond: Tensor, voxels: Voxels
    ) -> Velocity:
        """Velocity of the structured latents of one object."""
        if flow not in self._latents:
            self._latents[flow] = _LatentState(flow, self._memory, hopper=self._hopper)
        return _LatentVelocity(self._latents[flow], params, cond, uncond, voxels)

    def gaussians(self, decoder: GaussianDecoder, latents: Tensor, voxels: Voxels) -> Tensor:
        """Raw channels of each voxel's gaussians."""
        if decoder not in self._decoders:
            self._decoders[decoder] = FusedGaussianDecoder(decoder)
        return self._decoders[decoder](latents, voxels)

    def free(self) -> None:
        """Let go of graphs and their memory; the next request makes them anew."""
        for state in self._structure.values():
            state.free()
        if self._memory is not None:
            self._memory.free()
