"""What a run of the real stack on the local validators measured, and the same run in virtual time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Final

from sn17_miner.core.timing import Timing

from sn17_simulation.scene import Conduct, Result, Scene, ValidatorModel, WorkerModel
from sn17_simulation.world import CALL, FIXING, SUBMITTING, play

LIVE: Final = Path(__file__).resolve().parents[3] / "bench" / "results" / "calibration.json"
_MEAN_JOB: Final = (0.85 + 1.3) / 2


@dataclass(frozen=True, slots=True)
class Live:
    """Figures of a run; seconds are real ones, of a network faster by ``1 / time_scale``."""

    time_scale: float
    validators: int
    workers: int
    seconds: float
    tasks: int
    handed_in: int
    idle: float
    """Median time from a cooldown's end to the plan to pull, where a worker was free by then."""
    cycle: float
    """Mean time from pull to pull of one validator."""
    acceptance: float
    generation: float
    delivery: float
    violations: int


@dataclass(frozen=True, slots=True)
class Found:
    """The same figures of the world."""

    idle: float
    cycle: float
    acceptance: float
    violations: int


def simulated(live: Live, seeds: int) -> Found:
    """Play the run again in virtual time, ``seeds`` times."""
    validation = max(0.01, live.delivery - live.generation - FIXING - SUBMITTING)
    scene = Scene(
        validators=(ValidatorModel(live.acceptance, validation=validation),) * live.validators,
        workers=(WorkerModel(job=live.generation / _MEAN_JOB),) * live.workers,
        policy=Timing().scaled(live.time_scale),
        days=live.seconds / 86400.0,
    )
    results: list[Result] = [play(scene, Conduct(max_seeds=1), seed) for seed in range(seeds)]
    accepted, rejected = (sum(r.accepted for r in results), sum(r.rejected for r in results))
    return Found(
        idle=median([idle for result in results for idle in result.idle if idle > CALL]) - CALL,
        cycle=fmean([cycle for result in results for cycle in result.cycles]),
        acceptance=accepted / (accepted + rejected),
        violations=sum(result.violations for result in results),
    )
