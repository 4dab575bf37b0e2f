"""The model process recycled alone: swaps beside work, the budget, and what comes after a swap in vain."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sn17_contract.metrics import SwapPhase
from sn17_contract.worker import RecycleOutcome
from sn17_operator.adapters import record
from sn17_operator.core.model import RecycleResult, Stage
from sn17_operator.core.patience import replacing_seconds
from sn17_operator.core.readings import Signal
from sn17_operator.core.replay import RecordedWorker, Recording, replay
from sn17_simulation.fleet.play import Simulation, let_leak, spec_with, warmed
from sn17_simulation.fleet.worker import REPLACE_SECONDS, START, SWAP_THRESHOLD, TICK, SimWorker

HOUR = int(3600 / TICK)


async def worked(count: int = 4) -> Simulation:
    """A fleet of workers with model processes of their own that has done enough to be judged."""
    sim = await warmed(count, lives=True)
    await sim.run(60)
    return sim


def low(worker: SimWorker, *, sick: bool) -> None:
    worker.gaussians, worker.canary_passes = 50_000.0, not sick


@pytest.mark.parametrize("count", [1, 2, 4, 16])
@pytest.mark.parametrize("leak", [0.004, 0.02])
async def test_leakers_in_lockstep_are_swapped_and_none_stops_working(count: int, leak: float) -> None:
    sim = await warmed(count, lives=True)
    let_leak(sim, leak)
    await sim.run(2 * HOUR)
    world = sim.world
    assert world.swaps >= count
    assert world.most_taken == 0
    assert (world.oom_kills, world.lost_jobs, world.evictions, world.exits) == (0, 0, 0, [])
    assert world.violations == []
    assert world.status["swaps"] == world.swaps
    assert world.status["recycles"] == 0
    assert set(world.words) == {"Starting", "Healthy"}
    assert set(sim.reasons()) == {"SwapRequested", "WorkerSwapped"}


async def test_swap_is_begun_at_the_worker_s_own_threshold() -> None:
    sim = await warmed(2, lives=True)
    worker = sim.workers[0]
    worker.memory = SWAP_THRESHOLD - 0.01
    await sim.run(10)
    assert worker.swap_until is None
    assert worker.pod.intent is None
    worker.memory = SWAP_THRESHOLD + 0.01
    await sim.tick()
    assert worker.swap_until is not None
    assert worker.pod.intent is not None
    assert worker.pod.intent.action is Stage.SWAP
    assert worker.pod.ready
    entry = next(w for w in sim.world.status["workers"] if w["name"] == worker.pod.name)
    assert (entry["state"], entry["stage"]) == ("Healthy", "Swap")


@pytest.mark.parametrize(("leak", "earliest", "latest"), [(0.002, 0.63, 0.66), (0.03, 0.55, 0.64)])
async def test_quick_leak_is_swapped_earlier_so_that_there_is_still_room(
    leak: float, earliest: float, latest: float
) -> None:
    """Between a sample and the request the worker fills up further."""
    sim = await warmed(1, lives=True)
    let_leak(sim, leak)
    worker = sim.workers[0]
    worker.memory = 0.40
    while worker.swap_until is None:
        await sim.tick()
        level = worker.memory
    assert earliest <= level <= latest


async def test_memory_of_two_processes_is_no_breach_until_the_deadline() -> None:
    sim = await warmed(2, lives=True)
    worker = sim.workers[0]
    worker.memory, worker.stuck = 0.70, True
    await sim.run(10)
    assert worker.total > 0.9
    assert sim.world.status["status"] == "Healthy"
    await sim.run(10)
    assert "SwapFailed" in sim.reasons()
    assert "Degraded" in sim.world.words, "past the deadline it is what it looks like"
    assert sim.world.most_taken == 1


@pytest.mark.parametrize("outcome", [RecycleOutcome.FAILED, RecycleOutcome.TIMED_OUT, RecycleOutcome.NO_ROOM])
async def test_swap_that_fails_keeps_the_old_process_rests_and_never_loops(outcome: RecycleOutcome) -> None:
    sim = await warmed(2, lives=True)
    worker = sim.workers[0]
    worker.memory, worker.swap_outcome = 0.70, outcome
    sim.world.tasks_offered = False
    await sim.run(30)
    word = "SwapNoRoom" if outcome is RecycleOutcome.NO_ROOM else "SwapFailed"
    assert sim.count(word) == 1
    assert sim.count("SwapRequested") == 1
    assert worker.life == 0
    assert sim.world.most_taken == 0, "nothing is wrong with a worker that is only due"


async def test_worker_without_room_is_replaced_within_the_budget_when_it_is_full() -> None:
    sim = await worked()
    for worker in sim.workers:
        worker.room = False
        worker.memory = 0.85
    await sim.run(2 * HOUR // 4)
    assert sim.world.replacements == 4
    assert sim.world.swaps == 0
    assert sim.world.most_taken == 1
    assert (sim.world.lost_jobs, sim.world.exits, sim.world.evictions) == (0, [], 0)
    assert sim.world.status["recycles"] == 4
    assert sim.world.status["status"] == "Healthy"
    assert "CleanupRequested" not in sim.reasons(), "it has never helped with this checkpoint"
    assert sim.world.violations == []


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0, 4.0])
async def test_replacement_that_is_still_loading_has_not_failed(factor: float) -> None:
    """Beside busy neighbours a start takes several times what it took before."""
    sim = await worked()
    worker = sim.workers[0]
    worker.room, worker.memory, worker.start_seconds = False, 0.85, factor * REPLACE_SECONDS
    await sim.run(round(2 * 60 / TICK) + round(worker.start_seconds / TICK))
    assert (sim.world.replacements, sim.world.exits, sim.world.evictions) == (1, [], 0)
    assert sim.world.status["status"] == "Healthy"


async def test_replacement_that_never_ends_leads_to_a_restart_of_the_container() -> None:
    sim = await worked()
    worker = sim.workers[0]
    worker.room, worker.memory, worker.start_seconds = False, 0.85, 20 * REPLACE_SECONDS
    await sim.run(round(300 / TICK))
    assert sim.world.exits == [f"{worker.pod.uid}/c0"]


@given(
    phase=st.none() | st.sampled_from(SwapPhase),
    start=st.none() | st.floats(0, 1e5),
    exit_seconds=st.integers(10, 3600),
    replacement=st.integers(30, 86_400),
)
def test_patience_with_a_replacement(
    phase: SwapPhase | None, start: float | None, exit_seconds: int, replacement: int
) -> None:
    """Never less than for a worker that says nothing; more only for one that is starting; bounded."""
    spec = spec_with(recycle={"exitTimeoutSeconds": exit_seconds, "replacementTimeoutSeconds": replacement})
    silent = replacing_seconds(spec, None)
    allowed = replacing_seconds(spec, RecycleResult(None, phase=phase, start_seconds=start))
    assert silent <= allowed <= max(silent, replacement)
    if phase in (None, SwapPhase.SWITCH, SwapPhase.REAP):
        assert allowed == silent
    elif start is not None:
        assert allowed >= min(replacement, 2 * start)
        later = replacing_seconds(spec, RecycleResult(None, phase=phase, start_seconds=start + 1))
        assert later >= allowed


async def test_no_room_that_only_the_worker_knows_of_ends_in_a_replacement() -> None:
    sim = await worked()
    sim.workers[0].promises_room, sim.workers[0].memory = True, 0.89
    await sim.run(20)
    assert sim.count("SwapNoRoom") == 1
    assert (sim.world.replacements, sim.world.exits) == (1, [])
    assert sim.world.status["status"] == "Healthy"


async def test_memory_that_the_service_holds_leads_to_a_restart_of_the_container() -> None:
    """A fresh model process does not free it, and another one would not either."""
    sim = await worked()
    worker = sim.workers[0]
    worker.held, worker.memory = 0.42, 0.31
    await sim.run(6)
    assert sim.world.swaps == 1
    worker.memory = 0.40
    await sim.run(40)
    assert sim.world.exits == [f"{worker.pod.uid}/c0"]
    assert (sim.world.swaps, sim.world.replacements, sim.world.evictions) == (1, 0, 0)
    assert sim.world.status["status"] == "Healthy"
    assert sim.world.violations == []


async def test_lost_quality_is_cured_by_a_swap_without_a_cordon() -> None:
    sim = await worked()
    worker = sim.workers[0]
    low(worker, sick=True)
    await sim.run(10)
    assert (sim.world.swaps, sim.world.most_taken) == (1, 0)
    assert (worker.life, worker.boot) == (1, 0)
    assert "WorkerCordoned" not in sim.reasons()
    assert sim.world.status["status"] == "Healthy"


async def test_small_objects_cost_a_fresh_process_and_the_rule_rests() -> None:
    sim = await worked()
    worker = sim.workers[0]
    low(worker, sick=False)
    await sim.run(60)
    assert sim.count("SameOutput") == 1
    assert sim.count("SwapRequested") == 1
    assert (worker.life, sim.world.most_taken) == (0, 0)


async def test_fresh_process_that_fails_its_canary_proves_nothing_and_the_old_one_goes_on() -> None:
    sim = await worked()
    worker = sim.workers[0]
    low(worker, sick=True)
    worker.swap_outcome = RecycleOutcome.FAILED
    await sim.run(60)
    assert sim.count("SwapFailed") == 1
    assert (worker.life, sim.world.most_taken, sim.world.exits) == (0, 0, [])


async def test_too_many_at_once_are_not_swapped_either() -> None:
    sim = await worked()
    for worker in sim.workers[:3]:
        low(worker, sick=True)
    await sim.run(40)
    assert sim.world.swaps == 0
    assert sim.world.status["status"] == "TooManyUnhealthy"


async def test_escalation_goes_from_swap_to_replacement_to_restart() -> None:
    """Every model process in this container is bad: each act is tried once, the last one is the cure."""
    sim = await worked()
    worker = sim.workers[0]
    worker.device_broken = True
    low(worker, sick=True)
    await sim.run(2 * HOUR)
    assert (sim.world.swaps, sim.world.replacements, len(sim.world.exits)) == (1, 1, 1)
    order = [r for r in sim.reasons() if r in ("WorkerSwapped", "WorkerReplaced", "WorkerRecycled")]
    assert order == ["WorkerSwapped", "WorkerReplaced", "WorkerRecycled"]
    assert sim.world.most_taken == 1
    assert sim.world.status["status"] == "Healthy"
    assert sim.world.violations == []


async def test_hung_job_is_ended_by_a_replacement_and_the_container_stays() -> None:
    sim = await warmed(4, lives=True)
    await sim.run(3)
    worker = next(w for w in sim.workers if w.job_until is not None)
    worker.hung = True
    await sim.run(40)
    assert (worker.life, worker.boot) == (1, 0)
    assert (sim.world.exits, sim.world.evictions) == ([], 0)
    assert sim.world.status["status"] == "Healthy"


async def test_replacement_that_never_happens_ends_in_a_restart_of_the_container() -> None:
    sim = await worked()
    worker = sim.workers[0]
    worker.room, worker.stuck, worker.memory = False, True, 0.9
    await sim.run(40)
    assert sim.world.exits == [f"{worker.pod.uid}/c0"]
    assert sim.world.status["status"] == "Healthy"
    assert sim.world.violations == []


@pytest.mark.parametrize("strategy", ["RestartContainer", "EvictPod"])
async def test_other_strategies_never_swap(strategy: str) -> None:
    sim = await warmed(4, lives=True, spec=spec_with(strategy=strategy))
    sim.workers[0].memory = 0.95
    await sim.run(60)
    assert (sim.world.swaps, sim.world.replacements) == (0, 0)
    assert (len(sim.world.exits), sim.world.evictions) == (
        (1, 0) if strategy == "RestartContainer" else (0, 1)
    )


async def test_old_image_is_restarted_as_ever() -> None:
    sim = await warmed(4)
    sim.workers[0].memory = 0.95
    await sim.run(60)
    assert len(sim.world.exits) == 1
    assert "CleanupRequested" in sim.reasons()


@pytest.mark.parametrize(("mode", "word"), [("Observe", "ObserveOnly"), ("Cordon", "RecycleDisabled")])
async def test_swaps_obey_the_mode_and_it_is_said(mode: str, word: str) -> None:
    sim = await warmed(2, lives=True, spec=spec_with(mode=mode))
    sim.workers[0].memory = 0.70
    await sim.run(10)
    assert sim.world.swaps == 0
    assert sim.world.status["workers"][0]["heldBackBy"] == word


@pytest.mark.parametrize("hold", ["paused", "rolling"])
async def test_swaps_wait_for_pause_and_rollout(hold: str) -> None:
    sim = await warmed(2, lives=True)
    setattr(sim.world, hold, "by hand" if hold == "paused" else True)
    sim.workers[0].memory = 0.70
    await sim.run(10)
    assert sim.workers[0].swap_until is None
    assert sim.world.swaps == 0
    setattr(sim.world, hold, None if hold == "paused" else False)
    await sim.run(10)
    assert sim.world.swaps == 1


async def test_person_s_request_means_the_container() -> None:
    sim = await worked()
    sim.world.change(sim.workers[0], recycle_requested="by hand")
    await sim.run(20)
    assert len(sim.world.exits) == 1


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("point", range(8))
async def test_operator_killed_around_a_swap_goes_on_and_asks_for_no_second_one(
    point: int, before: bool
) -> None:
    sim = await warmed(1, lives=True)
    worker = sim.workers[0]
    worker.memory = 0.70
    sim.host.crash_after, sim.host.crash_before_effect = point, before
    await sim.run(40)
    assert (sim.world.swaps, worker.life) == (1, 1)
    assert sim.world.status["swaps"] == 1
    assert sim.world.violations == []
    assert worker.pod.intent is None


async def test_clean_up_is_tried_again_only_where_it_has_helped() -> None:
    sim = await warmed(4, spec=spec_with(strategy="RestartContainer"))
    worker = sim.workers[0]
    for _ in range(2):
        worker.memory = 0.85
        await sim.run(80)
    assert len(sim.world.exits) == 2
    assert sim.count("CleanupRequested") == 1


async def test_device_error_of_this_life_alone_counts_and_restarts_the_container() -> None:
    """The counter belongs to the service and never falls: it says nothing about the process after a swap. A
    fresh process beside one whose device failed would get the same device."""
    sim = await worked()
    worker = sim.workers[0]
    worker.gpu_errors = 3
    worker.life += 1
    await sim.run(20)
    assert (sim.world.swaps, sim.world.exits) == (0, [])
    worker.gpu_errors += 1
    await sim.run(20)
    assert sim.world.exits == [f"{worker.pod.uid}/c0"]
    assert (sim.world.swaps, sim.world.replacements) == (0, 0)


# --- the same over recorded metrics -------------------------------------------------------------------


def recording() -> Recording:
    """An hour of a worker with a model process of its own that fills up, is restarted, and fills up again."""
    times = [START + 15.0 * i for i in range(1, 241)]
    half = len(times) // 2
    memory = [0.3 + 0.6 * (i % half) / half for i in range(len(times))]
    flat = {Signal.LIMIT: 1000.0, Signal.UP: 1.0, Signal.SWAP_ROOM: 1.0, Signal.SWAP_THRESHOLD: 0.65}
    series = {signal: tuple((at, value) for at in times) for signal, value in flat.items()}
    series[Signal.MEMORY] = tuple((at, 1000.0 * value) for at, value in zip(times, memory, strict=True))
    boots = (("b", tuple((at, 1.0) for at in times)),)
    lives = tuple(
        (life, tuple((at, 1.0) for at in part)) for life, part in (("l1", times[:half]), ("l2", times[half:]))
    )
    worker = RecordedWorker("u", "w1", "n", boots, series, (), lives)
    return Recording(START, times[-1], 15.0, (worker,))


def test_replay_shows_what_another_strategy_would_have_done() -> None:
    """Each life is acted on once: by a swap at the worker's threshold, or by a cordon at 80 %."""
    acts = {
        strategy: [(d.act, d.life_id, d.rule) for d in replay(spec, recording()).decisions]
        for strategy in ("Swap", "RestartContainer")
        for spec in [spec_with(strategy=strategy)]
    }
    assert acts == {
        "Swap": [("Swap", "l1", "SwapDue"), ("Swap", "l2", "SwapDue")],
        "RestartContainer": [("Cordon", "l1", "MemoryHigh"), ("Cordon", "l2", "MemoryHigh")],
    }


def test_replay_says_what_a_swap_strategy_would_have_earned() -> None:
    swap, restart = (replay(spec_with(strategy=s), recording()) for s in ("Swap", "RestartContainer"))
    assert (swap.lost_seconds, restart.lost_seconds) == (2 * 11.0, 2 * 180.0)


@pytest.mark.parametrize("name", ["day.json", "day.json.gz"])
def test_lives_and_doubts_survive_a_file(tmp_path: Path, name: str) -> None:
    known = recording()
    (worker,) = known.workers
    doubted = replace(worker, doubts=(("device_error", ((START + 15.0, 1.0),)),))
    known = replace(known, workers=(doubted,))
    record.write(known, tmp_path / name)
    assert record.read(tmp_path / name) == known


def test_recording_of_the_first_schema_is_read_and_its_numbers_become_reasons(tmp_path: Path) -> None:
    old = {
        "schema_": "sn17.recording/v1", "start": 0, "end": 30, "scrape_interval": 15,
        "workers": [{
            "uid": "u", "name": "w", "node": None, "boots": [["b", [[15, 1], [30, 1]]]],
            "series": {"degraded": [[15, 2.0], [30, 4.0]], "memory": [[15, 1.0], [30, None]]},
        }],
    }  # fmt: skip
    (tmp_path / "old.json").write_text(json.dumps(old))
    (worker,) = record.read(tmp_path / "old.json").workers
    assert dict(worker.doubts) == {"device_error": ((15.0, 1.0),), "canary_failed": ((30.0, 1.0),)}
    assert set(worker.series) == {Signal.MEMORY}
