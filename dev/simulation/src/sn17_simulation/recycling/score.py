"""Runs of many cases, and what they say with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import Final

from sn17_simulation.recycling.case import LEAKS, Case, Fault, Result
from sn17_simulation.recycling.guarded import Guarded
from sn17_simulation.recycling.operated import Operated
from sn17_simulation.recycling.rivals import THRESHOLDS, Restarted, SelfExit, Threshold
from sn17_simulation.recycling.world import Caretaker, World

T95: Final = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t, two-sided 95 %, by the number of pairs."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way, with all its settings that are tried; the best of them is shown."""

    name: str
    makers: tuple[tuple[str, Callable[[], Caretaker]], ...]
    without_fault: bool = False


def _swept(kind: Callable[[float], Caretaker]) -> tuple[tuple[str, Callable[[], Caretaker]], ...]:
    return tuple((f"{share:.0%}", lambda share=share: kind(share)) for share in THRESHOLDS)


NO_FAULT: Final = "no fault"
SN17: Final = "sn17"
GUARD: Final = "guard with swaps, no operator"
PM2: Final = "restart at a threshold (PM2)"
SELF_EXIT: Final = "self-exit after a job"
ARMS: Final = (
    Arm(NO_FAULT, (("", Operated),), without_fault=True),
    Arm("nothing", (("", Caretaker),)),
    Arm("restart when killed (OOM)", (("", Restarted),)),
    Arm(PM2, _swept(Threshold)),
    Arm(SELF_EXIT, _swept(SelfExit)),
    Arm(GUARD, (("", Guarded),)),
    Arm(SN17, (("", Operated),)),
)
THRESHOLD_MATTERS: Final = {*LEAKS, Fault.SERVICE_LEAK, Fault.TMPFS_LEAK}
RIVALS: Final = ("nothing", "restart when killed (OOM)", PM2, SELF_EXIT)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds with its 95 % interval."""

    mean: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate:
    """Student's interval; without spread or with one value it is the value itself."""
    mean = fmean(values)
    if len(values) < 2:
        return Estimate(mean, mean, mean)
    half = T95[len(values)] * stdev(values) / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


@dataclass(frozen=True, slots=True)
class Cell:
    """What one arm came to in one case, over the seeds; ``setting`` is the best of those tried."""

    arm: str
    setting: str
    runs: tuple[Result, ...]

    def mean(self, figure: Callable[[Result], float]) -> Estimate:
        """Of one figure."""
        return estimate([figure(run) for run in self.runs])

    def against(self, other: Cell) -> Estimate:
        """Accepted per hour as a ratio, paired by seed; nothing accepted there: no ratio is known."""
        return estimate(
            [
                a.accepted_per_hour / b.accepted_per_hour
                for a, b in zip(self.runs, other.runs, strict=True)
                if b.accepted
            ]
        )


def play(case: Case, caretaker: Caretaker) -> Result:
    """One run."""
    return World(case, caretaker).run()


@cache
def _without_fault(case: Case) -> Result:
    return play(case, Operated())


def compare(
    fault: Fault, load: float, load_seconds: float, job_seconds: float, seeds: int, arms: Sequence[Arm] = ARMS
) -> dict[str, Cell]:
    """All arms on the same tasks and seeds; of an arm's settings the one with the most accepted results."""
    found = {}
    for arm in arms:
        if arm.without_fault:
            cases = [Case(Fault.LEAK_0, load, load_seconds, job_seconds, seed) for seed in range(seeds)]
            found[arm.name] = Cell(arm.name, "", tuple(_without_fault(case) for case in cases))
            continue
        cases = [Case(fault, load, load_seconds, job_seconds, seed) for seed in range(seeds)]
        # Where no memory grows no threshold is reached, whichever it is.
        makers = arm.makers if fault in THRESHOLD_MATTERS else arm.makers[-1:]
        tried = [
            Cell(arm.name, setting, tuple(play(case, make()) for case in cases)) for setting, make in makers
        ]
        found[arm.name] = max(tried, key=lambda cell: sum(run.accepted for run in cell.runs))
    return found


def best_rival(cells: dict[str, Cell]) -> Cell:
    """The rival with the most accepted results."""
    return max((cells[name] for name in RIVALS), key=lambda cell: sum(run.accepted for run in cell.runs))
