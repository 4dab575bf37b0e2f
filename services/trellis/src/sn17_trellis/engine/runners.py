"""Flows with a condition bound, in the plain form: it serves every device and is the fast form's oracle."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from sn17_trellis.engine.config import SamplerParams
from sn17_trellis.engine.latents import LatentFlow
from sn17_trellis.engine.sampler import Velocity, time_sequence
from sn17_trellis.engine.structure import StructureFlow
from sn17_trellis.engine.voxels import Voxels


class Runner(Protocol):
    """Makes velocities out of the two flows of one pipeline."""

    def structure(self, flow: StructureFlow, params: SamplerParams, cond: Tensor, neg: Tensor) -> Velocity:
        """Velocity of the structure latent."""
        ...

    def latents(
        self, flow: LatentFlow, params: SamplerParams, cond: Tensor, neg: Tensor, voxels: Voxels
    ) -> Velocity:
        """Velocity of the structured latents of one object."""
        ...

    def free(self) -> None:
        """Let go of device memory that only serves the next request."""
        ...


def thousandths(params: SamplerParams, device: torch.device) -> Tensor:
    """What the networks are given as time at each step: float32(1000 t), [steps]."""
    return torch.from_numpy((1000 * time_sequence(params)[:-1]).astype("float32")).to(device)


class _EagerVelocity:
    """Two forwards per guided step, one after the other."""

    def __init__(
        self,
        flow: StructureFlow | LatentFlow,
        times: Tensor,
        cond: Tensor,
        neg: Tensor,
        voxels: Voxels | None,
    ) -> None:
        self._flow = flow
        self._times = times
        self._cond = cond
        self._neg = neg
        self._extra = () if voxels is None else (voxels,)

    def _run(self, x: Tensor, step: int, cond: Tensor) -> Tensor:
        out: Tensor = self._flow(x, self._times[step : step + 1], cond, *self._extra)
        return out

    def plain(self, x: Tensor, step: int) -> Tensor:
        return self._run(x, step, self._cond)

    def guided(self, x: Tensor, step: int, strength: float) -> Tensor:
        return (1 + strength) * self._run(x, step, self._cond) - strength * self._run(x, step, self._neg)


class EagerRunner:
    """Calls the modules as they are."""

    def structure(self, flow: StructureFlow, params: SamplerParams, cond: Tensor, neg: Tensor) -> Velocity:
        return _EagerVelocity(flow, thousandths(params, cond.device), cond, neg, None)

    def latents(
        self, flow: LatentFlow, params: SamplerParams, cond: Tensor, neg: Tensor, voxels: Voxels
    ) -> Velocity:
        return _Latents(_EagerVelocity(flow, thousandths(params, cond.device), cond, neg, voxels))

    def free(self) -> None:
        """Nothing is kept."""


class _Latents:
    """Adapts [N, C] sampler states to the flow's [B, N, C]."""

    def __init__(self, inner: Velocity) -> None:
        self._inner = inner

    def plain(self, x: Tensor, step: int) -> Tensor:
        return self._inner.plain(x[None], step)[0]

    def guided(self, x: Tensor, step: int, strength: float) -> Tensor:
        return self._inner.guided(x[None], step, strength)[0]
