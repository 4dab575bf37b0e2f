"""What the operator's decisions earn: good generations of a fleet whose workers leak, fade and hang."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sn17_operator.api import RuleAction, Spec
from sn17_simulation.fleet import play

WORKERS: Final = 4
TICKS: Final = 4 * 60 * 8
"""Eight hours at 15 s."""
GOOD: Final = 200_000.0
"""Gaussians from which a generation counts: a third of those at 50,000 were accepted."""
FADES_FROM: Final = 0.6
"""Share of the memory limit from which a worker's assets shrink with every job."""
THRESHOLD: Final = 0.8


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """Good generations an hour with the decision, and over those without it."""

    decision: str
    world: str
    ratio: float
    good_an_hour: float
    good_without: float
    lost_jobs: int
    oom_kills: int


@dataclass(frozen=True, slots=True)
class Troubles:
    """Of a fleet."""

    leak: float = 0.0
    fades: bool = False
    hangs_every: int = 0
    """Ticks between two hangs, of one worker after another."""
    bad_after_restart: bool = False


@dataclass(frozen=True, slots=True)
class Arm:
    """Who looks after the fleet."""

    operator: bool = True
    guard: bool = True
    threshold_restarts: bool = False
    spec: Spec | None = None


async def _play(arm: Arm, troubles: Troubles, ticks: int) -> tuple[float, int, int]:
    sim = play.Simulation(WORKERS, arm.spec, guard=arm.guard, operator=arm.operator)
    play.let_leak(sim, troubles.leak)
    done: dict[str, int] = {}
    good = 0
    for tick in range(ticks):
        await sim.tick()
        workers = sim.workers
        for number, worker in enumerate(workers):
            key = worker.boot_id
            new = worker.generations - done.get(key, 0)
            done[key] = worker.generations
            good += new if worker.gaussians >= GOOD else 0
            worker.fading = troubles.fades and worker.memory >= FADES_FROM
            if troubles.hangs_every and tick % (troubles.hangs_every * len(workers)) == (
                number * troubles.hangs_every
            ):
                worker.hung = worker.job_until is not None
            if arm.threshold_restarts and worker.memory >= THRESHOLD:
                sim.world.kill(worker, "threshold", 0)
    await sim.controller.close()
    return good / (ticks * 15.0 / 3600.0), sim.world.lost_jobs, sim.world.oom_kills


def _without(rule: str) -> Spec:
    without: Spec = play.spec_with(rules={rule: {"action": RuleAction.OFF.value}})
    return without


def _arms() -> list[tuple[str, str, Callable[[], Arm], Callable[[], Arm], Troubles]]:
    leaking, slow = Troubles(leak=0.015), Troubles(leak=0.004)
    fading = Troubles(leak=0.015, fades=True)
    hanging = Troubles(hangs_every=60)
    nobody = lambda: Arm(operator=False, guard=False)  # noqa: E731
    restarts = lambda: Arm(operator=False, guard=False, threshold_restarts=True)  # noqa: E731
    return [
        ("guard", "leak 1.5 %", lambda: Arm(operator=False), nobody, leaking),
        ("operator", "leak 1.5 %", Arm, nobody, leaking),
        ("operator", "leak 0.4 %", Arm, nobody, slow),
        ("operator", "leak 1.5 %, assets fade", Arm, nobody, fading),
        ("operator", "hangs", Arm, nobody, hanging),
        ("operator", "no trouble", Arm, nobody, Troubles()),
        ("operator, not threshold restarts", "leak 1.5 %", Arm, restarts, leaking),
        ("operator, not threshold restarts", "leak 1.5 %, assets fade", Arm, restarts, fading),
        ("operator, not threshold restarts", "leak 0.4 %", Arm, restarts, slow),
        ("rule: gaussians", "leak 1.5 %, assets fade", Arm, lambda: Arm(spec=_without("gaussians")), fading),
        ("rule: memory", "leak 1.5 %", Arm, lambda: Arm(spec=_without("memory")), leaking),
        ("rule: stalled (escalation)", "hangs", Arm, lambda: Arm(spec=_without("stalled")), hanging),
        ("rule: canary", "no trouble", Arm, lambda: Arm(spec=_without("canary")), Troubles()),
    ]


def operator_rows(only: str = "", ticks: int = TICKS) -> list[OperatorRow]:
    """Every ablation of the operator; nothing in it is random, so that there is no interval."""
    rows, known = [], {}
    for decision, world, ours, without, troubles in _arms():
        if only not in decision:
            continue
        results = []
        for arm in (ours(), without()):
            key = repr((arm, troubles))
            if key not in known:
                known[key] = asyncio.run(_play(arm, troubles, ticks))
            results.append(known[key])
        (good, lost, kills), (base, _, _) = results
        ratio = good / base if base else float("inf")
        rows.append(
            OperatorRow(decision, world, round(ratio, 3), round(good, 1), round(base, 1), lost, kills)
        )
    return rows
