"""The fast way to run the flows on a GPU; the same numbers as the plain modules up to rounding.

Per request: adaLN modulation of all steps, keys and values of the condition, voxel tables. Per guided step:
both branches as one batch. The blocks are compiled once each and serve every layer; the structure flow, whose
shapes never change, is replayed as a CUDA graph.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sn17_trellis.engine import fused, fused_conv
from sn17_trellis.engine.config import SamplerParams
from sn17_trellis.engine.fused_conv import ConvWeights, LevelTables, ResBlockWeights
from sn17_trellis.engine.latents import LatentFlow
from sn17_trellis.engine.layers import CrossAttention, ModulatedBlock
from sn17_trellis.engine.runners import thousandths
from sn17_trellis.engine.sampler import Velocity
from sn17_trellis.engine.sparse import SparseResBlock
from sn17_trellis.engine.structure import StructureFlow
from sn17_trellis.engine.voxels import Coarsening, Voxels

log = logging.getLogger(__name__)


class Kernels:
    """The fused functions, compiled or as they are (the plain form is for tests and for debugging)."""

    def __init__(self, *, compiled: bool) -> None:
        def prepare(function: Callable[..., Any]) -> Callable[..., Any]:
            return torch.compile(function, fullgraph=True) if compiled else function

        if compiled:
            # One function serves several widths, batch sizes and models; each is a variant of its own.
            torch._dynamo.config.recompile_limit = 64
        self.block_step = prepare(fused.block_step)
        self.modulate = prepare(fused.modulate)
        self.activate = prepare(fused_conv.activate)
        self.modulated_activate = prepare(fused_conv.modulated_activate)
        self.sum_neighbours = prepare(fused_conv.sum_neighbours)
        self.gather_neighbours = prepare(fused_conv.gather_neighbours)


def _any_length(*tensors: Tensor, axis: int = 1) -> None:
    """Compile for any number of voxels at once instead of for the first one seen."""
    for tensor in tensors:
        torch._dynamo.maybe_mark_dynamic(tensor, axis)


class _Torso:
    """The blocks of one flow and what is computed per request for them."""

    def __init__(self, flow: StructureFlow | LatentFlow, kernels: Kernels) -> None:
        blocks = [block for block in flow.blocks if isinstance(block, ModulatedBlock)]
        self._t_embedder = flow.t_embedder
        self._adaln = [block.adaLN_modulation for block in blocks]
        self._cross: list[CrossAttention] = [block.cross_attn for block in blocks]
        self._weights = [fused.BlockWeights.of(block) for block in blocks]
        self._kernels = kernels
        self.dtype = flow.torso

    def time_embeddings(self, times: Tensor) -> Tensor:
        """[steps, C] in the torso's dtype."""
        out: Tensor = self._t_embedder(times).to(self.dtype)
        return out

    def modulations(self, t_emb: Tensor) -> Tensor:
        """All blocks' modulation at all steps, [steps, blocks + 1, 6, C]; the last row is zeros."""
        rows = [layer(t_emb).unflatten(-1, (6, -1)) for layer in self._adaln]
        return torch.stack([*rows, torch.zeros_like(rows[0])], dim=1)

    def keys_values(self, cond: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Per block keys and values [B, M, H, D] of the condition."""
        cond = cond.to(self.dtype)
        pairs = [cross.keys_values(cond) for cross in self._cross]
        return [(k.contiguous(), v.contiguous()) for k, v in pairs]

    def run(self, x: Tensor, modulation: Tensor, keys_values: list[tuple[Tensor, Tensor]]) -> Tensor:
        """All blocks over tokens [B, L, C] with one step's modulation [blocks + 1, 6, C]."""
        mods = modulation.unbind(0)
        h = self._kernels.modulate(x, mods[0][0], mods[0][1])
        for index, weights in enumerate(self._weights):
            key, value = keys_values[index]
            batch = x.shape[0]
            x, h = self._kernels.block_step(
                x, h, weights, mods[index], mods[index + 1], key[:batch], value[:batch]
            )
        return x


class _StructureState:
    """One structure flow: static buffers that its CUDA graphs read, and the graphs by batch size."""

    def __init__(self, flow: StructureFlow, kernels: Kernels, *, graphs: bool) -> None:
        self._flow = flow
        self._torso = _Torso(flow, kernels)
        self._use_graphs = graphs
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._x: Tensor | None = None
        self._modulation: Tensor | None = None
        self._keys_values: list[tuple[Tensor, Tensor]] = []
        self._table: Tensor | None = None
        self._table_key: SamplerParams | None = None

    def bind(self, params: SamplerParams, cond: Tensor, neg: Tensor) -> _StructureVelocity:
        """Tables of one request. The order of branches is condition, absence."""
        if self._table is None or self._table_key != params:
            self._table = self._torso.modulations(
                self._torso.time_embeddings(thousandths(params, cond.device))
            )
            self._table_key = params
        fresh = self._torso.keys_values(torch.cat([cond, neg]))
        held = self._keys_values
        if self._use_graphs and held and held[0][0].shape == fresh[0][0].shape:
            for (key, value), (new_key, new_value) in zip(held, fresh, strict=True):
                key.copy_(new_key)
                value.copy_(new_value)
        else:
            self._keys_values = fresh
            self._graphs.clear()
        return _StructureVelocity(self)

    def velocity(self, x: Tensor, step: int, batch: int) -> Tensor:
        """[1, C, r, r, r] to [batch, C, r, r, r]; valid until the next call."""
        assert self._table is not None
        if not self._use_graphs:
            return self._forward(x, self._table[step], batch)
        if self._x is None or self._modulation is None:
            self._x, self._modulation = x.clone(), self._table[step].clone()
        self._x.copy_(x)
        self._modulation.copy_(self._table[step])
        if batch not in self._graphs:
            self._graphs[batch] = self._capture(batch)
        graph, out = self._graphs[batch]
        graph.replay()
        return out

    def _forward(self, x: Tensor, modulation: Tensor, batch: int) -> Tensor:
        tokens = self._flow.embed(x).expand(batch, -1, -1).contiguous()
        return self._flow.head(self._torso.run(tokens, modulation, self._keys_values))

    def _capture(self, batch: int) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        assert self._x is not None
        assert self._modulation is not None
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._forward(self._x, self._modulation, batch)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self._graphs.values()))[0].pool() if self._graphs else None
        with torch.cuda.graph(graph, pool=pool):
            out = self._forward(self._x, self._modulation, batch)
        return graph, out


class _StructureVelocity:
    def __init__(self, state: _StructureState) -> None:
        self._state = state

    def plain(self, x: Tensor, step: int) -> Tensor:
        return self._state.velocity(x, step, 1)

    def guided(self, x: Tensor, step: int, strength: float) -> Tensor:
        both = self._state.velocity(x, step, 2)
        return (1 + strength) * both[:1] - strength * both[1:]


class _LatentState:
    """One latent flow with its weights arranged for the fast path."""

    def __init__(self, flow: LatentFlow, kernels: Kernels) -> None:
        self.flow = flow
        self.torso = _Torso(flow, kernels)
        self.kernels = kernels
        self.input_blocks = [ResBlockWeights(b) for b in flow.input_blocks if isinstance(b, SparseResBlock)]
        self.out_blocks = [ResBlockWeights(b) for b in flow.out_blocks if isinstance(b, SparseResBlock)]


class _LatentVelocity:
    """One request: one object's voxels, one condition, one time sequence."""

    def __init__(
        self, state: _LatentState, params: SamplerParams, cond: Tensor, neg: Tensor, voxels: Voxels
    ) -> None:
        self._state = state
        self._kernels = state.kernels
        torso, flow = state.torso, state.flow
        t_emb = torso.time_embeddings(thousandths(params, cond.device))
        self._modulations = torso.modulations(t_emb)
        self._embeddings = {
            id(block): block.emb_layers(t_emb).chunk(2, dim=-1)
            for block in (*state.input_blocks, *state.out_blocks)
        }
        self._keys_values = torso.keys_values(torch.cat([cond, neg]))
        grids = flow.levels(voxels)
        self._coarse: list[Coarsening] = [grid.coarse for grid in grids[:-1]]
        self._tables = [LevelTables.of(grid, has_coarse=grid is not grids[-1]) for grid in grids]
        self._position = flow.position(grids[-1])

    def plain(self, x: Tensor, step: int) -> Tensor:
        return self._forward(x, step, 1)[0]

    def guided(self, x: Tensor, step: int, strength: float) -> Tensor:
        both = self._forward(x, step, 2)
        return (1 + strength) * both[0] - strength * both[1]

    def _forward(self, x: Tensor, step: int, batch: int) -> Tensor:
        flow, state = self._state.flow, self._state
        # Both branches start from the same state: they part at the first cross-attention.
        h = flow.input_layer(x)[None].to(state.torso.dtype)
        level, skips = 0, []
        for block in state.input_blocks:
            if block.resample == "down":
                h = self._coarse[level].pool(h)
                level += 1
            h = self._res_block(block, h, step, self._tables[level])
            skips.append(h)
        h = (h + self._position).expand(batch, -1, -1).contiguous()
        _any_length(h)
        h = state.torso.run(h, self._modulations[step], self._keys_values)
        for block in state.out_blocks:
            if flow.config.use_skip_connection:
                h = torch.cat([h, skips.pop().expand(batch, -1, -1)], dim=-1)
            if block.resample == "up":
                level -= 1
                h = self._res_block(block, h, step, self._tables[level], self._coarse[level])
            else:
                h = self._res_block(block, h, step, self._tables[level])
        return flow.head(h)

    def _res_block(
        self, block: ResBlockWeights, x: Tensor, step: int, tables: LevelTables, up: Coarsening | None = None
    ) -> Tensor:
        """With `up`, x lies on the coarse level: norm, SiLU, products and skip commute with spreading."""
        scale, shift = (part[step] for part in self._embeddings[id(block)])
        _any_length(x)
        h = self._kernels.activate(x, *block.norm1)
        h = self._conv(block.conv1, h, tables, up)
        h = self._kernels.modulated_activate(h, scale, shift)
        h = self._conv(block.conv2, h, tables, None)
        skip = x if block.skip is None else block.skip(x)
        return h + (skip if up is None else up.spread(skip))

    def _conv(self, conv: ConvWeights, x: Tensor, tables: LevelTables, up: Coarsening | None) -> Tensor:
        slots = tables.slots
        if up is not None:
            if conv.products_first and tables.up_slots is not None:
                slots = tables.up_slots
            else:
                x = up.spread(x)
        if conv.products_first:
            products = conv.products(x)
            _any_length(products)
            _any_length(slots, axis=0)
            out: Tensor = self._kernels.sum_neighbours(products, slots, conv.bias)
            return out
        _any_length(x)
        _any_length(tables.rows, axis=0)
        return nn.functional.linear(self._kernels.gather_neighbours(x, tables.rows), conv.matrix, conv.bias)


class FastRunner:
    """Runs flows by compiled blocks; holds every flow it has run, and what it prepared for it.

    `compiled` and `graphs` exist for tests: without them the same arithmetic runs on any device. Graphs need
    CUDA.
    """

    def __init__(self, *, compiled: bool = True, graphs: bool = True) -> None:
        self._kernels = Kernels(compiled=compiled)
        self._graphs = graphs
        self._structure: dict[StructureFlow, _StructureState] = {}
        self._latents: dict[LatentFlow, _LatentState] = {}

    def structure(self, flow: StructureFlow, params: SamplerParams, cond: Tensor, neg: Tensor) -> Velocity:
        """Velocity of the structure latent; one request per flow at a time."""
        if flow not in self._structure:
            self._structure[flow] = _StructureState(flow, self._kernels, graphs=self._graphs)
        return self._structure[flow].bind(params, cond, neg)

    def latents(
        self, flow: LatentFlow, params: SamplerParams, cond: Tensor, neg: Tensor, voxels: Voxels
    ) -> Velocity:
        """Velocity of the structured latents of one object."""
        if flow not in self._latents:
            self._latents[flow] = _LatentState(flow, self._kernels)
        return _LatentVelocity(self._latents[flow], params, cond, neg, voxels)
