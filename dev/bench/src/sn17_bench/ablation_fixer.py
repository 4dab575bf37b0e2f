"""What the fixer's policies earn where the local validators' scorer sees the damage.

Assets of the procedural generator, damaged in their opacity, repaired by a policy and judged by three local
validators of different strictness; what that acceptance earns in a day follows from the cooldowns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import numpy as np
from sn17_fixer.model import PolicyName
from sn17_miner.core.timing import Timing
from sn17_splats import Splats

from sn17_bench.ablation import interval
from sn17_bench.fixer_quality import DAMAGES, policy
from sn17_bench.postmortem import assets, score
from sn17_bench.scorer import GATE

STRICTNESS: Final = (0.8, 1.0, 1.25)
ASSETS: Final = 6
SEEN: Final = (
    "none",
    "offset, mean -2",
    "compressed x0.2, mean -3",
    "flat -9.21",
    "30 % of voxels -> -9.21",
    "double activation, 1e-4",
    "10 % NaN, 10 % +inf",
)
"""Damages of the table of the fixer's own benchmark."""
_DAY: Final = 86400.0


@dataclass(frozen=True, slots=True)
class FixerRow:
    """Accepted a day and validator with the policy over the same with none, and the interval over assets."""

    decision: str
    world: str
    ratio: float
    low: float
    high: float
    accepted: float
    accepted_without: float
    score: float
    score_without: float


def a_day(acceptance: float) -> float:
    """Accepted results of one validator, at its cooldown and penalty."""
    constants = Timing()
    return _DAY * acceptance / (constants.base_cooldown + constants.penalty * (1.0 - acceptance))


def fixer_rows(only: str = "", count: int = ASSETS) -> Iterator[FixerRow]:
    """Every policy on every damage."""
    if not any(
        only in f"fixer policy {name} | {damage}" for name in ("measured", "phase1") for damage in SEEN
    ):
        return
    made = assets(count)
    for damage in SEEN:
        damaged = [(scene, _damaged(splats, damage, number)) for number, (scene, splats) in enumerate(made)]
        base = [_scores(scene, splats, PolicyName.NONE) for scene, splats in damaged]
        for name in (PolicyName.MEASURED, PolicyName.PHASE1):
            if only in f"fixer policy {name} | {damage}":
                found = [_scores(scene, splats, name) for scene, splats in damaged]
                yield _row(f"fixer policy {name}", damage, found, base)


def _damaged(splats: Splats, damage: str, seed: int) -> Splats:
    logits = DAMAGES[damage](splats.opacity_logits, np.random.default_rng(seed))
    return splats.replace(opacity_logits=logits.astype(np.float32))


def _scores(scene: str, splats: Splats, name: PolicyName) -> list[float]:
    repaired = policy(name)(splats)
    return [score(repaired, scene, strictness) for strictness in STRICTNESS]


def _row(decision: str, world: str, found: list[list[float]], base: list[list[float]]) -> FixerRow:
    """An asset counts by the share of validators that accept it, at least by half of one in all: a ratio to
    nothing says nothing.
    """
    least = 0.5 / len(found)
    ours, without = ([a_day(fmean([s >= GATE for s in each])) for each in scores] for scores in (found, base))
    floor = a_day(least)
    ratio, low, high = interval([max(floor, each) for each in ours], [max(floor, each) for each in without])
    return FixerRow(
        decision,
        world,
        ratio,
        low,
        high,
        round(fmean(ours), 1),
        round(fmean(without), 1),
        round(fmean([fmean(each) for each in found]), 3),
        round(fmean([fmean(each) for each in base]), 3),
    )
