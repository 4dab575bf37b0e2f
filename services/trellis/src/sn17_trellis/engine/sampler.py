"""Flow-Euler sampling with classifier-free guidance inside an interval of time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sn17_trellis.engine.config import SamplerParams

OnStep = Callable[[int, int], None]
"""Called before each step with (steps done, steps in all); raising ends the sampling."""


class Velocity(Protocol):
    """A flow with its condition bound. `step` indexes the time sequence the provider was made for."""

    def plain(self, x: Tensor, step: int) -> Tensor:
        """Velocity under the condition alone."""
        ...

    def guided(self, x: Tensor, step: int, strength: float) -> Tensor:
        """(1 + strength) * conditional - strength * unconditional."""
        ...


def time_sequence(params: SamplerParams) -> NDArray[np.float64]:
    """Times from 1 to 0, steps + 1 of them: t' = r t / (1 + (r - 1) t) with r = `rescale_t`."""
    t = np.linspace(1, 0, params.steps + 1)
    return params.rescale_t * t / (1 + (params.rescale_t - 1) * t)


def is_guided(params: SamplerParams, t: float) -> bool:
    """Whether the step at time t evaluates both branches; a strength of zero needs only one."""
    low, high = params.cfg_interval
    return params.cfg_strength > 0 and low <= t <= high


def forward_count(params: SamplerParams) -> int:
    """Network evaluations of one sampling, a guided step counting twice."""
    return sum(1 + is_guided(params, t) for t in time_sequence(params)[:-1])


def sample(velocity: Velocity, noise: Tensor, params: SamplerParams, on_step: OnStep | None = None) -> Tensor:
    """Integrate from noise at t = 1 to data at t = 0; the state stays float32."""
    times = time_sequence(params)
    x = noise
    for step, (t, following) in enumerate(pairwise(times)):
        if on_step is not None:
            on_step(step, params.steps)
        guided = is_guided(params, t)
        v = velocity.guided(x, step, params.cfg_strength) if guided else velocity.plain(x, step)
        x = x - float(t - following) * v
    return x
