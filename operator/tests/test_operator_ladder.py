"""The ladder of acts, one decision each: which act comes first, and when one makes way for the next."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from sn17_contract.metrics import DegradedReason
from sn17_operator.core.escalation import first_act
from sn17_operator.core.model import (
    CanaryResult,
    Eviction,
    Finding,
    Fleet,
    Health,
    History,
    Intent,
    Outcome,
    Phase,
    Pod,
    RuleClass,
    RuleName,
    Stage,
    Verdict,
    Worker,
)
from sn17_operator.core.plan import Act, Reason, Step
from sn17_operator.core.readings import Evidence, Reading, Series, Signal
from sn17_operator.core.remediation import Remediation
from sn17_simulation.fleet.play import SPEC

NOW = 1_700_000_000.0
YOUNG = SPEC.recycle.young_seconds
DRAIN = SPEC.drain.timeout_seconds
MEMORY = (RuleName.MEMORY_HIGH, RuleClass.MEMORY)
QUALITY = (RuleName.GAUSSIANS_LOW, RuleClass.QUALITY)


def worker(*, lives: bool = True, says: dict[Signal, float] | None = None, **pod: Any) -> Worker:
    """A degraded worker that holds the lease and has no job; ``says`` are its newest samples."""
    readings: dict[Signal, Reading] = {
        signal: Series(((NOW, value),)) for signal, value in (says or {}).items()
    }
    breach = Finding(RuleName.MEMORY_HIGH, RuleClass.MEMORY, Outcome.BREACH, "bad")
    fields = {"phase": Phase.RUNNING, "container_id": "c", "started_at": NOW - 9_000, "ready": True}
    return Worker(
        Pod("u", "w", "ns", 0.0, **(fields | pod)),
        Evidence("b", readings, life_id="l" if lives else None),
        Verdict(Health.DEGRADED, (breach,)),
        leased=True,
        drained=True,
    )


def act_of(
    at: Worker,
    stage: Stage,
    what: tuple[RuleName, RuleClass],
    *,
    since: float = 30.0,
    short_circuit: bool = False,
    evictions: tuple[Eviction, ...] = (),
) -> Step | None:
    """What comes next for an intent that was written ``since`` seconds ago."""
    began = NOW - since
    intent = Intent(stage, "b", "c", *what, "bad", began, began, at.evidence.life_id)
    fleet = Fleet((at,), 1, evictions=evictions)
    found = Remediation(SPEC, fleet, at, intent, short_circuit, NOW).next()
    assert found is None or isinstance(found, Step)
    return found


def first(at: Worker, what: tuple[RuleName, RuleClass]) -> Stage:
    return first_act(SPEC, at, *what, NOW)


# --- which act comes first ------------------------------------------------------------------------------


def test_a_swap_comes_first_where_it_can_help() -> None:
    assert first(worker(), MEMORY) is Stage.SWAP
    assert first(worker(lives=False), MEMORY) is Stage.RECYCLE
    assert first(worker(), (RuleName.STALLED, RuleClass.STALL)) is Stage.REPLACE
    assert first(worker(), (RuleName.GPU_ERROR, RuleClass.STALL)) is Stage.RECYCLE
    suspect = worker()
    doubt = replace(suspect.evidence, doubt=DegradedReason.DEVICE_SUSPECT)
    assert first(replace(suspect, evidence=doubt), MEMORY) is Stage.EVICT


@pytest.mark.parametrize(("room", "act"), [(0.0, Stage.REPLACE), (1.0, Stage.SWAP), (None, Stage.SWAP)])
def test_without_room_for_two_the_process_is_replaced_and_unknown_is_not_no(
    room: float | None, act: Stage
) -> None:
    says = {} if room is None else {Signal.SWAP_ROOM: room}
    assert first(worker(says=says), MEMORY) is act
    assert first(worker(says=says), QUALITY) is Stage.SWAP, "quality does not wait for memory"


def test_a_container_that_was_just_restarted_is_not_swapped_and_an_old_one_is() -> None:
    for ago, act in ((YOUNG - 1, Stage.RECYCLE), (YOUNG + 1, Stage.SWAP)):
        history = History(recycled_at=NOW - ago, recycled_container="c")
        assert first(worker(history=history), MEMORY) is act


def test_an_act_that_just_did_not_help_makes_way_for_the_next() -> None:
    for tried, act in ((Stage.SWAP, Stage.REPLACE), (Stage.REPLACE, Stage.RECYCLE)):
        history = History(tried=tried, tried_at=NOW - YOUNG + 1)
        assert first(worker(history=history), MEMORY) is act
    long_ago = History(tried=Stage.REPLACE, tried_at=NOW - YOUNG - 1)
    assert first(worker(history=long_ago), MEMORY) is Stage.SWAP


# --- from the cordon to the act -------------------------------------------------------------------------


def test_a_cordon_for_quality_is_withdrawn_when_many_are_alike() -> None:
    asked, withdrawn = (act_of(worker(), Stage.CORDON, QUALITY, short_circuit=many) for many in (False, True))
    assert asked is not None
    assert asked.act is Act.CANARY
    assert withdrawn is not None
    assert withdrawn.reason is Reason.REMEDIATION_WITHDRAWN


def test_a_job_in_flight_is_waited_for_but_not_for_ever() -> None:
    busy = replace(worker(), drained=False)
    for since, act in ((DRAIN - 1, Act.RENEW), (DRAIN + 1, Act.REPLACE)):
        step = act_of(busy, Stage.CORDON, MEMORY, since=since)
        assert step is not None
        assert step.act is act


@pytest.mark.parametrize(("used", "act"), [(40.0, Act.RENEW), (95.0, Act.REPLACE)])
def test_memory_that_a_clean_up_has_freed_is_watched_and_other_is_acted_on(used: float, act: Act) -> None:
    at = worker(says={Signal.MEMORY: used, Signal.LIMIT: 100.0})
    step = act_of(replace(at, acknowledged=frozenset({Stage.CLEANUP})), Stage.CLEANUP, MEMORY)
    assert step is not None
    assert step.act is act


@pytest.mark.parametrize(
    ("result", "act"),
    [
        (CanaryResult(NOW, True), Act.UNCORDON),
        (CanaryResult(NOW, False, "nan"), Act.REPLACE),
        (CanaryResult(NOW, None, "busy"), Act.REPLACE),
        (CanaryResult(NOW - 60, True), Act.CANARY),
        (CanaryResult(NOW - 60, False), Act.CANARY),
        (None, Act.CANARY),
    ],
    ids=["passed", "failed", "could not run", "an old pass", "an old failure", "no answer yet"],
)
def test_the_canary_that_was_asked_for_decides(result: CanaryResult | None, act: Act) -> None:
    step = act_of(replace(worker(), canary=result), Stage.CANARY, QUALITY)
    assert step is not None
    assert step.act is act


# --- after a restart ------------------------------------------------------------------------------------


def test_a_restarted_container_counts_once_it_runs() -> None:
    waiting = worker(container_id="c2", phase=Phase.WAITING, ready=False)
    assert act_of(waiting, Stage.RECYCLE, MEMORY) is None
    step = act_of(worker(container_id="c2"), Stage.RECYCLE, MEMORY)
    assert step is not None
    assert step.intent is not None
    assert (step.reason, step.intent.action) == (Reason.WORKER_RECYCLED, Stage.WARMUP)


def test_a_container_that_degrades_again_young_is_evicted() -> None:
    for age, act in ((YOUNG - 60, Act.EVICT), (YOUNG + 60, Act.EXIT)):
        history = History(recycled_at=NOW - age, recycled_container="c")
        at = worker(lives=False, history=history, started_at=NOW - age)
        step = act_of(replace(at, degraded_since=NOW), Stage.CORDON, (RuleName.GPU_ERROR, RuleClass.STALL))
        assert step is not None
        assert step.act is act


def test_memory_that_outlives_a_restart_is_left_behind_by_an_eviction() -> None:
    for pod_memory, act in ((90.0, Act.EVICT), (11.0, None)):
        says = {Signal.POD_MEMORY: pod_memory, Signal.MEMORY: 10.0, Signal.LIMIT: 100.0}
        step = act_of(worker(says=says, ready=False), Stage.WARMUP, MEMORY)
        assert (None if step is None else step.act) is act


def test_evictions_that_change_nothing_end_with_a_person() -> None:
    def chained(count: int) -> tuple[Eviction, ...]:
        uids = [*(f"u{number}" for number in range(count)), "u"]
        return tuple(
            Eviction(old, old, None, "bad", NOW - 600, replacement_uid=new, settled=True)
            for old, new in pairwise(uids)
        )

    pod_memory = (RuleName.POD_MEMORY_HIGH, RuleClass.MEMORY)
    most = SPEC.recycle.maximum_evictions
    for count, reason in ((most - 1, Reason.WORKER_EVICTED), (most, Reason.REMEDIATION_FAILED)):
        step = act_of(worker(), Stage.CORDON, pod_memory, evictions=chained(count))
        assert step is not None
        assert step.reason is reason
