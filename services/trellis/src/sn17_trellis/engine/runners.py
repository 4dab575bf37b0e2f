"""Flows with a condition bound, in the plain form: it serves every device and is the fast form's oracle."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from sn17_trellis.engine.config import SamplerParams
from sn17_trellis.engine.gaussians import GaussianDecoder
from sn17_trellis.engine.latents import LatentFlow
from sn17_trellis.engine.sampler import RUN, Deep, Velocity, time_sequence
from sn17_trellis.engine.structure import DeepBlocks, StructureFlow
from sn17_trellis.engine.voxels import Voxels


class Runner(Protocol):
    """Makes velocities out of the two flows of one pipeline."""

    def structure(self, flow: StructureFlow, params: SamplerParams, cond: Tensor, uncond: Tensor) -> Velocity:
        """Velocity of the structure latent."""
        ...

    def latents(
        self, flow: LatentFlow, params: SamplerParams, cond: Tensor, uncond: Tensor, voxels: Voxels
    ) -> Velocity:
        """Velocity of the structured latents of one object."""
        ...

    def gaussians(self, decoder: GaussianDecoder, latents: Tensor, voxels: Voxels) -> Tensor:
        """Raw channels of each voxel's gaussians, [N, 14 * gaussians per voxel]."""
        ...

    def free(self) -> None:
        """Let go of device memory that only serves the next request."""
        ...


def timesteps(params: SamplerParams, device: torch.device) -> Tensor:
    """What the networks are given as time at each step: float32(1000 t), [steps]."""
    return torch.from_numpy((1000 * time_sequence(params)[:-1]).astype("float32")).to(device)


class _EagerVelocity:
    """One forward per branch, one after the other."""

    def __init__(
        self,
        flow: StructureFlow | LatentFlow,
        times: Tensor,
        cond: Tensor,
        uncond: Tensor,
        voxels: Voxels | None,
    ) -> None:
        self._flow = flow
        self._times = times
        self._conditions = (cond, uncond)
        self._voxels = voxels
        self._deep = (DeepBlocks(), DeepBlocks())

    def branches(self, x: Tensor, step: int, count: int, deep: Deep = RUN) -> tuple[Tensor, ...]:
        time = self._times[step].expand(len(self._conditions[0]))
        return tuple(self._run(x, time, branch, deep) for branch in range(count))

    def _run(self, x: Tensor, time: Tensor, branch: int, deep: Deep) -> Tensor:
        cond, flow = self._conditions[branch], self._flow
        if isinstance(flow, StructureFlow):
            carried = None if deep.carried is None else deep.carried[branch]
            return flow(x, time, cond, self._deep[branch], carried=carried)  # type: ignore[no-any-return]
        assert self._voxels is not None
        assert deep == RUN
        return flow(x[None], time, cond, self._voxels)[0]  # type: ignore[no-any-return]


class EagerRunner:
    """Calls the modules as they are.

    Several objects at a time: one row of `cond` and `uncond` for each, and their voxels in one set.
    """

    def structure(self, flow: StructureFlow, params: SamplerParams, cond: Tensor, uncond: Tensor) -> Velocity:
        return _EagerVelocity(flow, timesteps(params, cond.device), cond, uncond, None)

    def latents(
        self, flow: LatentFlow, params: SamplerParams, cond: Tensor, uncond: Tensor, voxels: Voxels
    ) -> Velocity:
        return _EagerVelocity(flow, timesteps(params, cond.device), cond, uncond, voxels)

    def gaussians(self, decoder: GaussianDecoder, latents: Tensor, voxels: Voxels) -> Tensor:
        out: Tensor = decoder(latents, voxels)
        return out

    def free(self) -> None:
        """Nothing is kept."""
