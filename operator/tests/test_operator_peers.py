"""What only the fleet's view shows: a card unlike its peers, a full pod, a bad checkpoint."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sn17_operator.core.peers import disagreeing
from sn17_simulation.fleet.play import Simulation, warmed
from sn17_simulation.recycling.case import Case, Fault
from sn17_simulation.recycling.guarded import Guarded
from sn17_simulation.recycling.operated import Operated
from sn17_simulation.recycling.score import play


def test_most_of_the_peers_are_right_and_two_cannot_tell() -> None:
    assert disagreeing({"a": "m/1", "b": "m/2"}) == {}
    assert set(disagreeing({"a": "m/1", "b": "m/1", "c": "m/2"})) == {"c"}
    assert disagreeing({"a": "m/1", "b": "m/1", "c": "m/2", "d": "m/2"}) == {}
    assert disagreeing({"a": "m/1", "b": "m/1", "c": "other/2"}) == {}


@given(st.dictionaries(st.text("abcdefgh", min_size=1), st.sampled_from(["m/1", "m/2", "n/1", "n/2"])))
def test_fewer_than_half_of_a_kind_disagree(canaries: dict[str, str]) -> None:
    odd = disagreeing(canaries)
    for model in ("m", "n"):
        kind = {uid for uid, canary in canaries.items() if canary.startswith(f"{model}/")}
        assert 2 * len(kind & set(odd)) < max(1, len(kind))


async def with_canaries(count: int = 4) -> Simulation:
    sim = await warmed(count, lives=True)
    for worker in sim.workers:
        worker.canary_output = "model/good"
    await sim.run(2)
    return sim


async def test_a_card_unlike_its_peers_is_taken_out_of_service_and_it_is_said() -> None:
    sim = await with_canaries()
    worker = sim.workers[0]
    worker.canary_output = "model/bad"
    await sim.run(40)
    assert sim.count("SameOutput") == 1, "a fresh process is tried first"
    assert "operator" in worker.leases
    entry = next(w for w in sim.world.status["workers"] if w["name"] == worker.pod.name)
    assert (entry["state"], entry["heldBackBy"]) == ("Cordoned", "DeviceSuspect")
    assert (sim.world.exits, sim.world.evictions, sim.world.most_taken) == ([], 0, 1)
    worker.canary_output = "model/good"
    await sim.run(5)
    assert worker.leases == {}
    assert sim.world.status["status"] == "Healthy"


async def test_a_process_unlike_its_peers_is_cured_by_a_swap() -> None:
    sim = await with_canaries()
    worker = sim.workers[0]
    worker.canary_output, worker.canary_passes = "model/bad", False
    while worker.life == 0:
        await sim.tick()
    worker.canary_output = "model/good"
    await sim.run(20)
    assert (sim.world.swaps, sim.world.most_taken) == (1, 0)
    assert "WorkerCordoned" not in sim.reasons()


async def test_a_fleet_that_makes_the_same_low_output_after_fresh_starts_is_told_as_one() -> None:
    """Small objects everywhere: each rule rests, and together they point at prompts or checkpoint."""
    sim = await warmed(4, lives=True)
    await sim.run(60)
    for worker in sim.workers:
        worker.gaussians = 50_000
        await sim.run(12)
    await sim.run(20)
    assert sim.world.status["status"] == "TooManyUnhealthy"
    assert sim.count("SwapRequested") <= 3


async def test_memory_is_left_to_a_guard_as_long_as_it_has_not_failed() -> None:
    sim = await warmed(4, lives=True, guard=True)
    worker = sim.workers[0]
    worker.room, worker.memory = False, 0.85
    await sim.run(20)
    assert "WorkerCordoned" not in sim.reasons()
    assert sim.world.status["status"] == "Healthy"
    worker.memory = 0.91
    await sim.run(20)
    assert (sim.world.replacements, sim.world.exits) == (1, [])
    assert sim.world.violations == []


def test_where_the_fleets_view_is_needed_it_earns_more_than_the_guard_alone() -> None:
    for fault in (Fault.BAD_CARD, Fault.FADING, Fault.TMPFS_LEAK):
        case = Case(fault, 0.8, 25.0, 20.0)
        guard, operated = play(case, Guarded()), play(case, Operated())
        assert operated.accepted > 1.1 * guard.accepted, fault
        assert operated.most_taken <= 1 or fault is Fault.TMPFS_LEAK
