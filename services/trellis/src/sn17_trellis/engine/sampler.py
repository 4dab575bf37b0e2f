"""Flow-Euler sampling with classifier-free guidance inside an interval of time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sn17_trellis.engine.config import SamplerParams

OnStep = Callable[[int, int], None]
"""Called with (steps done, steps in all), first with 0 and then once per finished step; raising ends it."""

STEPS_AHEAD = 2
"""Steps a GPU is given beyond those known to be finished: so it never waits, and yet a caller can leave."""


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
    pace = _Pace(params.steps, on_step, noise.device)
    x = noise
    for step, (t, following) in enumerate(pairwise(times)):
        guided = is_guided(params, t)
        v = velocity.guided(x, step, params.cfg_strength) if guided else velocity.plain(x, step)
        x = x - float(t - following) * v
        pace.given()
    pace.finish()
    return x


class _Pace:
    """Reports steps when the device has done them, not when it was given them."""

    def __init__(self, steps: int, on_step: OnStep | None, device: torch.device) -> None:
        self._steps = steps
        self._on_step = on_step
        self._device = device
        self._done = 0
        self._pending: deque[torch.cuda.Event] = deque()
        if on_step is not None:
            on_step(0, steps)

    def given(self) -> None:
        if self._on_step is None:
            return
        if self._device.type != "cuda":
            self._report()
            return
        # A blocking event sleeps instead of turning a core at full speed.
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record()
        self._pending.append(event)
        if len(self._pending) > STEPS_AHEAD:
            self._wait()

    def finish(self) -> None:
        while self._pending:
            self._wait()

    def _wait(self) -> None:
        self._pending.popleft().synchronize()
        self._report()

    def _report(self) -> None:
        assert self._on_step is not None
        self._done += 1
        self._on_step(self._done, self._steps)
