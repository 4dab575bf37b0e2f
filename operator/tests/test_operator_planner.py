"""What the machine of arbitrary histories has found, as single plans."""

from __future__ import annotations

from dataclasses import replace

from sn17_operator.core.model import (
    Finding,
    Fleet,
    Health,
    Outcome,
    Phase,
    Pod,
    RuleClass,
    UserCordon,
    Verdict,
    Worker,
)
from sn17_operator.core.plan import Act, Reason
from sn17_operator.core.planner import plan
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
