"""What the operator's decisions earn: good generations of a fleet whose workers leak, hang and break."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from statistics import fmean
from typing import Final

from sn17_contract.metrics import DegradedReason
from sn17_contract.worker import RecycleHow
from sn17_operator.api import Mode, RuleAction, Spec, Strategy
from sn17_simulation.fleet import play
from sn17_simulation.fleet.worker import FRESH, SimWorker

from sn17_bench.ablation import interval

WORKERS: Final = 4
TICKS: Final = 4 * 60 * 2
"""Two hours at 15 s."""
GOOD: Final = 200_000.0
"""Gaussians from which a generation counts: a third of those at 50,000 were accepted."""
FADES_FROM: Final = 0.6
"""Share of the memory limit from which a worker's assets shrink with every job."""
THRESHOLD: Final = 0.8
REFUSES_FROM: Final = 0.88
SWAP_LIMIT: Final = 0.95
"""Share of the limit that two model processes may hold together."""
SELF_SWAP: Final = 3
"""Ticks above the swap threshold after which a worker with a guard swaps by itself."""
SELF_RECYCLE: Final = 40
"""Ticks without a job after which a worker that refuses ends its process by itself."""


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """Good generations an hour with the decision over those without it; the interval is over fleets whose
    workers start and leak differently.
    """

    decision: str
    world: str
    seeds: int
    ratio: float
    low: float
    high: float
    good_an_hour: float
    good_without: float
    lost_jobs: int
    lost_without: int
    oom_kills: int
    oom_without: int


@dataclass(frozen=True, slots=True)
class Troubles:
    """Of a fleet. ``*_every``: ticks between two, of one worker after another."""

    leak: float = 0.0
    """Share of the limit that a worker adds with each job, on average."""
    fades: bool = False
    hangs_every: int = 0
    deaf_every: int = 0
    """Neither serves nor answers."""
    drifts_every: int = 0
    """Makes bad assets of the usual size: only the canary tells."""
    device_every: int = 0
    """The device breaks: no model process in this container makes good assets."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Who looks after the fleet."""

    operator: bool = True
    guard: bool = True
    threshold_restarts: bool = False
    evictions: bool = True
    spec: Spec | None = None
    away_from: int | None = None
    """Tick from which on the operator is away."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one fleet."""

    good_an_hour: float
    lost_jobs: int
    oom_kills: int


async def _play(arm: Arm, troubles: Troubles, ticks: int, seed: int) -> Outcome:
    sim = play.Simulation(WORKERS, arm.spec, guard=arm.guard, operator=arm.operator, lives=True)
    sim.world.budget_blocks_eviction = not arm.evictions
    rng, good = Random(seed), 0
    done: dict[str, int] = {}
    refusing: dict[str, int] = {}
    full: dict[str, int] = {}
    play.let_leak(sim, troubles.leak)
    for worker in sim.workers:
        worker.memory, worker.leak = rng.uniform(0.25, 0.4), troubles.leak * rng.uniform(0.6, 1.4)
    for tick in range(ticks):
        sim.operator = arm.operator and (arm.away_from is None or tick < arm.away_from)
        await sim.tick()
        for number, worker in enumerate(sim.workers):
            new = worker.generations - done.get(worker.life_id, 0)
            done[worker.life_id] = worker.generations
            good += new if worker.gaussians >= GOOD and worker.canary_passes else 0
            worker.fading = troubles.fades and worker.memory >= FADES_FROM
            _trouble(worker, troubles, tick, number)
            if arm.threshold_restarts and worker.memory >= THRESHOLD:
                sim.world.kill(worker, "threshold", 0)
            above = arm.guard and worker.memory >= worker.swap_threshold and worker.swap_until is None
            full[worker.life_id] = full.get(worker.life_id, 0) + 1 if above else 0
            if full[worker.life_id] >= SELF_SWAP and worker.room and worker.total + FRESH <= SWAP_LIMIT:
                sim.world.recycle(worker, RecycleHow.SWAP, False)
            held = arm.guard and worker.total >= REFUSES_FROM and worker.job_until is None
            refusing[worker.boot_id] = refusing.get(worker.boot_id, 0) + 1 if held else 0
            if refusing[worker.boot_id] >= SELF_RECYCLE:
                sim.world.kill(worker, "self_recycle", 75)
    await sim.controller.close()
    return Outcome(good / (ticks * 15.0 / 3600.0), sim.world.lost_jobs, sim.world.oom_kills)


def _trouble(worker: SimWorker, troubles: Troubles, tick: int, number: int) -> None:
    def due(every: int) -> bool:
        return bool(every) and tick % (every * WORKERS) == number * every and tick > 0

    if due(troubles.hangs_every):
        worker.hung = worker.job_until is not None
    if due(troubles.deaf_every):
        worker.deaf = True
    if due(troubles.drifts_every):
        worker.canary_passes = False
        worker.says = DegradedReason.CANARY_FAILED.value
    if due(troubles.device_every):
        worker.device_broken, worker.gaussians, worker.canary_passes = True, 50_000.0, False
        worker.gpu_errors += 1


def _off(*rules: str) -> Arm:
    return Arm(spec=play.spec_with(rules={rule: {"action": RuleAction.OFF.value} for rule in rules}))


def _as(**changes: str) -> Arm:
    return Arm(spec=play.spec_with(**changes))


LEAKING: Final = Troubles(leak=0.015)
SLOW: Final = Troubles(leak=0.004)
FADING: Final = Troubles(leak=0.015, fades=True)
HANGING: Final = Troubles(hangs_every=60)
DEAF: Final = Troubles(deaf_every=60)
DRIFTING: Final = Troubles(drifts_every=60)
BROKEN: Final = Troubles(device_every=60)
CALM: Final = Troubles()
WORLDS: Final = {
    "leak 1.5 %": LEAKING,
    "leak 0.4 %": SLOW,
    "leak 1.5 %, assets fade": FADING,
    "hangs": HANGING,
    "workers fall silent": DEAF,
    "assets drift": DRIFTING,
    "devices break": BROKEN,
    "no trouble": CALM,
}


AWAY: Final = ", operator away after half an hour"


def _arms() -> Iterator[tuple[str, Arm, Arm, tuple[str, ...]]]:
    nobody, restarts = Arm(operator=False, guard=False), Arm(False, guard=False, threshold_restarts=True)
    every, leaks = tuple(WORLDS), ("leak 1.5 %", "leak 0.4 %", "leak 1.5 %, assets fade", "no trouble")
    troubled = ("leak 1.5 %, assets fade", "assets drift", "devices break", "no trouble")
    yield "operator", Arm(), nobody, every
    yield "operator, not threshold restarts", Arm(), restarts, leaks
    yield "swap, not a restart", Arm(), _as(strategy=Strategy.RESTART_CONTAINER.value), every
    yield "restart, not a swap", _as(strategy=Strategy.RESTART_CONTAINER.value), nobody, every
    yield "recycle, not cordon alone", Arm(), _as(mode=Mode.CORDON.value), every
    yield "cordon alone, not observe", _as(mode=Mode.CORDON.value), _as(mode=Mode.OBSERVE.value), every
    yield "guard", Arm(), Arm(guard=False), leaks
    away, alone = Arm(away_from=TICKS // 4), Arm(guard=False, away_from=TICKS // 4)
    yield "guard", away, alone, tuple(f"{world}{AWAY}" for world in leaks)
    yield "guard without an operator", Arm(operator=False), nobody, leaks
    yield (
        "escalation to an eviction",
        Arm(),
        Arm(evictions=False),
        ("workers fall silent", "devices break", "hangs", "no trouble"),
    )
    yield "rule: memory", Arm(), _off("memory"), leaks
    yield "rule: gaussians", Arm(), _off("gaussians"), troubled
    yield "rule: canary", Arm(), _off("canary"), troubled
    yield "rule: stalled", Arm(), _off("stalled"), ("hangs", "no trouble")
    yield "rule: unreachable", Arm(), _off("unreachable"), ("workers fall silent", "no trouble")
    yield "rule: gpuErrors", Arm(), _off("gpuErrors"), ("devices break", "no trouble")
    yield "rules: gaussians, canary, gpuErrors", Arm(), _off("gaussians", "canary", "gpuErrors"), troubled


def operator_rows(only: str = "", *, seeds: int = 3, ticks: int = TICKS) -> Iterator[OperatorRow]:
    """Every ablation of the operator, in fleets that are alike in both arms."""
    known: dict[tuple[str, str], list[Outcome]] = {}

    def played(arm: Arm, world: str) -> list[Outcome]:
        key = (repr(arm), world)
        if key not in known:
            troubles = WORLDS[world.removesuffix(AWAY)]
            known[key] = [asyncio.run(_play(arm, troubles, ticks, seed)) for seed in range(seeds)]
        return known[key]

    for decision, ours, without, worlds in _arms():
        for world in worlds:
            if only in f"{decision} | {world}":
                yield _row(decision, world, played(ours, world), played(without, world))


def _row(decision: str, world: str, ours: list[Outcome], without: list[Outcome]) -> OperatorRow:
    ratio, low, high = interval([each.good_an_hour for each in ours], [each.good_an_hour for each in without])
    return OperatorRow(
        decision, world, len(ours), ratio, low, high,
        round(fmean([each.good_an_hour for each in ours]), 1),
        round(fmean([each.good_an_hour for each in without]), 1),
        sum(each.lost_jobs for each in ours), sum(each.lost_jobs for each in without),
        sum(each.oom_kills for each in ours), sum(each.oom_kills for each in without),
    )  # fmt: skip
