"""The local stack, broken again and again: nothing is lost, nothing done twice, all comes back by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from sn17_chaos.invariants import DUPLICATED, LOST, SUBMITTED, check
from sn17_chaos.rig import inject_all
from sn17_chaos.stack_faults import STACK
from sn17_chaos.stack_world import StackWorld
from sn17_contract.http import HEADER_IDEMPOTENCY_KEY

pytestmark = pytest.mark.timeout(900)

PLAN = [
    ["worker killed in mid-generation", "validator's answers lost"],
    ["miner killed", "worker killed in mid-generation"],
    ["fixer killed", "validator restarted"],
    ["disk full under journal", "validator throws errors"],
    ["miner stopped politely", "worker paused"],
    ["all workers killed"],
    ["validator restarted", "miner killed"],
    ["disk full under spool", "validation does not answer"],
    ["worker's clock steps by 30 s", "miner paused"],
    ["writes refused", "admin token rotated"],
    ["worker crashes in a generation", "validator slow"],
    ["worker leaks memory"],
    ["model process killed", "gateway killed"],
    ["swap", "miner stopped politely"],
    ["worker killed in a swap", "validator's answers lost"],
    ["old model process killed in a swap", "miner killed"],
    ["new model process killed in a swap", "fixer hung"],
    ["model process paused", "gateway paused"],
    ["disk full under gateway", "validator slow"],
    ["fixer gone", "gateway killed"],
    ["model process killed", "validator restarted"],
    ["model process leaks memory"],
]
"""41 faults."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[StackWorld]:
    made = StackWorld(tmp_path / "run", seed=10)
    made.folder.mkdir()
    try:
        made.start()
        yield made
    finally:
        made.close()


def test_nothing_is_lost_whatever_breaks(world: StackWorld) -> None:
    done = inject_all(world, STACK, PLAN, seed=10)
    assert sum(found.tasks for found in done) >= len(PLAN)
    leak = next(found for found in done if found.name == "worker leaks memory")
    assert [act.budget for act in leak.history.acts] == [1], "the operator has acted"
    assert [recycle.cause for recycle in leak.history.recycles] == ["leak"]
    keys = [completed.key for completed in done[-1].history.completed]
    assert len(keys) >= sum(found.tasks for found in done) // 2, "generations are counted"


def test_without_patience_and_kept_results_tasks_are_lost_and_that_is_seen(tmp_path: Path) -> None:
    """The controls. A miner that waits for no worker hands in nothing; a worker that keeps no result makes it
    twice."""
    settings = {
        "miner": {"SN17_TASK_DEADLINE_SECONDS": "5", "SN17_WORKER_REST_SECONDS": "0.1"},
        "trellis-1": {"SN17_RESULT_TTL_SECONDS": "0.001"},
    }
    world = StackWorld(
        tmp_path / "run", seed=11, workers=1, validators=2, operated=False, gateway=False, settings=settings
    )
    world.folder.mkdir()
    try:
        world.start()
        position = world.position()
        world.wait("a task", lambda: any(task.assigned_at > position.at for task in world.open_tasks()), 60.0)
        resume = STACK["worker paused"].inject(world, Random(1))
        world.wait("a lost task", lambda: _loses_one(world, position.at), 60.0)
        over = time.time()
        resume()
        unrecovered = world.recover(over, 90.0)
        breaches = check(world.history(position, over, unrecovered))
        assert {breach.invariant for breach in breaches} == {LOST}

        position = world.position()
        url = f"http://127.0.0.1:{world.processes()['trellis-1'].ready.port}/generate"
        for _ in range(2):
            world.wait("a generation", lambda: _generates(world, url), 60.0)
        breaches = check(world.history(position, time.time(), ""))
        assert DUPLICATED in {breach.invariant for breach in breaches}
    finally:
        world.close()


def _loses_one(world: StackWorld, since: float) -> bool:
    ended = (entry.outcome for entry in world.journalled() if entry.pulled_at > since)
    return any(outcome is not None and outcome not in SUBMITTED for outcome in ended)


def _generates(world: StackWorld, url: str) -> bool:
    answer = world.http.post(
        url,
        data={"prompt": "a red cube", "seed": "1"},
        headers={HEADER_IDEMPOTENCY_KEY: "control/1"},
        timeout=30.0,
    )
    return answer.is_success
