"""Flow-Euler sampling (the reference's `FlowEuler*Sampler`) with classifier-free guidance in an interval.

`Savings` leave out work: every value but the defaults is another result, not the same one sooner.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sn17_trellis.engine.config import EXACT, SamplerParams, Savings

OnStep = Callable[[int, int], None]
"""Called with (steps done, steps in all), first with 0 and then once per finished step; raising ends it."""

STEPS_AHEAD = 2
"""Steps a GPU is given beyond those known to be finished: so it never waits, and yet a caller can leave."""


@dataclass(frozen=True, slots=True)
class Deep:
    """What the blocks after the first do at a step of the structure flow.

    `kept`: they run, and a later step needs what they contribute. `carried`: they do not run, but contribute
    for each branch what they did the last time, by so many times the difference from the time before.
    """

    kept: bool = False
    carried: tuple[float, ...] | None = None


RUN = Deep()


class Velocity(Protocol):
    """A flow with its condition bound."""

    def branches(self, x: Tensor, step: int, count: int, deep: Deep = RUN) -> tuple[Tensor, ...]:
        """Velocity under the condition and, where `count` is 2, without it; valid until the next call.

        `step` indexes the time sequence the velocity was made for; `deep` is another than RUN for the
        structure only.
        """
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a plan, from time `t` to `following`.

    `guided` steps combine both branches; `branches` of them are computed, the difference of the two being
    that of an earlier step where only one is.
    """

    t: float
    following: float
    guided: bool
    branches: int
    deep: Deep = RUN

    @property
    def cached(self) -> bool:
        """Whether only the first block runs."""
        return self.deep.carried is not None


def time_sequence(params: SamplerParams) -> NDArray[np.float64]:
    """Times from 1 to 0, steps + 1 of them: t' = r t / (1 + (r - 1) t) with r = `rescale_t`."""
    t = np.linspace(1, 0, params.steps + 1)
    return params.rescale_t * t / (1 + (params.rescale_t - 1) * t)


def is_guided(params: SamplerParams, t: float) -> bool:
    """Whether the step at time t evaluates both branches; a strength of zero needs only one."""
    low, high = params.cfg_interval
    return params.cfg_strength > 0 and low <= t <= high


def plan(params: SamplerParams, savings: Savings = EXACT) -> list[Step]:
    """What each step computes. A step is never cached before as many branches have run in full."""
    steps, guided_steps, in_store = [], 0, 0
    run_at: tuple[list[float], ...] = ([], [])
    for index, (t, following) in enumerate(pairwise(time_sequence(params).tolist())):
        guided = is_guided(params, t)
        branches = 2 if guided and guided_steps % savings.unconditional_every == 0 else 1
        guided_steps += guided
        deep = Deep(kept=savings.full_steps is not None)
        if savings.full_steps is not None and index not in savings.full_steps and branches <= in_store:
            deep = Deep(carried=tuple(savings.forecast * _slopes(at, t) for at in run_at[:branches]))
        else:
            in_store = branches
            for at in run_at[:branches]:
                at.append(t)
        steps.append(Step(t, following, guided, branches, deep))
    return steps


def _slopes(run_at: list[float], t: float) -> float:
    """How far t lies beyond the last of two runs, in distances between the two."""
    return (t - run_at[-1]) / (run_at[-1] - run_at[-2]) if len(run_at) > 1 else 0.0


def forward_count(params: SamplerParams, savings: Savings = EXACT) -> int:
    """Network evaluations of one sampling; a step of both branches counts twice, a cached one not at all."""
    return sum(step.branches for step in plan(params, savings) if not step.cached)


def sample(
    velocity: Velocity,
    noise: Tensor,
    params: SamplerParams,
    on_step: OnStep | None = None,
    savings: Savings = EXACT,
    *,
    steps_ahead: int = STEPS_AHEAD,
) -> Tensor:
    """Integrate from noise at t = 1 to data at t = 0; the state stays float32.

    While ``on_step`` is called the device has at most ``steps_ahead`` further steps to do.
    """
    record, ahead = (_event, steps_ahead) if noise.device.type == "cuda" else (_AlreadyDone, 0)
    pace = Pace(params.steps, on_step, record, ahead)
    strength, history = params.cfg_strength, _History()
    difference = torch.zeros_like(noise)
    x = noise
    for index, step in enumerate(plan(params, savings)):
        given = velocity.branches(x, index, step.branches, step.deep)
        v = given[0]
        if step.guided and step.branches == 2:
            v = (1 + strength) * given[0] - strength * given[1]
            if savings.unconditional_every > 1:
                difference = given[0] - given[1]
        elif step.guided:
            v = given[0] + strength * difference
        if savings.solver == "ab2":
            v = history.extrapolated(v, step)
        x = x - (step.t - step.following) * v
        pace.given()
    pace.finish()
    return x


class _History:
    """Adams-Bashforth of order 2 for steps of any size: the slope is carried on to the step's middle.

    v + (h / 2 h') (v - v') with the step before, of size h' and velocity v'. Where guidance begins or ends
    the velocity jumps, and the first step after it is one of Euler's.
    """

    def __init__(self) -> None:
        self._before: tuple[Tensor, Step] | None = None

    def extrapolated(self, v: Tensor, step: Step) -> Tensor:
        # A velocity may be a buffer that the next step overwrites.
        before, self._before = self._before, (v.clone(), step)
        if before is None or before[1].guided != step.guided:
            return v
        ratio = (step.t - step.following) / (before[1].t - before[1].following)
        return v + 0.5 * ratio * (v - before[0])


class Event(Protocol):
    """A point in the device's work."""

    def synchronize(self) -> None:
        """Wait until the device is there."""
        ...


class _AlreadyDone:
    """On a processor work is done when the call returns."""

    def synchronize(self) -> None:
        pass


def _event() -> Event:
    # A blocking event sleeps instead of turning a core at full speed.
    event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


class Pace:
    """Reports steps when the device has done them, not when it was given them.

    ``record`` records an event behind all that the device has been given; at most ``ahead`` steps are given
    to it beyond those known to be done.
    """

    def __init__(self, steps: int, on_step: OnStep | None, record: Callable[[], Event], ahead: int) -> None:
        self._steps = steps
        self._on_step = on_step
        self._record = record
        self._ahead = ahead
        self._done = 0
        self._pending: deque[Event] = deque()
        if on_step is not None:
            if ahead == 0:
                # What was prepared for the first step is work, too.
                record().synchronize()
            on_step(0, steps)

    def given(self) -> None:
        """The device was given a step."""
        if self._on_step is None:
            return
        self._pending.append(self._record())
        if len(self._pending) > self._ahead:
            self._wait()

    def finish(self) -> None:
        """It was given the last one."""
        while self._pending:
            self._wait()

    def _wait(self) -> None:
        self._pending.popleft().synchronize()
        assert self._on_step is not None
        self._done += 1
        self._on_step(self._done, self._steps)
