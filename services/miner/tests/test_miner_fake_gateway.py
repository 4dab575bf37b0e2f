"""The worker's cases of 404's gateway, against the fake that is held to what was recorded of the original."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from gateway_client import splat_bytes
from gateway_fake import LiveFake
from miner_harness import Harness
from sn17_contract.gateway import Route
from sn17_contract.tasks import GivenUpReason, Outcome
from sn17_devnet.gateway.faults import GatewayFault

SPZ = splat_bytes(5)


def door(*urls: str) -> str:
    return json.dumps([{"name": f"g{n}", "url": url, "poll_seconds": 0.1} for n, url in enumerate(urls)])


async def in_thread(call: Any, *args: Any, **kwargs: Any) -> Any:
    return await asyncio.to_thread(call, *args, **kwargs)


async def test_a_task_of_404s_gateway(harness: Harness) -> None:
    harness.fixer.spz = SPZ
    worker = await harness.worker()
    with LiveFake(slots=1) as fake:
        client = fake.client()
        task_id = await in_thread(client.task, "a red cube", seed=4294967290)
        await harness.run(gateways=door(fake.url()))
        assert await in_thread(client.status, task_id) == {"status": "Success", "worker_id": "sn17"}
        assert (await in_thread(client.result, task_id)).content == SPZ
    assert worker.asked[0]["seed"] == str(4294967290)
    assert harness.task().outcome is Outcome.ACCEPTED


async def test_g16_a_restart_while_the_worker_works(harness: Harness) -> None:
    """410 is final; the miner goes on asking, and the next task is served."""
    harness.fixer.spz = SPZ
    worker = await harness.worker()
    with LiveFake(slots=1) as fake:
        client = fake.client()
        ids = [await in_thread(client.task)]

        async def restart(point: str) -> None:
            if point == "generate" and len(ids) == 1:
                await in_thread(fake.restart)
                ids.append(await in_thread(client.task))

        worker.on_generate = restart
        await harness.run(2, gateways=door(fake.url()))
        assert (await in_thread(client.status, ids[1]))["status"] == "Success"
        assert (await in_thread(client.result, ids[0])).status_code == 404
    served, dropped = harness.tasks()
    assert (dropped.task_id, dropped.reason, dropped.submits) == (ids[0], GivenUpReason.TASK_OVER, 1)
    assert (served.task_id, served.outcome) == (ids[1], Outcome.ACCEPTED)


async def test_g17_two_nodes(harness: Harness) -> None:
    """Each node is asked, and each result goes to the node that its task came from."""
    harness.fixer.spz = SPZ
    for _ in range(2):
        await harness.worker()
    with LiveFake(slots=1, nodes=2) as fake:
        clients = [fake.client(node=0), fake.client(node=1)]
        ids = [await in_thread(client.task) for client in clients]
        await harness.run(2, gateways=door(fake.url(0)))
        for client, task_id in zip(clients, ids, strict=True):
            assert (await in_thread(client.status, task_id))["status"] == "Success"
            assert (await in_thread(client.result, task_id)).content == SPZ
    # They call themselves by a name.
    ports = {
        task.task_id: task.assignment.node.rpartition(":")[2] for task in harness.tasks() if task.assignment
    }
    assert [ports[task_id] for task_id in ids] == [fake.url(node).rpartition(":")[2] for node in (0, 1)]


async def test_g17_a_node_that_is_down(harness: Harness) -> None:
    harness.fixer.spz = SPZ
    await harness.worker()
    with LiveFake(slots=1, nodes=2) as fake:
        away = asyncio.create_task(in_thread(fake.restart, 1, 5.0))
        client = fake.client(node=0)
        ids = [await in_thread(client.task) for _ in range(3)]
        await harness.run(3, gateways=door(fake.url(0)))
        for task_id in ids:
            assert (await in_thread(client.status, task_id))["status"] == "Success"
        await away


async def test_several_slots_take_one_result_of_a_hotkey(harness: Harness) -> None:
    """Another hotkey fills the second slot; this miner is offered the task once."""
    harness.fixer.spz = SPZ
    worker = await harness.worker()
    with LiveFake(slots=2) as fake:
        client, other = fake.client(), fake.worker("other", "//Other")
        task_id = await in_thread(client.task)
        await harness.run(gateways=door(fake.url()))
        assert (await in_thread(client.status, task_id))["status"] == "PartialResult(1)"
        (offer,) = await in_thread(other.pull)
        assert (await in_thread(other.deliver, offer, splat_bytes(6))).status_code == 200
        assert (await in_thread(client.result, task_id)).content == SPZ
    assert len(worker.asked) == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["reset", "status", "garbage"])
async def test_faults_of_add_result_lose_nothing(harness: Harness, kind: str, when: str) -> None:
    harness.fixer.spz = SPZ
    await harness.worker()
    fault = GatewayFault.model_validate({"kind": kind, "when": when, "limit": 4, "route": Route.ADD_RESULT})
    with LiveFake(slots=1, faults=(fault,)) as fake:
        client = fake.client()
        ids = [await in_thread(client.task) for _ in range(6)]
        await harness.run(6, gateways=door(fake.url()))
        with contextlib.closing(harness.journal()) as journal:
            assert {task.outcome for task in journal.tasks()} == {Outcome.ACCEPTED}
        for task_id in ids:
            assert (await in_thread(client.result, task_id)).content == SPZ


async def test_two_gateways_of_two_kinds(harness: Harness) -> None:
    harness.fixer.spz = SPZ
    await harness.worker()
    with LiveFake(slots=1, seed=1) as one, LiveFake(slots=1, seed=2) as two:
        ids = [await in_thread(fake.client().task) for fake in (one, two)]
        await harness.run(2, gateways=door(one.url(), two.url()))
    assert {task.task_id: task.door for task in harness.tasks()} == dict(zip(ids, ("g0", "g1"), strict=True))
