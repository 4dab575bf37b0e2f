"""A decision's comparison with its absence, run by run, and the rule by which it is on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import sqrt
from statistics import fmean, stdev
from typing import Final

from sn17_simulation.scene import Conduct, Result, Scene
from sn17_simulation.world import play

from sn17_bench.ablation_scenes import MONTH, Ablation

T95: Final = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 7: 2.365, 9: 2.262}
"""Student's t for a 95 % interval, by degrees of freedom."""
NEVER_BELOW: Final = 0.99


@dataclass(frozen=True, slots=True)
class Row:
    """Ratio of accepted results, its 95 % interval over seeds, and what else came of it a day."""

    decision: str
    world: str
    acceptance: float
    seeds: int
    days: float
    ratio: float
    low: float
    high: float
    accepted: float
    accepted_without: float
    empty: float
    empty_without: float
    duels_lost: float
    duels_lost_without: float
    violations: int
    violations_without: int


def compare(ablation: Ablation, acceptance: float, seeds: int, days: float | None) -> Row:
    """Play it ``seeds`` times with and without; both meet the same tasks."""
    scene = ablation.scene(acceptance)
    if not scene.scarce and scene.days < MONTH and "cold start" not in ablation.world:
        # Where little is accepted it takes longer to tell.
        scene = replace(scene, days=scene.days * max(1.0, min(4.0, 0.5 / acceptance)))
    if days is not None:
        scene = replace(scene, days=min(days, scene.days))
    ours = _played(scene, ablation.ours, seeds)
    without = _played(scene, ablation.without, seeds)
    ratio, low, high = interval(
        [result.expected_a_day for result in ours], [result.expected_a_day for result in without]
    )
    return Row(
        decision=ablation.decision,
        world=ablation.world,
        acceptance=acceptance,
        seeds=seeds,
        days=scene.days,
        ratio=ratio,
        low=low,
        high=high,
        accepted=_a_day(ours, lambda result: result.accepted),
        accepted_without=_a_day(without, lambda result: result.accepted),
        empty=_a_day(ours, lambda result: result.empty),
        empty_without=_a_day(without, lambda result: result.empty),
        duels_lost=_a_day(ours, lambda result: result.duels_lost),
        duels_lost_without=_a_day(without, lambda result: result.duels_lost),
        violations=sum(result.violations for result in ours),
        violations_without=sum(result.violations for result in without),
    )


def interval(ours: Sequence[float], without: Sequence[float]) -> tuple[float, float, float]:
    """The ratio of two means over the same seeds, and its 95 % interval (linearised, paired)."""
    base = max(fmean(without), 1e-9)
    ratio = fmean(ours) / base
    apart = [(a - ratio * b) / base for a, b in zip(ours, without, strict=True)]
    wide = T95[len(ours) - 1] * stdev(apart) / sqrt(len(ours))
    return round(ratio, 4), round(ratio - wide, 4), round(ratio + wide, 4)


@cache
def _run(scene: Scene, conduct: Conduct, seed: int) -> Result:
    return play(scene, conduct, seed)


def _played(scene: Scene, conduct: Conduct, seeds: int) -> list[Result]:
    return [_run(scene, conduct, seed) for seed in range(seeds)]


def _a_day(results: list[Result], what: Callable[[Result], int]) -> float:
    return round(fmean([what(result) / result.days for result in results]), 2)
