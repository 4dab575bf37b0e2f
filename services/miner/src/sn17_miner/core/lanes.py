"""When to ask a worker for the fast lane: only where the exact one would be late and the fast one is not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sn17_contract.tasks import Lane

FAST_SHARE: Final = 0.6
"""Of an exact generation's time, until a fast one was seen: what the engine's tables show, rounded up."""


class FastLane(StrEnum):
    """Which limits of time justify the fast lane. Never a wish for throughput: it costs quality."""

    OFF = "off"
    DEADLINE = "deadline"
    """The task's own life."""
    THROTTLE = "throttle"
    """That, and the time in which a validator takes a result without a longer cooldown."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds. ``exact`` and ``fast`` from the start of a generation to the result's delivery, None until one
    was seen; ``left`` of the task's life; ``free`` of the free window, None where there is none.
    """

    exact: float | None
    fast: float | None
    left: float
    free: float | None


@dataclass(frozen=True, slots=True)
class LaneChoice:
    """``why`` is empty for the exact lane."""

    lane: Lane
    why: str = ""


def choose_lane(mode: FastLane, times: Times, *, refused: bool) -> LaneChoice:
    """The lane of the next generation. ``refused``: a worker has no fast lane for this task."""
    if mode is FastLane.OFF or refused or times.exact is None:
        return LaneChoice(Lane.EXACT)
    fast = times.fast if times.fast is not None else FAST_SHARE * times.exact
    limits = [("of the task's life", times.left)]
    if mode is FastLane.THROTTLE and times.free is not None:
        limits.append(("of the free window", times.free))
    for name, left in limits:
        if fast <= left < times.exact:
            why = f"{left:.1f} s {name} are left; exact takes {times.exact:.1f} s, fast {fast:.1f} s"
            return LaneChoice(Lane.FAST, why)
    return LaneChoice(Lane.EXACT)
