"""What an autoscaler goes by: work that is there, whatever the number of workers."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from sn17_contract.metrics import WorkState
from sn17_contract.tasks import VALIDATORS, Phase
from sn17_miner.core.scheduler import Lane, Scheduler
from sn17_miner.core.timing import Timing
from sn17_miner.core.workload import PROBE_SECONDS, Work, workload
from sn17_protocol import Neuron

NOW = 1_700_000_000.0
AHEAD = 120.0


def lanes(count: int, **changes: Any) -> list[Lane]:
    scheduler = Scheduler(Timing(), Random(1), "miner")
    neurons = [
        Neuron(uid=n, hotkey=f"v{n}", ip="10.0.0.1", port=1, serving=True, stake=5000.0) for n in range(count)
    ]
    scheduler.sync(NOW - 1, neurons)
    for lane in scheduler.lanes.values():
        for name, value in changes.items():
            setattr(lane, name, value)
    return list(scheduler.lanes.values())


def of(found: list[Lane], **changes: Any) -> Work:
    given: dict[str, Any] = {"doors": {}, "held": (), "waiting": (), "queued": {}, "pulls": True}
    return workload(found, NOW, AHEAD, **{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "due", "soon"),
    [
        ({}, 3, 0),
        ({"phase": Phase.COOLING, "wake_at": NOW + 200}, 0, 0),
        ({"phase": Phase.COOLING, "wake_at": NOW + 100}, 0, 3),
        ({"phase": Phase.COOLING, "wake_at": NOW}, 3, 0),
        ({"phase": Phase.BUSY}, 0, 0),
        ({"phase": Phase.QUARANTINED}, 0, 0),
        ({"leaving": True}, 0, 0),
        # Those that gave nothing: one worker after a quarter of an hour, not one each at once.
        ({"phase": Phase.RESTING, "failures": 4, "wake_at": NOW - 60}, 0, 0),
        ({"phase": Phase.RESTING, "failures": 4, "wake_at": NOW - PROBE_SECONDS}, 1, 0),
        ({"phase": Phase.RESTING, "failures": 0, "wake_at": NOW + 60}, 0, 0),
    ],
)
def test_validators_count_where_they_can_be_asked_or_soon(
    changes: dict[str, Any], due: int, soon: int
) -> None:
    found = of(lanes(3, **changes))
    assert (found[VALIDATORS, WorkState.DUE], found[VALIDATORS, WorkState.SOON]) == (due, soon)
    closed = of(lanes(3, **changes), pulls=False)
    assert (closed[VALIDATORS, WorkState.DUE], closed[VALIDATORS, WorkState.SOON]) == (0, 0)


def test_tasks_under_way_count_by_door_and_what_only_waits_for_its_verdict_does_not() -> None:
    found = of(
        [],
        doors={"task 1": VALIDATORS, "task 2": "front", "task 3": "front", "task 4": "front"},
        held={"task 1", "task 2", "tasks of http://node"},
        waiting={"task 3"},
        queued={"front": 7, "other": 0},
    )
    assert found["front", WorkState.RUNNING] == 1
    assert found["front", WorkState.WAITING] == 1
    assert found["front", WorkState.DUE] == 7
    assert found["other", WorkState.DUE] == 0
    assert found[VALIDATORS, WorkState.RUNNING] == 1
    assert sum(found.values()) == 10
    assert ("front", WorkState.DUE) not in of([], doors={"task 2": "front"}), "an unknown queue is not empty"
