"""Single plans: what the machine of arbitrary histories has found, and what the budget counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sn17_operator.core.model import (
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
    UserCordon,
    Verdict,
    Worker,
)
from sn17_operator.core.plan import Act, Reason
from sn17_operator.core.planner import plan, settle
from sn17_operator.core.readings import Evidence
from sn17_simulation.fleet.play import SPEC

NOW = 1_700_000_000.0
HUNG = Finding("Stalled", RuleClass.STALL, Outcome.BREACH, "no progress")


def worker(index: int, *found: Finding) -> Worker:
    pod = Pod(
        f"u{index}",
        f"w{index}",
        "ns",
        0.0,
        phase=Phase.RUNNING,
        container_id="c",
        started_at=NOW - 9_000,
        ready=True,
    )
    return Worker(pod, Evidence("b"), Verdict(Health.DEGRADED if found else Health.HEALTHY, found))


def cordoned(at: Worker, *, lift: bool, ready: bool) -> Worker:
    return replace(at, pod=replace(at.pod, user_cordon=UserCordon("look", lift=lift), ready=ready))


def test_worker_given_back_by_a_person_is_not_taken_again_beyond_the_budget() -> None:
    """A person's cordon costs nothing; the operator's that follows it at the same tick does."""
    back = cordoned(worker(0, HUNG), lift=True, ready=True)
    others = [cordoned(worker(i), lift=False, ready=False) for i in (1, 2)]
    fleet = Fleet((back, *others, worker(3), worker(4)), 5)
    found = plan(SPEC, fleet, NOW)
    assert [step.act for step in found.steps if step.uid == back.pod.uid] == [Act.USER_UNCORDON]
    assert [blocked.reason for blocked in found.blocked] == [Reason.BUDGET_EXHAUSTED]
    alone = plan(SPEC, Fleet((back, *(worker(i) for i in range(1, 5))), 5), NOW)
    assert [step.act for step in alone.steps] == [Act.USER_UNCORDON, Act.CORDON]


# --- what counts as out of service ----------------------------------------------------------------------


LEAK = Finding(RuleName.MEMORY_HIGH, RuleClass.MEMORY, Outcome.BREACH, "leaks", value=0.85)
TWO_LIVES = Evidence("b", life_id="l")


def acts(*workers: Worker, expected: int = 5, **fleet: Any) -> dict[str, Act]:
    found = plan(SPEC, Fleet(workers, expected, **fleet), NOW)
    return {step.uid: step.act for step in found.steps}


def but(at: Worker, **changes: Any) -> Worker:
    return replace(at, pod=replace(at.pod, **changes))


def healthy(*numbers: int) -> list[Worker]:
    return [worker(number) for number in numbers]


def test_a_pod_that_is_being_deleted_is_out_of_service_though_still_ready() -> None:
    """A pod stays Ready through its grace period; taking another one then would be two at once."""
    assert acts(worker(0, HUNG), *healthy(1, 2, 3, 4)) == {"u0": Act.CORDON}
    assert acts(worker(0, HUNG), but(worker(1), deleting=True), *healthy(2, 3, 4)) == {}


def test_an_eviction_whose_replacement_is_awaited_takes_the_budget() -> None:
    """Also where a worker is hung and serves nobody, so that acting on it would cost no service."""
    hung = but(worker(0, HUNG), ready=False)
    awaited = Eviction("gone", "w9", None, "stalled", NOW - 30)
    assert acts(hung, *healthy(1, 2, 3)) == {"u0": Act.CORDON}
    assert acts(hung, *healthy(1, 2, 3), evictions=(awaited,)) == {}


def test_workers_that_serve_nobody_are_taken_one_after_another() -> None:
    hung = [but(worker(number, HUNG), ready=False) for number in (0, 1)]
    assert acts(*hung, *healthy(2, 3, 4)) == {"u0": Act.CORDON}


def test_a_swap_goes_ahead_while_the_budget_is_spent() -> None:
    leaking = replace(worker(0, LEAK), evidence=TWO_LIVES)
    down = but(worker(1), ready=False)
    assert acts(leaking, down, *healthy(2, 3, 4)) == {"u0": Act.SWAP}
    assert acts(worker(0, LEAK), down, *healthy(2, 3, 4)) == {}, "one process: it would have to be cordoned"


def test_of_two_leaking_workers_the_fuller_one_is_taken_first() -> None:
    fuller = worker(1, replace(LEAK, value=0.93))
    assert acts(worker(0, LEAK), fuller, *healthy(2, 3, 4)) == {"u1": Act.CORDON}


def test_a_swap_after_a_recycle_does_not_wait_but_a_cordon_does() -> None:
    """The cooldown is about restarts: a swap costs no service, and an emergency cannot wait."""
    recycled = History(recycled_at=NOW - 60)
    leaking = but(worker(0, LEAK), history=recycled)
    emergency = replace(LEAK, rule=RuleName.MEMORY_EMERGENCY)
    assert acts(leaking, *healthy(1, 2, 3, 4)) == {}
    assert acts(replace(leaking, evidence=TWO_LIVES), *healthy(1, 2, 3, 4)) == {"u0": Act.SWAP}
    grave = but(worker(0, emergency), history=recycled)
    assert acts(grave, *healthy(1, 2, 3, 4)) == {"u0": Act.CORDON}


def test_a_replacement_that_is_swapped_again_has_not_recovered() -> None:
    """A chain of evictions that change nothing is counted until one stays healthy without help."""
    evicted = Eviction("gone", "w9", None, "leak", NOW - 5_000, replacement_uid="u0", settled=True)
    intent = Intent(Stage.SWAP, "b", "c", RuleName.MEMORY_HIGH, RuleClass.MEMORY, "leaks", NOW, NOW)
    for pod, recovered in ((worker(0), True), (but(worker(0), intent=intent), False)):
        (record,) = settle(SPEC, Fleet((pod, *healthy(1)), 2, evictions=(evicted,)), NOW)
        assert record.recovered == recovered


def test_a_worker_that_a_person_keeps_out_of_service_is_left_to_the_person() -> None:
    """Whoever looks at a hung worker does not want it restarted under their hands."""
    kept = cordoned(worker(0, HUNG), lift=False, ready=False)
    found = plan(SPEC, Fleet((kept, *healthy(1, 2, 3, 4)), 5), NOW)
    assert [step.act for step in found.steps] == [Act.USER_CORDON], "only its own cordon is asserted"
    assert [blocked.reason for blocked in found.blocked] == [Reason.USER_CORDONED]
