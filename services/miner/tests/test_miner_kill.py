"""kill -9 at every step of a task, with real processes: nothing lost, nothing done twice."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest
from aiohttp import ClientSession
from miner_harness import Harness

POINTS = ["pulled", "generate", "generated", "fix", "judged"]


@pytest.mark.parametrize("point", POINTS)
async def test_kill_9_loses_nothing_and_repeats_nothing(harness: Harness, point: str) -> None:
    worker, validator = await harness.worker(), await harness.validator()
    struck = asyncio.Event()

    async def strike(name: str) -> None:
        if name == point and not struck.is_set():
            struck.set()
            await harness.kill()

    worker.on_generate = harness.fixer.on_fix = validator.on_call = strike
    await harness.process(max_tasks=1)
    async with asyncio.timeout(30):
        await struck.wait()
    # The first task may be over already (judged, its answer lost): then a second one follows.
    again = await harness.process(max_tasks=1)
    async with asyncio.timeout(40):
        assert await again.wait() == 0
    tasks = harness.tasks()
    assert validator.violations == 0
    assert all(outcome == "accepted" for outcome in validator.outcomes())
    assert len(validator.judged) == len({task for task, _ in validator.judged}) == len(tasks)
    assert set(worker.completed.values()) == {1}, "a second completed generation for one key"
    assert len(worker.completed) == len(tasks), "a task was generated twice"
    first = tasks[-1]
    if point == "judged":
        assert (first.outcome, first.reason) == ("given_up", "answer_lost")
    else:
        assert first.outcome == "accepted"
    assert list((harness.folder / "state" / "spool").iterdir()) == []


async def test_a_running_generation_is_joined_after_a_restart(harness: Harness) -> None:
    worker, _ = await harness.worker(hold=True), await harness.validator()
    await harness.process(max_tasks=1)
    await harness.changes.until(lambda: worker.current is not None)
    await harness.kill()
    again = await harness.process(max_tasks=1)
    await harness.changes.until(lambda: len(worker.asked) == 2)
    worker.go.set()
    await harness.changes.until(lambda: harness.validators[0].judged)
    assert worker.asked[0]["key"] == worker.asked[1]["key"]
    assert set(worker.completed.values()) == {1}
    again.send_signal(signal.SIGTERM)
    async with asyncio.timeout(20):
        assert await again.wait() == 0


async def test_a_generation_whose_worker_is_gone_after_the_restart_moves(harness: Harness) -> None:
    lost, _ = await harness.worker(hold=True), await harness.validator()
    await harness.process(max_tasks=1)
    await harness.changes.until(lambda: lost.current is not None)
    await harness.kill()
    await lost.stop()
    harness.workers.clear()
    other = await harness.worker()
    again = await harness.process(max_tasks=1)
    await harness.changes.until(lambda: harness.validators[0].judged)
    assert sum(other.completed.values()) >= 1
    again.send_signal(signal.SIGTERM)
    async with asyncio.timeout(20):
        await again.wait()


async def test_sigterm_finishes_what_is_in_hand_and_pulls_nothing_more(harness: Harness) -> None:
    worker, validator = await harness.worker(hold=True), await harness.validator(cooldown=0.2, throttle=0)
    process = await harness.process()
    await harness.changes.until(lambda: worker.current is not None)
    process.send_signal(signal.SIGTERM)
    worker.go.set()
    async with asyncio.timeout(20):
        assert await process.wait() == 0
    assert validator.outcomes() == ["accepted"]
    assert len(validator.pulls) == 1


async def test_a_second_miner_says_so_and_waits(harness: Harness) -> None:
    worker, _ = await harness.worker(hold=True), await harness.validator()
    # The first must still be at work when the second has started, however slow that is.
    first = await harness.process(max_tasks=1, stall_seconds=60)
    await harness.changes.until(lambda: worker.current is not None)
    second = await harness.process(max_tasks=1)
    log = harness.folder / "miner.log"
    async with asyncio.timeout(20):
        while "another miner" not in log.read_text():
            await asyncio.sleep(0.05)
    assert f"process {first.pid}" in log.read_text()
    assert second.returncode is None
    worker.go.set()
    async with asyncio.timeout(30):
        assert await first.wait() == 0
        assert await second.wait() == 0


async def test_operations_routes_and_no_secrets_in_the_log(harness: Harness, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("let-me-in")
    await harness.worker()
    validator = await harness.validator(cooldown=30)
    gateways = '[{"name": "home", "url": "http://127.0.0.1:9", "weight": 2}]'
    process = await harness.process(admin_token_file=token, log_level="DEBUG", gateways=gateways)
    await harness.changes.until(lambda: validator.judged)
    ops = f"http://127.0.0.1:{json.loads((harness.folder / 'ready.json').read_text())['ops_port']}"
    headers = {"Authorization": "Bearer let-me-in"}
    async with ClientSession() as session:
        for path in ("/v1/tasks", "/v1/validators", "/v1/tasks/1"):
            async with session.get(ops + path) as response:
                assert response.status == 401
        async with session.get(ops + "/v1/tasks", headers=headers) as response:
            assert (await response.json())["tasks"][0]["validator"] == validator.hotkey
        async with session.get(ops + "/v1/tasks/1", headers=headers) as response:
            assert (await response.json())["events"][0]["event"] == "pulled"
        async with session.get(ops + "/v1/tasks/99", headers=headers) as response:
            assert (response.status, (await response.json())["code"]) == (404, "not_found")
        async with session.get(ops + "/v1/validators", headers=headers) as response:
            told = await response.json()
        assert told["validators"][0]["hotkey"] == validator.hotkey
        (gateway,) = told["gateways"]
        assert (gateway["door"], gateway["weight"]) == ("home", 2.0)
        assert gateway["nodes"][0]["url"] == "http://127.0.0.1:9"
        assert gateway["nodes"][0]["failures"] >= 1
        assert told["workers"][0]["name"] == "w0"
        async with session.get(ops + "/metrics") as response:
            text = await response.text()
        assert 'sn17_tasks_total{door="validators",kind="text",outcome="accepted"' in text
        assert "sn17_next_pull_timestamp_seconds{" in text
        async with session.get(ops + "/ready") as response:
            assert response.status == 200
        hold = {"by": "user", "reason": "maintenance"}
        async with session.post(ops + "/admin/v1/drain", headers=headers, json=hold) as response:
            assert response.status == 200
        async with session.get(ops + "/ready") as response:
            assert response.status == 503
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(20):
        await process.wait()
    log = (harness.folder / "miner.log").read_text()
    secrets = json.loads(harness.hotkey.read_text())
    for name in ("privateKey", "secretSeed", "secretPhrase"):
        if secrets.get(name):
            assert str(secrets[name]) not in log
            assert str(secrets[name]).removeprefix("0x") not in log
    assert "let-me-in" not in log


async def test_a_coldkey_beside_the_hotkey_is_refused(harness: Harness) -> None:
    await harness.worker()
    (harness.hotkey.parent / "coldkey").write_text("{}")
    process = await harness.process()
    async with asyncio.timeout(30):
        assert await process.wait() == 2
    assert "coldkey" in (harness.folder / "miner.log").read_text()
