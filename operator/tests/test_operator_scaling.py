"""How many workers there are and which go first: the pure core, and 100 scale-downs of a simulated fleet."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sn17_contract.http import LeaseOwner
from sn17_operator.adapters.objects import matches, selector_text
from sn17_operator.api import Spec
from sn17_operator.core.model import Fleet, Health, History, Phase, Pod, UserCordon, Verdict, Worker
from sn17_operator.core.readings import Evidence
from sn17_operator.core.scaling import MOST_COSTS, OWN_COSTS, scaling
from sn17_simulation.fleet.play import let_leak, spec_with, warmed
from sn17_simulation.fleet.worker import TICK

OWNED = {"owner": "SN17Miner", "deletionCost": True}


def spec(replicas: int | None, **scale: object) -> Spec:
    return spec_with(replicas=replicas, scale={**OWNED, **scale})


workers = st.builds(
    lambda number, health, cost, cordoned, failed, ready, deleting: Worker(
        Pod(
            f"u{number}", f"w{number}", "ns", 0.0, phase=Phase.RUNNING, ready=ready, deleting=deleting,
            deletion_cost=cost, user_cordon=UserCordon("") if cordoned else None,
            history=History(failed="gave up" if failed else None),
        ),
        Evidence(),
        Verdict(health),
    ),
    st.integers(0, 10**6),
    st.sampled_from(Health),
    st.sampled_from([None, None, *OWN_COSTS, 0, 7]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)  # fmt: skip
fleets = st.builds(
    lambda found, expected: Fleet(tuple({w.pod.uid: w for w in found}.values()), expected),
    st.lists(workers, max_size=12),
    st.integers(0, 12),
)


@given(fleet=fleets, wanted=st.none() | st.integers(0, 12))
def test_what_was_written_is_not_written_again(fleet: Fleet, wanted: int | None) -> None:
    asked = spec(wanted)
    first = scaling(asked, fleet)
    costs = {cost.uid: cost.cost for cost in first.costs}
    for worker in fleet.workers:
        if worker.pod.uid in costs:
            assert worker.pod.deletion_cost in {None, *OWN_COSTS}, "a person's cost stays"
            assert not worker.pod.deleting
        doubtful = (
            worker.verdict.health is Health.DEGRADED or worker.pod.user_cordon or worker.pod.history.failed
        )
        if not doubtful:
            assert costs.get(worker.pod.uid) is None, "without figures nobody is known to be idle"
    after = Fleet(
        tuple(
            replace(w, pod=replace(w.pod, deletion_cost=costs.get(w.pod.uid, w.pod.deletion_cost)))
            for w in fleet.workers
        ),
        fleet.expected if first.replicas is None else first.replicas,
    )
    again = scaling(asked if first.adopt is None else spec(first.adopt), after)
    assert (again.costs, again.replicas, again.adopt) == ((), None, None)


def test_a_large_fleet_is_marked_over_several_ticks() -> None:
    pods = [Pod(f"u{n}", f"w{n}", "ns", 0.0, phase=Phase.RUNNING, ready=True) for n in range(100)]
    fleet = Fleet(tuple(Worker(pod, Evidence(), Verdict(Health.DEGRADED)) for pod in pods), 100)
    assert len(scaling(spec(100), fleet).costs) == MOST_COSTS


@pytest.mark.parametrize(
    ("scale", "replicas"), [({}, None), ({"deletionCost": True}, None), ({"owner": "SN17Miner"}, 3)]
)
async def test_nothing_is_written_where_nothing_differs(
    scale: dict[str, object], replicas: int | None
) -> None:
    sim = await warmed(3, spec=spec_with(scale=scale, replicas=replicas))
    await sim.run(100)
    assert (sim.world.costs_written, sim.world.wanted, sim.world.spec.replicas) == (0, 3, replicas)
    assert sim.world.status["replicas"] == 3
    assert sim.world.status["selector"] == "app=workers"


async def test_a_count_that_is_not_owned_is_said_once_and_does_nothing() -> None:
    sim = await warmed(2, spec=spec_with(replicas=5))
    await sim.run(20)
    assert sim.world.wanted == 2
    assert sim.count("ReplicasIgnored") == 1


async def test_the_degraded_then_the_idle_go_first() -> None:
    sim = await warmed(6, spec=spec(None, owner="SN17Miner"))
    assert sim.world.spec.replicas == 6, "taken over from the Deployment"
    sim.world.spec = sim.world.spec.model_copy(update={"mode": "Observe"})
    sick, idle = sim.workers[0], sim.workers[3]
    sick.gpu_errors = 1
    idle.leases[LeaseOwner.USER] = None
    await sim.run(4)
    assert sick.pod.deletion_cost == -100
    assert idle.job_until is None
    assert idle.pod.deletion_cost is None, "idle ones only when there are to be fewer"
    sim.world.change(idle, ready=True)
    sim.world.spec = sim.world.spec.model_copy(update={"replicas": 4})
    await sim.controller.tick()
    assert {w.pod.name for w in sim.workers if w.leaving} == {sick.pod.name, idle.pod.name}
    await sim.run(4)
    assert len(sim.workers) == 4
    assert all(worker.pod.deletion_cost is None for worker in sim.workers)
    assert sim.world.lost_jobs == 0


async def test_a_hundred_scale_downs_under_load_end_no_job_and_pass_through_zero() -> None:
    rng = Random(17)
    sim = await warmed(8, spec=spec(8, owner="SN17Miner"))
    let_leak(sim, 0.01)
    downs, zeros = 0, 0
    while downs < 100:
        before = sim.world.wanted
        wanted = rng.choice([0, 1, 2, 4, 8, 12])
        sim.world.spec = sim.world.spec.model_copy(update={"replicas": wanted})
        await sim.run(rng.randint(3, 12))
        assert sim.world.wanted == wanted
        downs += wanted < before
        zeros += wanted == 0
    await sim.run(int(300 / TICK))
    assert zeros > 10
    assert sim.world.lost_jobs == 0
    assert sim.world.oom_kills == 0
    assert len([w for w in sim.workers if not w.leaving]) == sim.world.wanted


def test_selectors_read_as_they_select() -> None:
    selector = {
        "matchLabels": {"b": "2", "a": "1"},
        "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["x", "y"]},
            {"key": "d", "operator": "DoesNotExist"},
        ],
    }
    assert selector_text(selector) == "a=1,b=2,c in (x,y),!d"
    assert matches(selector, {"a": "1", "b": "2", "c": "x"})
