"""What people ask of the operator, against a simulated fleet: cordon, recycle, pause."""

from __future__ import annotations

import pytest
from sn17_operator.core.plan import Reason
from sn17_simulation.fleet.play import spec_with, warmed


async def test_a_persons_cordon_is_asserted_again_after_a_restart_and_never_lifted() -> None:
    sim = await warmed(2)
    worker = sim.workers[0]
    sim.cordon(worker)
    await sim.run(5)
    assert worker.leases == {"user": None}
    worker.memory = 0.95
    await sim.run(20)
    assert not sim.world.exits, "a worker that a person has cordoned is left to the person"
    sim.world.kill(worker, "Error", 1)
    await sim.run(20)
    assert worker.leases == {"user": None}
    sim.lift(worker)
    await sim.run(5)
    assert worker.leases == {}
    assert worker.pod.user_cordon is None


async def test_pause_withdraws_what_can_be_withdrawn() -> None:
    sim = await warmed(2)
    worker = sim.workers[0]
    worker.memory = 0.85
    while worker.pod.intent is None:
        await sim.tick()
    sim.world.paused = "upgrade"
    await sim.run(10)
    assert worker.pod.intent is None
    assert worker.leases == {}
    assert not sim.world.exits
    assert sim.world.status["status"] == "Paused"
    sim.world.paused = None
    await sim.run(30)
    assert len(sim.world.exits) == 1


async def test_recycle_asked_for_by_a_person() -> None:
    sim = await warmed(4)
    worker = sim.workers[0]
    sim.world.change(worker, recycle_requested="new driver")
    await sim.run(30)
    assert sim.world.exits == [f"{worker.pod.uid}/c0"]
    assert worker.pod.recycle_requested is None
    assert sim.world.lost_jobs == 0


@pytest.mark.parametrize("mute", [0.0, 30.0, 120.0])
async def test_restart_of_a_worker_that_a_person_has_cordoned_is_no_fault_of_the_metrics(mute: float) -> None:
    sim = await warmed(1)
    worker = sim.workers[0]
    worker.mute_seconds = mute
    sim.cordon(worker)
    await sim.run(4)
    sim.world.words.clear()
    sim.world.change(worker, recycle_requested="new driver")
    await sim.run(60)
    assert sim.world.exits == [f"{worker.pod.uid}/c0"]
    assert "MetricsUnavailable" not in sim.world.words


async def test_recycle_asked_for_by_a_person_waits_for_metrics_and_says_so() -> None:
    """Whom to ask to exit is known from metrics alone; an eviction in its place is not what was asked for."""
    sim = await warmed(4)
    worker = sim.workers[0]
    sim.world.prometheus_up = False
    await sim.run(4)
    sim.world.change(worker, recycle_requested="new driver")
    await sim.run(20)
    assert worker.pod.intent is None
    entry = next(w for w in sim.world.status["workers"] if w["name"] == worker.pod.name)
    assert entry["heldBackBy"] == "MetricsUnavailable"
    sim.world.prometheus_up = True
    await sim.run(30)
    assert sim.world.exits == [f"{worker.pod.uid}/c0"]
    assert sim.world.evictions == 0


async def test_wish_that_waits_for_metrics_does_not_keep_a_dead_worker() -> None:
    sim = await warmed(4)
    worker = sim.workers[0]
    worker.deaf = True
    await sim.run(5)
    sim.world.change(worker, recycle_requested="new driver")
    await sim.run(60)
    assert worker.pod.uid not in sim.world.workers
    assert sim.world.status["status"] == "Healthy"


async def test_evictions_that_a_person_asked_for_are_no_failed_cures() -> None:
    sim = await warmed(2, spec=spec_with(strategy="EvictPod"))
    for turn in range(3):
        newest = sim.workers[-1]
        sim.world.change(newest, recycle_requested="new driver")
        await sim.run(12)
        assert newest.pod.uid not in sim.world.workers
        assert sim.world.evictions == turn + 1
    sim.workers[-1].memory = 0.95
    await sim.run(12)
    assert sim.world.evictions == 4
    assert "RemediationFailed" not in sim.reasons()


@pytest.mark.parametrize("strategy", ["RestartContainer", "EvictPod"])
async def test_worker_that_was_given_up_is_taken_up_again_when_a_person_asks(strategy: str) -> None:
    sim = await warmed(2, spec=spec_with(strategy=strategy))
    old = set(sim.world.workers)
    cursed = sim.workers[-1]
    while cursed.pod.history.failed is None:
        cursed = next((w for uid, w in sim.world.workers.items() if uid not in old), sim.workers[-1])
        cursed.memory = 0.95 if cursed.pod.ready else cursed.memory
        await sim.tick()
    assert sim.world.status["status"] == "RemediationFailed"
    assert sim.world.status["message"].endswith(f"sn17 recycle {cursed.pod.name}")
    evictions = sim.world.evictions
    sim.world.change(cursed, recycle_requested="the driver is mended")
    await sim.run(30)
    assert sim.world.status["status"] == "Healthy"
    assert sim.world.evictions - evictions == (1 if strategy == "EvictPod" else 0)


async def test_cordon_of_a_person_is_told_once_however_long_the_metrics_are_gone() -> None:
    sim = await warmed(2)
    sim.world.prometheus_up = False
    sim.cordon(sim.workers[0])
    await sim.run(10)
    assert sim.workers[0].leases == {"user": None}
    assert sim.count(Reason.USER_CORDON_ASSERTED) == 1


async def test_cordon_of_a_person_that_the_worker_does_not_hear_is_not_told_as_done() -> None:
    sim = await warmed(2)
    sim.admin.locked = True
    sim.cordon(sim.workers[0])
    await sim.run(10)
    assert sim.count(Reason.USER_CORDON_ASSERTED) == 0
    sim.admin.locked = False
    await sim.run(3)
    assert sim.count(Reason.USER_CORDON_ASSERTED) == 1
