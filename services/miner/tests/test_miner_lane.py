"""The fast lane: asked for where a deadline would be missed, never otherwise, and never silently."""

from __future__ import annotations

import json

from miner_harness import Harness
from miner_node import FakeNode
from sn17_contract.tasks import Failure, Lane, Outcome, TaskKind
from sn17_miner.journal.views import task_view
from sn17_miner.miner import Miner

LIFE = 400


def slow(miner: Miner) -> None:
    """Exact generations take longer than a task of the gateway lives, fast ones do not."""
    miner.context.durations.generation[TaskKind.TEXT, Lane.EXACT] = 500.0


def gateway(node: FakeNode) -> str:
    return json.dumps([{"name": "home", "url": node.url, "poll_seconds": 0.1, "task_seconds": LIFE}])


async def test_off_by_default(harness: Harness) -> None:
    worker, node = await harness.worker(calibrated=True), FakeNode()
    await harness.add(node)
    node.task()
    await harness.run(gateways=gateway(node), prepare=slow)
    assert [asked["lane"] for asked in worker.asked] == ["exact"]
    assert harness.task().attempts[0].lane is Lane.EXACT


async def test_a_deadline_that_would_be_missed(harness: Harness) -> None:
    worker, node = await harness.worker(calibrated=True), FakeNode()
    await harness.add(node)
    node.task()
    await harness.run(gateways=gateway(node), prepare=slow, fast_lane="deadline")
    assert [asked["lane"] for asked in worker.asked] == ["fast"]
    task = harness.task()
    assert (task.outcome, task.attempts[0].lane) == (Outcome.ACCEPTED, Lane.FAST)
    assert task_view(task, None).attempts[0].lane is Lane.FAST
    why = next(event.detail for event in harness.events() if event.event == "fast lane")
    assert "of the task's life are left; exact takes 501.0 s" in why
    assert harness.metric("sn17_task_lanes_total", door="home", lane="fast") == 1
    assert harness.metric("sn17_task_lanes_total", door="home", lane="exact") == 0


async def test_a_worker_without_a_calibration_gives_the_exact_one(harness: Harness) -> None:
    worker, node = await harness.worker(calibrated=False), FakeNode()
    await harness.add(node)
    node.task()
    await harness.run(gateways=gateway(node), prepare=slow, fast_lane="deadline")
    assert [asked["lane"] for asked in worker.asked] == ["fast", "exact"]
    assert len({asked["seed"] for asked in worker.asked}) == 1
    first, second = harness.task().attempts
    assert (first.failure, second.lane) == (Failure.LANE, Lane.EXACT)
    assert harness.task().outcome is Outcome.ACCEPTED


async def test_the_free_window_of_validators_counts_if_it_is_said(harness: Harness) -> None:
    worker = await harness.worker(calibrated=True)
    validator = await harness.validator(cooldown=0.3, throttle=400)

    def prepare(miner: Miner) -> None:
        slow(miner)

    await harness.run(prepare=prepare, task_deadline_seconds=5000, fast_lane="deadline")
    assert worker.asked[-1]["lane"] == "exact"
    harness.chain.neurons = []
    assert validator.outcomes() == ["accepted"]
    await harness.run(prepare=prepare, task_deadline_seconds=5000, fast_lane="throttle", seconds=60)
    assert worker.asked[-1]["lane"] == "fast"


async def test_a_resumed_generation_keeps_its_lane(harness: Harness) -> None:
    """The same key with another lane would be another request to the worker."""
    worker, node = await harness.worker(calibrated=True), FakeNode()
    await harness.add(node)
    node.task()
    worker.script.append("half")
    await harness.run(gateways=gateway(node), prepare=slow, fast_lane="deadline")
    assert [asked["lane"] for asked in worker.asked] == ["fast", "fast"]
    assert worker.asked[0]["key"] == worker.asked[1]["key"]
