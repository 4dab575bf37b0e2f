"""The controller against a simulated fleet: leaks in lockstep, quality, stalls, crashes, storms,
escalation.
"""

from __future__ import annotations

import gc
from collections import Counter

import pytest
from sn17_simulation.fleet.play import SPEC, let_leak, spec_with, warmed
from sn17_simulation.fleet.worker import LIMIT, TICK

HOUR = int(3600 / TICK)


async def test_healthy_fleet_is_left_alone() -> None:
    sim = await warmed(4)
    await sim.run(HOUR)
    assert sim.world.status["status"] == "Healthy"
    assert sim.world.status["ready"] == "4/4"
    assert not sim.world.exits
    assert sim.reasons() == []


async def test_control_arm_without_operator_and_guard_is_killed_by_the_kernel() -> None:
    sim = await warmed(1, operator=False)
    let_leak(sim, 0.01)
    await sim.run(HOUR)
    assert sim.world.oom_kills > 0


@pytest.mark.parametrize("count", [1, 2, 4, 16])
@pytest.mark.parametrize("guard", [False, True])
async def test_lockstep_leakers_are_recycled_one_after_another_without_an_oom_kill(
    count: int, guard: bool
) -> None:
    sim = await warmed(count, guard=guard)
    let_leak(sim, 0.004)
    await sim.run(2 * HOUR)
    assert sim.world.oom_kills == 0
    assert sim.world.lost_jobs == 0
    assert len(sim.world.exits) >= count
    assert sim.world.evictions == 0
    assert sim.world.violations == []
    if guard and count == 1:
        assert sim.world.refusals_before_cordon == 0


async def test_one_worker_through_ten_leak_cycles_is_ten_recycles() -> None:
    sim = await warmed(1)
    let_leak(sim, 0.01)
    for _ in range(5 * HOUR):
        if sim.world.status.get("recycles") == 10:
            break
        await sim.tick()
    assert sim.world.status["recycles"] == 10
    assert len(sim.world.exits) == 10
    assert sim.world.evictions == 0
    assert sim.world.oom_kills == 0
    assert len(set(sim.world.exits)) == len(sim.world.exits)


async def test_clean_up_that_helps_spares_the_restart() -> None:
    sim = await warmed(2)
    worker = sim.workers[0]
    worker.memory, worker.cleanup_helps = 0.85, True
    await sim.run(30)
    assert sim.count("MemoryCleared") == 1
    assert not sim.world.exits
    assert worker.pod.intent is None
    assert worker.pod.ready


async def test_small_objects_do_not_cost_a_restart_and_the_rule_rests() -> None:
    sim = await warmed(4)
    await sim.run(60)
    worker = sim.workers[0]
    worker.gaussians = 100_000
    await sim.run(60)
    assert sim.count("CanaryPassed") == 1
    assert sim.count("WorkerCordoned") == 1, "the rule must rest for a window"
    assert not sim.world.exits


async def test_lost_quality_is_recycled() -> None:
    sim = await warmed(4)
    worker = sim.workers[0]
    await sim.run(60)
    worker.gaussians, worker.canary_passes = 50_000, False
    await sim.run(30)
    assert sim.world.exits == [f"{worker.pod.uid}/c0"]
    assert sim.world.status["status"] == "Healthy"


async def test_many_quality_verdicts_at_once_are_not_acted_on_and_it_is_said() -> None:
    sim = await warmed(4)
    await sim.run(60)
    for worker in sim.workers[:3]:
        worker.gaussians, worker.canary_passes = 50_000, False
    await sim.run(40)
    assert not sim.world.exits
    assert sim.world.status["status"] == "TooManyUnhealthy"
    conditions = {c["type"]: c for c in sim.world.status["conditions"]}
    assert conditions["RemediationAllowed"]["status"] == "False"
    assert conditions["RemediationAllowed"]["reason"] == "TooManyUnhealthy"
    assert sim.count("TooManyUnhealthy") == 1, "said once, not at every tick"
    # Memory is exempt: leakers that come on top are still recycled.
    leaking = sim.workers[3]
    leaking.leak = 0.012
    await sim.run(80)
    assert sim.world.exits == [f"{leaking.pod.uid}/c0"]


async def test_storm_cooldown_after_too_many_were_unhealthy() -> None:
    sim = await warmed(4)
    await sim.run(60)
    for worker in sim.workers[:3]:
        worker.gaussians, worker.canary_passes = 50_000, False
    await sim.run(10)
    for worker in sim.workers[1:3]:
        worker.gaussians = 350_000
    await sim.run(20)
    assert not sim.world.exits
    await sim.run(40)
    assert sim.world.exits == [f"{sim.workers[0].pod.uid}/c0"]


async def test_hung_worker_is_evicted_when_it_ignores_the_request_to_exit() -> None:
    sim = await warmed(4)
    await sim.run(3)
    worker = next(w for w in sim.workers if w.job_until is not None)
    worker.hung = True
    uid = worker.pod.uid
    await sim.run(60)
    assert uid not in sim.world.workers
    assert sim.world.evictions == 1
    assert sim.world.status["status"] == "Healthy"
    assert sim.count("WorkerEvicted") == 1


async def test_unreachable_worker_among_healthy_ones_is_replaced() -> None:
    sim = await warmed(4)
    worker = sim.workers[0]
    worker.deaf = True
    uid = worker.pod.uid
    await sim.run(60)
    assert uid not in sim.world.workers
    assert sim.world.status["status"] == "Healthy"


async def test_everything_gone_at_once_is_a_fault_of_the_monitoring() -> None:
    sim = await warmed(4)
    for worker in sim.workers:
        worker.deaf = True
    sim.world.other_targets = False
    await sim.run(60)
    assert not sim.world.exits
    assert sim.world.evictions == 0
    assert sim.world.status["status"] in ("MetricsUnavailable", "Starting")


async def test_prometheus_gone_for_a_while_nothing_is_done_and_it_is_said() -> None:
    sim = await warmed(2)
    sim.world.prometheus_up = False
    sim.workers[0].memory = 0.95
    await sim.run(40)
    assert not sim.world.exits
    assert sim.world.status["status"] == "MetricsUnavailable"
    assert sim.count("QueryFailed") == 1
    sim.world.prometheus_up = True
    sim.workers[0].memory = 0.95
    await sim.run(30)
    assert len(sim.world.exits) == 1
    assert sim.world.violations == []


async def test_metrics_lost_under_a_cordon_end_it_without_a_recycle() -> None:
    sim = await warmed(2)
    sim.workers[0].memory = 0.85
    while sim.workers[0].pod.intent is None:
        await sim.tick()
    sim.world.prometheus_up = False
    await sim.run(30)
    assert not sim.world.exits
    assert sim.workers[0].pod.intent is None
    assert "RemediationWithdrawn" in sim.reasons()


async def test_worker_that_restarts_by_itself_gets_no_second_action() -> None:
    sim = await warmed(2)
    worker = sim.workers[0]
    worker.memory = 0.85
    while worker.pod.intent is None:
        await sim.tick()
    sim.world.kill(worker, "OOMKilled", 137)
    # The request for the lease was on its way to the old life and reaches the new one.
    worker.leases["operator"] = sim.world.now + 600
    while "WorkerRestarted" not in sim.reasons():
        await sim.tick()
    assert "operator" not in worker.leases, "the new life is in service at once"
    await sim.run(40)
    assert not sim.world.exits
    assert sim.count("WorkerRestarted") == 1
    assert sim.world.status["oomKills"] == 1


async def test_operator_that_was_away_asks_before_it_says_that_nobody_answers() -> None:
    """The lease has run out meanwhile, and the drain's time is over: it knows of no answer, since it has not
    asked."""
    sim = await warmed(2)
    worker = sim.workers[0]
    worker.memory = 0.85
    while "operator" not in worker.leases:
        await sim.tick()
    await sim.controller.close()
    sim.operator = False
    await sim.run(20)
    assert worker.leases == {}
    sim.operator, sim.controller = True, sim._new()
    await sim.run(40)
    assert "AdminUnavailable" not in sim.reasons()
    assert sim.world.exits == [f"{worker.pod.uid}/c0"]
    assert sim.world.violations == []


async def test_sick_again_right_after_a_restart_is_evicted_and_twice_without_cure_is_given_up() -> None:
    sim = await warmed(4)
    await sim.run(10)

    cursed = {sim.workers[0].pod.uid}
    for _ in range(6 * HOUR):
        known = set(sim.world.workers)
        await sim.tick()
        for uid in set(sim.world.workers) - known:
            cursed.add(uid)
        for uid in cursed & set(sim.world.workers):
            worker = sim.world.workers[uid]
            if worker.pod.ready:
                worker.memory = max(worker.memory, 0.95)
        if "RemediationFailed" in sim.reasons():
            break
    assert sim.world.evictions == 2
    await sim.run(60)
    assert sim.world.evictions == 2
    assert sim.world.status["status"] == "RemediationFailed"
    assert sim.world.violations == []


async def test_leaker_that_is_evicted_is_never_given_up_while_each_eviction_cures_it_for_a_while() -> None:
    sim = await warmed(1, spec=spec_with(strategy="EvictPod"))
    let_leak(sim, 0.01)
    for _ in range(5 * HOUR):
        if sim.world.evictions == 5:
            break
        await sim.tick()
    assert sim.world.evictions == 5
    assert sim.world.oom_kills == 0
    assert "RemediationFailed" not in sim.reasons()


async def test_what_the_operator_keeps_does_not_grow_with_the_pods_that_came_and_went() -> None:
    # Records of evictions are kept for their window, so it is shorter than the time to the first look.
    spec = spec_with(strategy="EvictPod", recycle={"evictionWindowSeconds": 3_600})
    sim = await warmed(2, spec=spec)
    let_leak(sim, 0.012)

    async def kept_after(hours: float) -> Counter[str]:
        await sim.run(int(hours * HOUR))
        gc.collect()
        names = (f"{type(each).__module__}.{type(each).__name__}" for each in gc.get_objects())
        return Counter(name for name in names if name.startswith("sn17_operator."))

    early = await kept_after(1.2)
    evictions = sim.world.evictions
    late = await kept_after(2)
    assert sim.world.evictions >= evictions + 10
    assert {name: more for name, more in (late - early).items() if more > 5} == {}


async def test_eviction_waits_for_the_disruption_budget() -> None:
    sim = await warmed(4, spec=spec_with(strategy="EvictPod"))
    sim.world.budget_blocks_eviction = True
    sim.workers[0].memory = 0.95
    await sim.run(40)
    assert sim.world.evictions == 0
    entry = next(w for w in sim.world.status["workers"] if w["state"] == "Recycling")
    assert entry["heldBackBy"] == "DisruptionBudget"
    assert sim.world.lost_jobs == 0
    sim.world.budget_blocks_eviction = False
    await sim.run(20)
    assert sim.world.evictions == 1
    assert sim.world.lost_jobs == 0
    assert sim.world.status["status"] == "Healthy"


async def test_observe_says_what_it_would_do_and_does_nothing() -> None:
    sim = await warmed(2, spec=spec_with(mode="Observe"))
    sim.workers[0].memory = 0.95
    await sim.run(10)
    assert sim.workers[0].pod.intent is None
    assert sim.workers[0].leases == {}
    assert sim.world.status["status"] == "ObserveOnly"
    assert sim.world.status["workers"][0]["heldBackBy"] == "ObserveOnly"


async def test_cordon_mode_never_restarts() -> None:
    sim = await warmed(2, spec=spec_with(mode="Cordon"))
    sim.workers[0].memory = 0.95
    await sim.run(60)
    assert not sim.world.exits
    assert "operator" in sim.workers[0].leases
    assert sim.world.status["workers"][0]["heldBackBy"] == "RecycleDisabled"


async def test_rollout_of_the_deployment_holds_everything_new() -> None:
    sim = await warmed(2)
    sim.world.rolling = True
    sim.workers[0].memory = 0.95
    await sim.run(20)
    assert sim.workers[0].pod.intent is None
    assert sim.world.status["status"] == "RolloutInProgress"
    sim.world.rolling = False
    await sim.run(20)
    assert len(sim.world.exits) == 1


async def test_operator_that_cannot_tell_the_workers_anything_evicts_no_one() -> None:
    sim = await warmed(4)
    sim.admin.locked = True
    for worker in sim.workers:
        worker.memory = 0.95
    sim.world.tasks_offered = False
    await sim.run(HOUR)
    assert sim.world.evictions == 0
    assert not sim.world.exits
    assert "AdminUnavailable" in sim.reasons()
    conditions = {c["type"]: c for c in sim.world.status["conditions"]}
    assert conditions["RemediationAllowed"]["status"] == "False"
    # Tried again at most every cooldown, not at every tick.
    assert sim.count("WorkerCordoned") <= 4 * (3600 / SPEC.recycle.cooldown_seconds + 1)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("point", range(14))
async def test_operator_killed_between_any_two_steps_goes_on_and_doubles_nothing(
    point: int, before: bool
) -> None:
    sim = await warmed(1)
    worker = sim.workers[0]
    worker.memory = 0.95
    sim.host.crash_after, sim.host.crash_before_effect = point, before
    await sim.run(60)
    assert sim.world.exits == [f"{worker.pod.uid}/c0"]
    assert worker.boot == 1
    assert sim.world.evictions == 0
    assert sim.world.status["recycles"] == 1
    assert sim.world.status["status"] in ("Healthy", "Starting")
    assert sim.world.violations == []


async def test_operator_down_takes_no_worker_out_of_service() -> None:
    sim = await warmed(2)
    worker = sim.workers[0]
    worker.memory = 0.85
    while "operator" not in worker.leases:
        await sim.tick()
    sim.operator = False
    await sim.run(6)
    assert worker.leases == {}, "the lease lapses"


def test_limit_is_the_default_of_the_chart() -> None:
    assert LIMIT == 12 * 1024**3


async def test_memory_left_in_the_pod_after_a_restart_leads_to_an_eviction() -> None:
    """A memory-backed volume outlives its container; only a new pod frees it."""
    sim = await warmed(4)
    worker = sim.workers[0]
    worker.left_over = 0.4
    worker.memory = 0.95
    await sim.run(60)
    assert sim.world.exits == [f"{worker.pod.uid}/c0"]
    assert sim.world.evictions == 1
    assert sim.world.status["status"] == "Healthy"


async def test_start_canary_that_fails_after_a_recycle_escalates_at_once() -> None:
    sim = await warmed(4)
    worker = sim.workers[0]
    worker.memory, worker.bad_checkpoint = 0.95, True
    await sim.run(60)
    assert sim.world.exits == [f"{worker.pod.uid}/c0"]
    assert sim.world.evictions == 1
    assert sim.world.violations == []


async def test_worker_in_back_off_is_waited_for_and_then_said() -> None:
    sim = await warmed(4)
    worker = sim.workers[0]
    worker.back_off = 2_000.0
    worker.memory = 0.95
    await sim.run(30)
    assert worker.pod.intent is not None, "kubelet's back-off counts as in flight"
    assert sim.world.evictions == 0
    await sim.run(30)
    assert "ReplacementPending" in sim.reasons()
    assert sim.world.evictions == 0
    await sim.run(120)
    assert sim.world.status["status"] == "Healthy"


async def test_job_in_flight_is_finished_before_the_restart() -> None:
    sim = await warmed(4)
    for _ in range(20):
        worker = next((w for w in sim.workers if w.job_until is not None), None)
        if worker is not None:
            break
        await sim.tick()
    assert worker is not None
    worker.job_until = sim.world.now + 100
    worker.memory = 0.95
    await sim.run(5)
    assert worker.boot == 0
    await sim.run(30)
    assert worker.boot == 1
    assert sim.world.lost_jobs == 0


async def test_the_budget_counts_pods_that_do_not_exist() -> None:
    """The denominator is what is wanted, not what lives: a fleet that lost a pod has no budget left."""
    sim = await warmed(4)
    del sim.world.workers[sim.workers[3].pod.uid]
    sim.workers[0].memory = 0.95
    await sim.run(20)
    assert sim.workers[0].pod.intent is None
    entry = next(w for w in sim.world.status["workers"] if w["name"] == sim.workers[0].pod.name)
    assert entry["heldBackBy"] == "BudgetExhausted"


async def test_replacement_that_finds_no_place_is_said_once_and_holds_no_budget_for_ever() -> None:
    sim = await warmed(4, spec=spec_with(strategy="EvictPod", maxUnavailable=2))
    sim.world.capacity = False
    sim.workers[0].memory = 0.95
    await sim.run(30)
    assert sim.world.evictions == 1
    assert sim.world.status["status"] == "Recycling"
    await sim.run(60)
    assert sim.count("ReplacementPending") == 1
    assert sim.world.status["ready"] == "3/4"
    sim.workers[0].memory = 0.95
    await sim.run(10)
    assert sim.world.evictions == 2, "one unit is lost, the other is still there"
    sim.workers[0].memory = 0.95
    await sim.run(30)
    assert sim.world.evictions == 2, "and now the budget is gone"


@pytest.mark.parametrize("terminating", [False, True], ids=["gone", "terminating for ever"])
async def test_replacement_that_is_lost_with_its_node_is_replaced_in_turn(terminating: bool) -> None:
    """A node that has just died takes new pods until it counts as NotReady."""
    sim = await warmed(4, spec=spec_with(strategy="EvictPod"))
    known = set(sim.world.workers)
    sim.workers[0].memory = 0.95
    while set(sim.world.workers) <= known:
        await sim.tick()
    (lost,) = (sim.world.workers[uid] for uid in set(sim.world.workers) - known)
    lost.deaf = True
    await sim.tick()
    if terminating:
        sim.world.change(lost, deleting=True)
    else:
        del sim.world.workers[lost.pod.uid]
    sim.world.add_pod()
    await sim.run(10)
    assert sim.world.status["status"] == ("Degraded" if terminating else "Healthy")
    assert sim.world.status["recycling"] == 0
    assert sim.world.status["ready"] == "4/4"
    # The budget is free: the next one need not wait for the ten minutes of a missing replacement.
    well = next(w for w in sim.workers if w.pod.ready)
    well.memory = 0.95
    await sim.run(10)
    assert sim.world.evictions == 2
    assert sim.world.violations == []


@pytest.mark.parametrize("mute", [0.0, 30.0, 120.0])
@pytest.mark.parametrize("back_off", [0.0, 60.0])
@pytest.mark.parametrize("count", [1, 4])
async def test_worker_that_restarts_is_no_fault_of_the_metrics(
    count: int, back_off: float, mute: float
) -> None:
    """Between two lives there are no samples: that is a restart, whoever asked for it."""
    sim = await warmed(count)
    worker = sim.workers[0]
    worker.back_off, worker.mute_seconds = back_off, mute
    worker.memory = 0.95
    sim.world.words.clear()
    await sim.run(60)
    assert sim.world.exits == [f"{worker.pod.uid}/c0"]
    assert sim.world.words == ["Degraded", "Recycling", "Healthy"]
    assert sim.reasons().count("NoEvidence") == 0
    sim.world.words.clear()
    sim.world.kill(worker, "OOMKilled", 137)
    await sim.run(60)
    assert sim.world.words[-2:] == ["Starting", "Healthy"]
    assert set(sim.world.words[:-2]) <= {"NoWorkers"}, "the only worker, while kubelet waits"


@pytest.mark.parametrize(
    ("says", "word"), [("device_error", "DeviceError"), ("suspect_outputs", "SuspectOutputs")]
)
async def test_worker_that_says_it_is_degraded_is_shown_as_such(says: str, word: str) -> None:
    """Whether a rule acts on it or not: not ready for a reason is not the same as starting."""
    sim = await warmed(2)
    worker = sim.workers[0]
    worker.says = says
    await sim.run(10)
    status = sim.world.status
    assert status["status"] == "Degraded"
    (entry,) = status["workers"]
    assert (entry["name"], entry["state"], entry["reasons"]) == (worker.pod.name, "Degraded", [word])
    conditions = {c["type"]: c for c in status["conditions"]}
    assert (conditions["Degraded"]["status"], conditions["Degraded"]["reason"]) == ("True", word)
    assert not sim.world.exits
    worker.says = ""
    await sim.run(10)
    assert sim.world.status["status"] == "Healthy"


@pytest.mark.parametrize("says", ["canary_failed", "canary_unusable"])
async def test_worker_whose_own_canary_fails_is_recycled(says: str) -> None:
    sim = await warmed(4)
    worker = sim.workers[0]
    worker.says, worker.canary_passes = says, False
    await sim.run(40)
    assert sim.world.exits == [f"{worker.pod.uid}/c0"]
    assert "CanaryDrift" in worker.pod.history.reason
    assert sim.world.status["status"] == "Healthy"


@pytest.mark.parametrize("strategy", ["RestartContainer", "EvictPod"])
@pytest.mark.parametrize("kind", ["target", "annotate", "evict", "status", "event"])
async def test_throttled_api_server_delays_and_doubles_nothing(kind: str, strategy: str) -> None:
    """Refused for a while, then served, again and again while a worker is healed."""
    sim = await warmed(2, spec=spec_with(strategy=strategy))
    worker = sim.workers[0]
    worker.memory = 0.95
    for turn in range(30):
        sim.host.throttled = frozenset({kind} if turn % 4 else {})
        await sim.run(2)
    sim.host.throttled = frozenset()
    await sim.run(30)
    assert (len(sim.world.exits), sim.world.evictions) == (
        (1, 0) if strategy == "RestartContainer" else (0, 1)
    )
    assert sim.world.status["recycles"] + sim.world.status["evicted"] == 1
    assert sim.count("WorkerCordoned") <= 1 if kind == "event" else sim.count("WorkerCordoned") == 1
    assert sim.world.status["status"] == "Healthy"
    assert sim.world.violations == []
