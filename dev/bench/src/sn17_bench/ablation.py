"""Scenes and conducts of every ablation, and their comparison run by run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import sqrt
from statistics import fmean, stdev
from typing import Any, Final

from sn17_simulation.scene import NAIVE, Conduct, Scene, ValidatorModel, WorkerModel
from sn17_simulation.world import play

ACCEPTANCES: Final = (0.1, 0.19, 0.21, 0.3, 0.44, 0.5, 0.58, 0.7, 0.9)
FEW: Final = (0.1, 0.3, 0.5, 0.7, 0.9)
_T95: Final = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 7: 2.365, 9: 2.262}
"""Student's t for a 95 % interval, by degrees of freedom."""
NEVER_BELOW: Final = 0.99

_BOTH: Final = (WorkerModel(), WorkerModel())
_PLAIN: Final = replace(Conduct(), max_seeds=1, gate=False)


@dataclass(frozen=True, slots=True)
class Ablation:
    """A decision in one world: ``ours`` against the same conduct without it."""

    decision: str
    world: str
    ours: Conduct
    without: Conduct
    scene: Callable[[float], Scene]
    acceptances: tuple[float, ...] = FEW


@dataclass(frozen=True, slots=True)
class Row:
    """Ratio of accepted results, its 95 % interval over seeds, and what else came of it a day."""

    decision: str
    world: str
    acceptance: float
    ratio: float
    low: float
    high: float
    accepted: float
    accepted_without: float
    empty: float | None
    empty_without: float | None
    duels_lost: float | None
    duels_lost_without: float | None
    violations: int | None


def _two(change: Callable[[Scene], Scene] = lambda scene: scene) -> Callable[[float], Scene]:
    return lambda acceptance: change(Scene(validators=(ValidatorModel(acceptance),) * 2, workers=_BOTH))


def _mixed(acceptance: float) -> Scene:
    """One validator as asked for, one far more lenient, one strict."""
    others = (min(0.95, acceptance + 0.3), max(0.05, acceptance - 0.3))
    models = tuple(ValidatorModel(a) for a in (acceptance, *others))
    return Scene(validators=models, workers=_BOTH, score_noise=0.5)


def _drifting(acceptance: float) -> Scene:
    drift = min(0.25, acceptance - 0.05, 0.95 - acceptance)
    return Scene(validators=(ValidatorModel(acceptance, drift=drift),) * 2, workers=_BOTH)


def _scarce(acceptance: float) -> Scene:
    """Sixteen validators, one worker: it is always the worker that is waited for."""
    spread = (-0.09, -0.03, 0.03, 0.09)
    models = tuple(ValidatorModel(min(0.97, max(0.03, acceptance + s))) for s in spread * 4)
    return Scene(validators=models, workers=(WorkerModel(job=25.0),), days=3.0)


def _with(**changes: Any) -> Callable[[Scene], Scene]:
    return lambda scene: replace(scene, **changes)


def ablations() -> list[Ablation]:
    """Every decision of the miner."""
    hand_in, gated = _PLAIN, replace(_PLAIN, gate=True)
    scored = replace(gated, scorer=True)
    seeds = replace(scored, max_seeds=3)
    text_only = (WorkerModel(models=("text",)),) * 2
    hanging = (WorkerModel(hangs=0.03),) * 2
    refusing = (WorkerModel(refuses_enhanced=0.1),) * 2
    fall_back, always = replace(seeds, scorer=False, enhance="fall back"), replace(hand_in, enhance="always")
    not_enhanced = replace(fall_back, enhance="no")
    return [
        Ablation("gate", "no signal", gated, hand_in, _two(), ACCEPTANCES),
        Ablation("gate", "20 % fail the checks", gated, hand_in, _two(_with(fails_checks=0.2))),
        Ablation("gate", "30 % repaired, worse", gated, hand_in, _two(_with(damaged=0.3))),
        Ablation("gate", "scorer", scored, hand_in, _two(), ACCEPTANCES),
        Ablation("gate", "scorer that knows nothing", scored, hand_in, _two(_with(score_noise=50.0))),
        Ablation("gate", "scorer, strict and lenient", scored, hand_in, _mixed),
        Ablation("gate", "scorer, drift over the day", scored, hand_in, _drifting),
        Ablation("gate", "scorer, cold start (2 days)", scored, hand_in, _two(_with(days=2.0))),
        Ablation("gate", "scorer, restart", scored, hand_in, _two(_with(restart_at=3.0))),
        Ablation("three seeds", "scorer", seeds, scored, _two()),
        Ablation("three seeds", "20 % fail the checks", replace(gated, max_seeds=3), gated,
                 _two(_with(fails_checks=0.2))),
        Ablation("three seeds", "one worker, 16 validators", seeds, scored, _scarce),
        Ablation("validator first: urgency", "one worker, 16 validators", hand_in,
                 replace(hand_in, first="equal"), _scarce),
        Ablation("give back what no worker does", "text-only fleet", hand_in,
                 replace(hand_in, unservable="hold"), _two(_with(workers=text_only))),
        Ablation("move a stalled job", "3 % of jobs hang", hand_in, replace(hand_in, stalled="wait"),
                 _two(_with(workers=hanging))),
        Ablation("enhance, fall back", "no gain, 10 % refused", fall_back, not_enhanced,
                 _two(_with(workers=refusing))),
        Ablation("enhance, fall back", "gain 0.2, 10 % refused", fall_back, not_enhanced,
                 _two(_with(workers=refusing, enhanced_gain=0.2))),
        Ablation("enhance always", "gain 0.2, 10 % refused", always, hand_in,
                 _two(_with(workers=refusing, enhanced_gain=0.2))),
        Ablation("everything", "scorer, 10 % fail, 3 % hang", replace(Conduct(), scorer=True), NAIVE,
                 _two(_with(workers=hanging, fails_checks=0.1)), ACCEPTANCES),
    ]  # fmt: skip


def compare(ablation: Ablation, acceptance: float, seeds: int, days: float | None) -> Row:
    """Play it ``seeds`` times with and without."""
    scene = ablation.scene(acceptance)
    if days is not None:
        scene = replace(scene, days=min(days, scene.days))
    ours = [play(scene, ablation.ours, seed) for seed in range(seeds)]
    without = [play(scene, ablation.without, seed) for seed in range(seeds)]
    base = fmean([result.expected_a_day for result in without])
    ratios = [a.expected_a_day / max(b.expected_a_day, 1e-9) for a, b in zip(ours, without, strict=True)]
    ratio = fmean([result.expected_a_day for result in ours]) / max(base, 1e-9)
    wide = _T95[seeds - 1] * stdev(ratios) / sqrt(seeds)

    def a_day(results: list[Any], name: str) -> float:
        return round(fmean([getattr(result, name) / result.days for result in results]), 2)

    return Row(
        decision=ablation.decision,
        world=ablation.world,
        acceptance=acceptance,
        ratio=round(ratio, 4),
        low=round(ratio - wide, 4),
        high=round(ratio + wide, 4),
        accepted=a_day(ours, "accepted"),
        accepted_without=a_day(without, "accepted"),
        empty=a_day(ours, "empty"),
        empty_without=a_day(without, "empty"),
        duels_lost=a_day(ours, "duels_lost"),
        duels_lost_without=a_day(without, "duels_lost"),
        violations=sum(result.violations for result in ours),
    )


def earns(rows: list[Row]) -> bool:
    """Default on: never below 0.99, and above 1 somewhere, with the lower end of the interval."""
    return min(row.low for row in rows) >= NEVER_BELOW and max(row.low for row in rows) > 1.0


def as_json(rows: list[Row]) -> list[dict[str, Any]]:
    """For a file."""
    return [asdict(row) for row in rows]
