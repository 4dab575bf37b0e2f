"""What a person sees: the word, the columns, conditions, nodes, and how often it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sn17_operator.core.model import (
    Eviction,
    Finding,
    Fleet,
    Health,
    Intent,
    Outcome,
    Phase,
    Pod,
    RuleClass,
    RuleName,
    Stage,
    Termination,
    UserCordon,
    Verdict,
    Worker,
)
from sn17_operator.core.planner import plan
from sn17_operator.core.readings import Evidence, Monitoring, Series, Signal
from sn17_operator.explain import explain_pod
from sn17_operator.status.codec import flips, worth_writing
from sn17_operator.status.conditions import suspect_nodes
from sn17_operator.status.render import render as statuses
from sn17_operator.status.resource import EvictionRecord, Status, Summary, rfc3339
from sn17_operator.status.view import Missing, Ratios, View
from sn17_simulation.fleet.play import SPEC, Simulation, spec_with

NOW = 1_700_000_000.0


def worker(index: int = 0, health: Health = Health.HEALTHY, *found: Finding, **pod: Any) -> Worker:
    base = {
        "uid": f"u{index}",
        "name": f"w{index:04}",
        "namespace": "ns",
        "created_at": 0.0,
        "node": f"n{index % 2}",
        "phase": Phase.RUNNING,
        "container_id": f"c{index}",
        "started_at": NOW - 9_000,
        "ready": True,
    }
    return Worker(Pod(**{**base, **pod}), Evidence("b"), Verdict(health, found))


def breach(rule: RuleName, rule_class: RuleClass) -> Finding:
    return Finding(rule, rule_class, Outcome.BREACH, f"{rule} is breached", priority=5)


def render(
    workers: Sequence[Worker],
    *,
    expected: int | None = None,
    previous: Mapping[str, Any] | None = None,
    monitoring: Monitoring | None = None,
    missing: Missing | None = None,
    found: bool = True,
    ratios: Mapping[str, Ratios] | None = None,
    now: float = NOW,
    **fleet: Any,
) -> dict[str, Any]:
    made = Fleet(tuple(workers), len(workers) if expected is None else expected, **fleet)
    planned = plan(SPEC, made, now)
    view = View(
        SPEC,
        3,
        made,
        planned,
        monitoring or Monitoring(now, 35),
        found,
        missing,
        ratios or {},
        Status.read(previous or {}),
    )
    return statuses(view, now).written()


def condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next(c for c in status["conditions"] if c["type"] == kind)  # type: ignore[no-any-return]


def test_every_condition_is_there_from_the_first_visit() -> None:
    status = render([])
    kinds = [c["type"] for c in status["conditions"]]
    assert kinds == [
        "Ready",
        "MetricsAvailable",
        "RemediationAllowed",
        "Degraded",
        "Paused",
        "NodeSuspect",
        "DeviceSuspect",
    ]
    assert all(c["reason"] and c["observedGeneration"] == 3 for c in status["conditions"])


def test_cadvisor_that_is_not_scraped_is_said_without_an_event() -> None:
    before, after = (
        render([worker()], monitoring=Monitoring(NOW, 35, pod_memory=seen)) for seen in (True, False)
    )
    told = [condition(status, "MetricsAvailable") for status in (before, after)]
    assert [(each["status"], each["reason"]) for each in told] == [("True", "Fresh")] * 2
    assert ["cAdvisor is not scraped" in each["message"] for each in told] == [False, True]
    assert flips(Status.read(after), Status.read(before)) == []
    assert not worth_writing(Status.read(after), Status.read(before), 10)


LOW = breach(RuleName.GAUSSIANS_LOW, RuleClass.QUALITY)
WAITING = {
    "phase": Phase.PENDING,
    "phase_reason": "Unschedulable",
    "phase_message": "0/1 nodes: no GPU",
    "ready": False,
}
RECYCLING = Intent(Stage.RECYCLE, "b", "c0", "MemoryHigh", RuleClass.MEMORY, "full", NOW, NOW)


@pytest.mark.parametrize(
    ("word", "options"),
    [
        ("Healthy", {"workers": [worker()]}),
        ("TargetNotFound", {"workers": [], "found": False}),
        ("ScaledToZero", {"workers": [], "expected": 0}),
        ("NoWorkers", {"workers": [worker(0, Health.STARTING, **WAITING)]}),
        ("HotkeyMissing", {"workers": [worker()], "missing": Missing(Summary.HOTKEY_MISSING, "make it")}),
        ("Paused", {"workers": [worker()], "paused": "upgrade"}),
        (
            "MetricsUnavailable",
            {"workers": [worker()], "monitoring": Monitoring(NOW, 35, 15, {Signal.UP: "timeout"})},
        ),
        ("MetricsUnavailable", {"workers": [worker(0, Health.UNKNOWN)]}),
        ("TooManyUnhealthy", {"workers": [worker(i, Health.DEGRADED, LOW) for i in range(3)]}),
        ("Recycling", {"workers": [worker(0, Health.DEGRADED, intent=RECYCLING), worker(1)]}),
        ("Degraded", {"workers": [worker(0, Health.DEGRADED, LOW), worker(1), worker(2)]}),
        ("Starting", {"workers": [worker(0), worker(1, Health.STARTING, ready=False)]}),
    ],
)
def test_most_useful_word(word: str, options: dict[str, Any]) -> None:
    status = render(**options)
    assert status["status"] == word
    assert status["message"]


def test_no_workers_repeats_the_schedulers_reason() -> None:
    status = render([worker(0, Health.STARTING, **WAITING)], expected=1)
    assert status["message"] == "w0000: Unschedulable: 0/1 nodes: no GPU"
    assert status["ready"] == "0/1"


def test_nothing_known_is_a_dash_and_never_zero() -> None:
    status = render([worker(0, Health.UNKNOWN)])
    assert [status[key] for key in ("gaussians", "memory", "success", "yield")] == ["-"] * 4


def test_columns_are_coarse() -> None:
    readings = {Signal.GAUSSIANS: Series(((NOW, 354_321.0),)), Signal.GENERATIONS: Series(((NOW, 9.0),))}
    memory = Finding(RuleName.MEMORY_HIGH, RuleClass.MEMORY, Outcome.OK, "", value=0.613)
    one = replace(worker(0, Health.HEALTHY, memory), evidence=Evidence("b", readings))
    status = render([one], ratios={"1h": Ratios(0.974, 0.9), "4h": Ratios(None, None)})
    assert [status[key] for key in ("gaussians", "memory", "success", "yield")] == [
        "350k",
        "60%",
        "97%",
        "90%",
    ]
    assert status["success4h"] == "-"


@given(st.integers(0, 300))
def test_only_the_unhealthy_are_listed_sorted_and_at_most_a_hundred(count: int) -> None:
    workers = [worker(i, Health.UNKNOWN) for i in reversed(range(count))] + [
        worker(900),
        worker(901, Health.IDLE),
    ]
    status = render(workers)
    assert len(status["workers"]) == min(count, 100)
    assert status["workersOmitted"] == max(0, count - 100)
    assert [w["name"] for w in status["workers"]] == sorted(w["name"] for w in status["workers"])


def test_cordon_of_a_person_is_counted_and_told() -> None:
    status = render([worker(0, user_cordon=UserCordon("look at it")), worker(1)])
    assert status["cordoned"] == 1
    assert status["workers"][0]["message"] == "cordoned by a person: look at it"


def test_totals_only_grow_and_count_nothing_twice() -> None:
    killed = worker(0, last_termination=Termination("OOMKilled", 137, NOW - 60))
    first = render([killed])
    assert first["oomKills"] == 1
    again = render([killed], previous=first, now=NOW + 15)
    assert again["oomKills"] == 1
    later = worker(0, last_termination=Termination("OOMKilled", 137, NOW + 20))
    assert render([later], previous=again, now=NOW + 30)["oomKills"] == 2


def test_evictions_are_read_back_as_written() -> None:
    record = Eviction("u", "w", "n", "hung", NOW, "v", True)
    status = Status(evictions=(EvictionRecord.of(record),))
    (read,) = Status.read(status.written()).evictions or ()
    assert read.eviction() == record


def test_what_another_version_wrote_never_stops_the_tick() -> None:
    known = render([worker(0, Health.DEGRADED, LOW)])
    strange = {
        **known,
        "status": "Levitating",
        "recycles": "many",
        "novelty": {"a": 1},
        "evictions": [
            {"uid": "u"},
            {"uid": "v", "time": "never"},
            {"uid": "w", "time": "2026-01-01T00:00:00Z"},
        ],
        "conditions": [*known["conditions"], {"type": "Weather", "status": "True"}],
    }
    read = Status.read(strange)
    assert (read.status, read.recycles) == (None, None)
    assert [record.uid for record in read.evictions or ()] == ["w"]
    assert [c.type for c in read.conditions or ()] == [c["type"] for c in known["conditions"]]
    assert render([worker()], previous=strange)["status"] == "Healthy"


def test_transition_time_moves_only_when_the_status_flips() -> None:
    first = render([worker()])
    second = render([worker()], previous=first, now=NOW + 100)
    assert condition(second, "Ready")["lastTransitionTime"] == condition(first, "Ready")["lastTransitionTime"]
    third = render([worker(0, Health.DEGRADED, LOW)], previous=second, now=NOW + 200)
    assert condition(third, "Degraded")["lastTransitionTime"] == rfc3339(NOW + 200)


def test_figures_alone_are_written_at_most_every_half_minute() -> None:
    old = render([worker()])
    moved = {**old, "memory": "55%"}
    happened = {**old, "recycles": 1}
    before = Status.read(old)
    assert not worth_writing(Status.read(moved), before, 29)
    assert worth_writing(Status.read(moved), before, 30)
    assert not worth_writing(Status.read(old), before, 1e9)
    assert worth_writing(Status.read(happened), before, 0)


def test_flip_is_told_once() -> None:
    good = render([worker()])
    bad = render([worker(0, Health.DEGRADED, LOW)], previous=good)
    assert [flip.reason for flip in flips(Status.read(bad), Status.read(good))] == ["GaussiansLow"]
    assert flips(Status.read(bad), Status.read(bad)) == []
    assert flips(Status.read(good), Status()) == [], "good news at the start is no news"


# --- nodes --------------------------------------------------------------------------------------------

GPU = breach(RuleName.GPU_ERROR, RuleClass.STALL)
FULL = breach(RuleName.MEMORY_HIGH, RuleClass.MEMORY)


@pytest.mark.parametrize(
    ("sick", "suspect"),
    [
        ({0: LOW, 2: LOW}, ["n0"]),  # both on one node
        ({0: LOW, 1: LOW}, []),  # one on each
        ({0: GPU}, ["n0"]),  # device errors are enough
        ({0: FULL, 2: FULL}, []),  # leakers leak alike wherever they run
        ({0: LOW, 2: LOW, 1: LOW, 3: LOW}, []),  # the same everywhere: not the node
    ],
)
def test_node_suspect(sick: dict[int, Finding], suspect: list[str]) -> None:
    workers = [worker(i, Health.DEGRADED, sick[i]) if i in sick else worker(i) for i in range(4)]
    assert list(suspect_nodes(SPEC, workers)) == suspect
    assert condition(render(workers), "NodeSuspect")["status"] == str(bool(suspect))


# --- explain ------------------------------------------------------------------------------------------


async def test_explain_shows_every_rule_and_what_comes_next() -> None:
    sim = Simulation(2, spec_with(mode="Observe"))
    await sim.run(10)
    sim.workers[0].memory = 0.95
    await sim.run(3)
    (snapshot,) = sim.controller.snapshots.values()
    found = explain_pod(snapshot, sim.workers[0].pod.name)
    assert found is not None
    rules = {rule.rule: rule for rule in found.rules}
    assert len(rules) == 10
    assert rules["MemoryEmergency"].outcome == "Breach"
    assert rules["MemoryEmergency"].value == pytest.approx(0.95)
    assert rules["MemoryEmergency"].threshold == 0.9
    assert found.next.startswith("held back by ObserveOnly")
    assert found.budget.max_unavailable == 1
    assert explain_pod(snapshot, "nobody") is None
