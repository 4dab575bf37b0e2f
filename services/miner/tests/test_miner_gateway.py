"""The miner as a worker of a gateway: real HTTP, the real gateway, fake workers and fixer."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bittensor_wallet import Keypair
from gateway_client import splat_bytes
from gateway_live import LiveGateway
from gateway_pictures import png
from miner_harness import Harness
from miner_node import IMAGE, FakeNode
from sn17_contract.tasks import GivenUpReason, Outcome
from sn17_miner.chain.source import FileSource
from sn17_miner.clients.gateway import Account, GatewayClient, Result
from sn17_miner.clients.web import new_session
from sn17_miner.core.receipt import GatewayError
from sn17_miner.miner import Miner
from sn17_protocol import ChainSnapshot

DOOR = "home"


def gateway_settings(*urls: str, **more: Any) -> str:
    """One gateway for each URL; the first is called ``home``."""
    names = (DOOR, "away", "third")
    fields = {"poll_seconds": 0.1, **more}
    return json.dumps([{"name": name, "url": url, **fields} for name, url in zip(names, urls, strict=False)])


async def in_thread(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await asyncio.to_thread(call, *args, **kwargs)


async def test_a_clients_task_goes_the_whole_way(harness: Harness, tmp_path: Path) -> None:
    harness.fixer.spz = splat_bytes(3)
    worker = await harness.worker()
    with LiveGateway(tmp_path) as gateway:
        client = gateway.client()
        task_id = await in_thread(client.task, "a red robot", seed=2147483648)
        await harness.run(gateways=gateway_settings(gateway.url))
        assert (await in_thread(client.status, task_id)) == {"status": "Success", "worker_id": "sn17"}
        assert (await in_thread(client.result, task_id)).content == harness.fixer.spz
    task = harness.task()
    assert (task.door, task.task_id, task.outcome) == (DOOR, task_id, Outcome.ACCEPTED)
    assert task.assignment is not None
    assert (task.assignment.node, task.assignment.seed) == (gateway.url, -2147483648)
    assert worker.asked[0]["seed"] == str(2147483648)
    assert worker.asked[0]["prompt"] == "a red robot"
    assert list((harness.folder / "state" / "spool").iterdir()) == []
    labels = {"door": DOOR, "validator": "", "kind": "text"}
    assert harness.metric("sn17_tasks_total", **labels, outcome="accepted") == 1
    assert harness.metric("sn17_tasks_pulled_total", **labels) == 1


async def test_a_picture_comes_to_the_worker_as_it_was_sent(harness: Harness, tmp_path: Path) -> None:
    harness.fixer.spz = splat_bytes()
    worker = await harness.worker()
    with LiveGateway(tmp_path) as gateway:
        image = ("image", ("image.png", png(64, 48), "image/png"))
        answer = await in_thread(gateway.client().add_form, [image])
        assert answer.status_code == 200
        await harness.run(gateways=gateway_settings(gateway.url))
    assert worker.asked[0]["image"] == png(64, 48)
    assert harness.task().outcome is Outcome.ACCEPTED


async def test_a_prompt_that_no_worker_takes_is_told_to_the_client(harness: Harness, tmp_path: Path) -> None:
    worker = await harness.worker()
    worker.script.append("bad_prompt")
    with LiveGateway(tmp_path) as gateway:
        client = gateway.client()
        task_id = await in_thread(client.task)
        await harness.run(gateways=gateway_settings(gateway.url))
        assert await in_thread(client.status, task_id) == {"status": "Failure", "reason": "bad prompt"}
    task = harness.task()
    assert (task.outcome, task.reason) == (Outcome.GIVEN_UP, GivenUpReason.BAD_PROMPT)


# --- what only a node in trouble does ---------------------------------------------------------------


async def test_g16_a_restarted_gateway_takes_nothing_and_the_next_task_is_served(harness: Harness) -> None:
    worker = await harness.worker()
    node = FakeNode()
    await harness.add(node)
    lost = node.task()

    async def restart(point: str) -> None:
        if point == "generate" and not node.stored and lost in node.given:
            node.restart()
            node.task()

    worker.on_generate = restart
    await harness.run(2, gateways=gateway_settings(node.url))
    served, dropped = harness.tasks()
    assert (dropped.task_id, dropped.outcome, dropped.reason) == (
        lost,
        Outcome.GIVEN_UP,
        GivenUpReason.TASK_OVER,
    )
    assert served.outcome is Outcome.ACCEPTED
    assert [r.task for r in node.received].count(lost) == 1, "410 is final"
    assert node.stored == {served.task_id: harness.fixer.spz}


async def test_g17_every_listed_node_is_asked_and_gets_its_own_results(harness: Harness) -> None:
    for _ in range(2):
        await harness.worker()
    one, two = FakeNode(), FakeNode(node_id=2)
    await harness.add(one)
    await harness.add(two)
    one.listed = two.listed = [one.info(), two.info()]
    first, second = one.task(), two.task()
    await harness.run(2, gateways=gateway_settings(one.url))
    assert set(one.stored) == {first}
    assert set(two.stored) == {second}
    for node in (one, two):
        for received in node.received:
            assert received.fields["assignment_token"] == node.given[received.task]["assignment_token"]


async def test_g17_a_node_that_is_down_keeps_nobody_from_the_others(harness: Harness) -> None:
    await harness.worker()
    one, two = FakeNode(), FakeNode(node_id=2)
    await harness.add(one)
    await harness.add(two)
    one.listed = [one.info(), two.info()]
    await two.stop()
    for _ in range(3):
        one.task()
    await harness.run(3, gateways=gateway_settings(one.url))
    assert len(one.stored) == 3
    assert harness.metric("sn17_gateway_polls_total", door=DOOR, answer="failed") >= 1


async def test_g17_a_node_that_lists_nobody_does_not_end_the_others(harness: Harness) -> None:
    """A gateway that has just started knows of no node yet; what it listed before is asked on."""
    await harness.worker()
    one, two = FakeNode(), FakeNode(node_id=2)
    await harness.add(one)
    await harness.add(two)
    one.listed = two.listed = [one.info(), two.info()]
    one.task()

    def restarts(miner: Miner) -> None:
        count = miner.gateways.counted

        def counted() -> None:
            count()
            one.listed = two.listed = []
            miner.spawn("find", found(miner))

        miner.gateways.counted = counted

    async def found(miner: Miner) -> None:
        (source,) = miner.gateways.sources.values()
        await miner.gateways.find(source)
        two.task()

    await harness.run(2, gateways=gateway_settings(one.url), prepare=restarts)
    assert len(one.stored) == len(two.stored) == 1


async def test_several_gateways_have_doors_of_their_own(harness: Harness) -> None:
    await harness.worker()
    validator = await harness.validator(cooldown=60)
    home, away = FakeNode(), FakeNode()
    await harness.add(home)
    await harness.add(away)
    home.task()
    away.task()
    await harness.run(3, gateways=gateway_settings(home.url, away.url))
    assert validator.outcomes() == ["accepted"]
    assert {task.door: task.outcome for task in harness.tasks()} == dict.fromkeys(
        ("validators", "home", "away"), Outcome.ACCEPTED
    )
    journal = harness.journal()
    assert {ended.door: ended.count for ended in journal.outcomes(0)} == {
        "validators": 1,
        "home": 1,
        "away": 1,
    }
    journal.close()


@pytest.mark.parametrize("winner", [None, "somebody else"])
async def test_a_lost_answer_is_asked_for_once(harness: Harness, winner: str | None) -> None:
    """The result is sent again, and where it is not taken, the gateway's own word on the task decides."""
    await harness.worker()
    node = FakeNode(winner=winner)
    await harness.add(node)
    task_id = node.task()
    node.result_script.append("reset_after")
    await harness.run(gateways=gateway_settings(node.url))
    task = harness.task()
    expected = (Outcome.ACCEPTED, None) if winner is None else (Outcome.GIVEN_UP, GivenUpReason.ANSWER_LOST)
    assert (task.outcome, task.reason) == expected
    assert node.asked_status == [task_id]
    assert [r.asset for r in node.received] == [harness.fixer.spz] * 2


@pytest.mark.parametrize("trouble", ["reset", "429", "503", "500"])
async def test_what_may_not_be_stored_is_sent_again(harness: Harness, trouble: str) -> None:
    await harness.worker()
    node = FakeNode()
    await harness.add(node)
    node.task()
    node.result_script.extend([trouble, trouble])
    await harness.run(gateways=gateway_settings(node.url))
    assert harness.task().outcome is Outcome.ACCEPTED
    assert len(node.received) == 3
    assert len({r.asset for r in node.received}) == 1


async def test_an_assignment_that_is_not_ours_any_more_is_dropped(harness: Harness) -> None:
    await harness.worker()
    node = FakeNode()
    await harness.add(node)
    node.task()
    node.result_script.append("401")
    await harness.run(gateways=gateway_settings(node.url))
    assert harness.task().reason is GivenUpReason.REFUSED_BY_GATEWAY
    assert len(node.received) == 1


async def test_a_result_that_the_gateway_never_takes_becomes_a_failure_for_the_client(
    harness: Harness,
) -> None:
    await harness.worker()
    node = FakeNode()
    await harness.add(node)
    node.task()
    node.result_script.append("400")
    await harness.run(gateways=gateway_settings(node.url))
    assert harness.task().reason is GivenUpReason.REFUSED_BY_GATEWAY
    assert [(r.fields["status"], r.fields.get("reason")) for r in node.received] == [
        ("success", None),
        ("failure", "refused by gateway"),
    ]


@pytest.mark.parametrize("shift", [-5.0, 300.0])
async def test_a_clock_that_differs_is_corrected_by_the_nodes_own(harness: Harness, shift: float) -> None:
    await harness.worker()
    node = FakeNode(clock_shift=shift)
    await harness.add(node)
    node.task()
    await harness.run(gateways=gateway_settings(node.url))
    assert len(node.stored) == 1


async def test_answers_that_cannot_be_read_cost_no_other_task(harness: Harness) -> None:
    await harness.worker()
    node = FakeNode()
    await harness.add(node)
    node.pull_script.extend(["garbage", "reset"])
    node.task(model="404-mesh")
    node.task(image=IMAGE)
    node.task()
    await harness.run(gateways=gateway_settings(node.url))
    assert harness.task().outcome is Outcome.ACCEPTED
    assert harness.metric("sn17_decisions_total", decision="offer refused") >= 3


async def test_tasks_are_asked_for_by_the_number_of_free_workers(harness: Harness) -> None:
    for _ in range(3):
        await harness.worker()
    node = FakeNode()
    await harness.add(node)
    for _ in range(9):
        node.task()
    await harness.run(8, gateways=gateway_settings(node.url))
    assert harness.metric("sn17_work_tasks", door=DOOR, state="due") == 1, "what is left is work for scaling"
    counts = [body["requested_task_count"] for body in node.pulls]
    assert max(counts) in (2, 3)
    assert len(node.stored) == 8
    assert {(body["model"], body["worker_id"]) for body in node.pulls} == {("404-3dgs", "sn17")}


async def test_an_unregistered_hotkey_still_works_for_gateways(harness: Harness, tmp_path: Path) -> None:
    await harness.worker()
    validator = await harness.validator()
    node = FakeNode()
    await harness.add(node)
    node.task()
    snapshot = ChainSnapshot(netuid=17, block=1, taken_at=0.0, burn_price=0.5, neurons=(validator.neuron,))
    path = tmp_path / "snapshot.json"
    path.write_text(snapshot.model_dump_json())
    miner = await harness.run(gateways=gateway_settings(node.url), source=FileSource(path, 17))
    assert len(node.stored) == 1
    assert validator.pulls == []
    assert miner.why_idle is None
    assert "not registered" in str(miner.why_not_pulling)


class EarlyAnswer:
    """A server that answers ``add_result`` before it has read the asset, and then closes the connection."""

    def __init__(self) -> None:
        self.calls = 0
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        await reader.readuntil(b'name="asset"')
        body = b'{"error":"task_context_unavailable"}'
        writer.write(b"HTTP/1.1 410 Gone\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        # Unread bytes turn the close into a reset, which may overtake the answer.
        writer.close()


async def test_a_refusal_before_a_large_upload_was_read_is_understood() -> None:
    server = EarlyAnswer()
    await server.start()
    account = Account(Keypair.create_from_uri("//miner"), "sn17")
    result = Result("a-task", "sn17", "a-token", bytes(30 << 20))
    async with new_session() as session:
        client = GatewayClient(session, time.time, pull_timeout=5.0, submit_timeout=20.0)
        url, statuses = f"http://127.0.0.1:{server.port}", []
        for hold in (False, True):
            with pytest.raises(GatewayError) as caught:
                await client.deliver(url, account, result, hold=hold)
            statuses.append(caught.value.status)
    await server.stop()
    assert statuses[0] in (None, 410), "an answer, or none: never a wrong one"
    assert statuses[1] == 410, "a refusal that would be read as no answer for ever"


async def test_assignments_outlive_the_miner(harness: Harness) -> None:
    """Killed while the worker works: the next miner delivers to the same node under the same token."""
    worker, node = await harness.worker(hold=True), FakeNode()
    await harness.add(node)
    task_id = node.task(seed=-3)
    await harness.process(gateways=gateway_settings(node.url))
    await harness.changes.until(lambda: worker.current is not None)
    await harness.kill()
    again = await harness.process(gateways=gateway_settings(node.url))
    await harness.changes.until(lambda: len(worker.asked) == 2)
    worker.go.set()
    await harness.changes.until(lambda: task_id in node.stored)
    again.send_signal(signal.SIGTERM)
    async with asyncio.timeout(20):
        assert await again.wait() == 0
    assert worker.asked[0]["key"] == worker.asked[1]["key"]
    assert {asked["seed"] for asked in worker.asked} == {str(2**32 - 3)}
    task = harness.task()
    assert task.outcome is Outcome.ACCEPTED
    assert task.assignment is not None
    assert task.assignment.token == node.received[0].fields["assignment_token"]


async def test_a_task_that_is_handed_out_again_is_no_second_one(harness: Harness) -> None:
    worker, node = await harness.worker(hold=True), FakeNode()
    await harness.worker()
    await harness.add(node)
    task_id = node.task()

    async def again(point: str) -> None:
        if point == "generate" and not came:
            came.append(node.given[task_id]["assignment_token"])
            node.task(id=task_id)
            await harness.changes.until(lambda: not node.waiting)
            came.append(node.task())
            worker.go.set()

    came: list[str] = []
    worker.on_generate = harness.workers[1].on_generate = again
    await harness.run(2, gateways=gateway_settings(node.url), stall_seconds=20)
    old_token, other = came
    assert {task.task_id for task in harness.tasks()} == {task_id, other} == set(node.stored)
    assert "handed out again" in [event.event for event in harness.events()]
    assert old_token not in {received.fields["assignment_token"] for received in node.received}


async def test_validators_and_gateways_share_one_worker(harness: Harness) -> None:
    await harness.worker()
    validator = await harness.validator(cooldown=0.1, throttle=0)
    node = FakeNode()
    await harness.add(node)
    for _ in range(200):
        node.task()
    miner = await harness.run(60, gateways=gateway_settings(node.url), seconds=60)
    assert miner.pulled == 60
    assert len(node.stored) + len(validator.judged) == 60
    # A cooldown ends after a second or two; the worker is never away for longer than one task of the gateway.
    assert len(validator.judged) >= 2
    assert validator.violations == 0
