"""The operator without a cluster, over real worker processes that leak for real."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from sn17_contract.explain import Explanation
from sn17_http import own_async_client
from sn17_operator.adapters.local import LocalEvent, LocalOperator, default_spec
from sn17_operator.adapters.local_scrape import LocalWorker, Scraper, WorkerState
from sn17_operator.core.plan import Reason
from sn17_operator.core.readings import Monitoring, Signal
from sn17_operator.status.resource import Status

MIB = 1024 * 1024


class Supervisor:
    """Starts a worker again whenever it ends, at the same ports; counts how it ended."""

    def __init__(self, folder: Path, name: str, **env: str) -> None:
        self.name = name
        self.exit_codes: list[int] = []
        self._ready = folder / f"{name}.json"
        self._env = {
            **os.environ,
            "SN17_PORT": "0",
            "SN17_OPS_PORT": "0",
            "SN17_READY_FILE": str(self._ready),
            "SN17_ADMIN_TOKEN_FILE": str(folder / "token"),
            "SN17_WORKER_NAME": name,
            "SN17_SPOOL_DIR": str(folder / f"spool-{name}"),
            "SN17_PROCEDURAL_MAX_GAUSSIANS": "20000",
            "SN17_MEMORY_SOURCE": "process",
            "SN17_MEMORY_LIMIT_BYTES": str(640 * MIB),
            "SN17_GUARD": "off",
            "SN17_DIE_WITH_PARENT": "true",
            "SN17_LOG_LEVEL": "WARNING",
            **env,
        }
        self._process: asyncio.subprocess.Process | None = None
        self.changed: Callable[[LocalWorker], None] = lambda worker: None

    async def start(self) -> LocalWorker:
        self._ready.unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sn17_trellis", "serve", env=self._env
        )
        async with asyncio.timeout(60):
            while not self._ready.exists():
                await asyncio.sleep(0.05)
        ports = json.loads(self._ready.read_text())
        return LocalWorker(
            self.name, f"http://127.0.0.1:{ports['ops_port']}", f"http://127.0.0.1:{ports['port']}"
        )

    async def keep(self) -> None:
        while True:
            assert self._process is not None
            self.exit_codes.append(await self._process.wait())
            self.changed(await self.start())

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@contextlib.asynccontextmanager
async def supervised(*supervisors: Supervisor) -> AsyncIterator[list[LocalWorker]]:
    workers = [await supervisor.start() for supervisor in supervisors]
    keepers = [asyncio.create_task(supervisor.keep()) for supervisor in supervisors]
    try:
        yield workers
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        for supervisor in supervisors:
            await supervisor.kill()


@dataclass
class Course:
    """What a run of two workers under load came to."""

    events: list[LocalEvent]
    statuses: list[Status]
    answers: dict[str, list[str]]
    """By worker, since it first worked: 200, or the code of a refusal."""
    explained: Explanation

    @property
    def answered(self) -> set[str]:
        return {answer for answers in self.answers.values() for answer in answers}


async def run_until(
    reason: Reason,
    tmp_path: Path,
    strategy: str,
    leaking: Supervisor,
    sound: Supervisor,
    **spec_changes: object,
) -> Course:
    """Both workers under load and the operator, until it tells of ``reason``."""
    (tmp_path / "token").write_text("secret")
    events: list[LocalEvent] = []
    over = asyncio.Event()

    def on_event(event: LocalEvent) -> None:
        events.append(event)
        if event.reason == reason:
            over.set()

    statuses: list[Status] = []
    rules = {"memory": {"highForSeconds": 1, "clearForSeconds": 2}, "gaussians": {"action": "Off"}}
    spec = default_spec(rules=rules, maxUnavailable=1, strategy=strategy, **spec_changes)
    async with supervised(leaking, sound) as workers:
        operator = LocalOperator(
            workers, token_file=tmp_path / "token", spec=spec, on_event=on_event, on_status=statuses.append,
            tick_seconds=0.5, scrape_seconds=0.5,
        )  # fmt: skip
        addresses = {worker.name: worker for worker in workers}

        def moved(worker: LocalWorker) -> None:
            addresses[worker.name] = worker
            operator.update(worker)

        leaking.changed = sound.changed = moved
        running = asyncio.create_task(operator.run())
        answers: dict[str, list[str]] = {}

        async def load() -> None:
            async with own_async_client(timeout=30) as client:
                while not over.is_set():
                    for worker in list(addresses.values()):
                        with contextlib.suppress(httpx2.TransportError):
                            reply = await client.post(
                                f"{worker.data_url}/generate", data={"prompt": "a red cube", "seed": "1"}
                            )
                            if reply.is_success or worker.name in answers:
                                said = "200" if reply.is_success else reply.json()["code"]
                                answers.setdefault(worker.name, []).append(said)
                    await asyncio.sleep(0.1)

        loading = asyncio.create_task(load())
        try:
            async with asyncio.timeout(150):
                await over.wait()
                told = len(statuses)
                while len(statuses) == told:  # the tick that told of it writes its status last
                    await asyncio.sleep(0.05)
            explained = operator.explain("b")
            assert explained is not None
            return Course(events, statuses, answers, explained)
        finally:
            for task in (loading, running):
                task.cancel()
            await asyncio.gather(loading, running, return_exceptions=True)


@pytest.mark.timeout(180)
async def test_leaking_worker_is_restarted_and_its_neighbour_is_left_alone(tmp_path: Path) -> None:
    leaking = Supervisor(tmp_path, "a", SN17_FAULTS__LEAK_MIB_PER_GENERATION="90")
    sound = Supervisor(tmp_path, "b")
    course = await run_until(Reason.WORKER_HEALED, tmp_path, "RestartContainer", leaking, sound)
    assert leaking.exit_codes == [75]
    assert sound.exit_codes == []
    assert {event.worker for event in course.events if event.reason.startswith("Worker")} == {"a"}
    reasons = [e.reason for e in course.events if e.worker == "a"]
    assert reasons[:2] == ["WorkerCordoned", "CleanupRequested"]
    assert course.answered <= {"200", "warming_up", "draining", "busy"}
    assert {rule.rule for rule in course.explained.rules} >= {"MemoryHigh", "CanaryDrift", "Stalled"}
    assert course.statuses[-1].recycles == 1


@pytest.mark.timeout(180)
async def test_leaking_worker_without_room_for_two_gets_a_new_model_process(tmp_path: Path) -> None:
    """Its process, addresses and kept results stay."""
    leaking = Supervisor(tmp_path, "a", SN17_FAULTS__LEAK_MIB_PER_GENERATION="90")
    sound = Supervisor(tmp_path, "b")
    course = await run_until(Reason.WORKER_HEALED, tmp_path, "Swap", leaking, sound)
    assert (leaking.exit_codes, sound.exit_codes) == ([], [])
    reasons = [e.reason for e in course.events if e.worker == "a"]
    assert reasons[-3:] == ["ReplaceRequested", "WorkerReplaced", "WorkerHealed"]
    assert course.answered <= {"200", "warming_up", "draining", "busy"}
    assert course.statuses[-1].recycles == 1


@pytest.mark.timeout(180)
async def test_new_model_process_that_loads_for_long_is_waited_for(tmp_path: Path) -> None:
    """Longer than a process may take to exit: the worker says that it loads, so nothing has failed."""
    slow = {"SN17_PROCEDURAL_LOAD_SECONDS": "18"}
    leaking = Supervisor(tmp_path, "a", SN17_FAULTS__LEAK_MIB_PER_GENERATION="90", **slow)
    sound = Supervisor(tmp_path, "b")
    recycle = {"exitTimeoutSeconds": 10}
    course = await run_until(Reason.WORKER_HEALED, tmp_path, "Swap", leaking, sound, recycle=recycle)
    assert (leaking.exit_codes, sound.exit_codes) == ([], [])
    reasons = [e.reason for e in course.events if e.worker == "a"]
    assert reasons[-3:] == ["ReplaceRequested", "WorkerReplaced", "WorkerHealed"]


@pytest.mark.timeout(180)
async def test_leaking_worker_with_room_for_two_is_swapped_and_works_on(tmp_path: Path) -> None:
    slow = {"SN17_FAULTS__SLOW_SECONDS": "1", "SN17_MEMORY_LIMIT_BYTES": str(1100 * MIB)}
    leaking = Supervisor(tmp_path, "a", SN17_FAULTS__LEAK_MIB_PER_GENERATION="40", **slow)
    sound = Supervisor(tmp_path, "b", **slow)
    course = await run_until(Reason.WORKER_SWAPPED, tmp_path, "Swap", leaking, sound)
    assert (leaking.exit_codes, sound.exit_codes) == ([], [])
    assert [e.reason for e in course.events if e.worker] == ["SwapRequested", "WorkerSwapped"]
    assert course.answered == {"200"}
    assert {status.status for status in course.statuses} <= {"Healthy", "Starting", "NoWorkers"}
    assert (course.statuses[-1].swaps, course.statuses[-1].recycles) == (1, 0)


async def test_a_persons_cordon_holds_and_is_lifted(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    one = Supervisor(tmp_path, "a")
    async with supervised(one) as workers:
        seen: asyncio.Queue[Status] = asyncio.Queue()
        operator = LocalOperator(
            workers,
            token_file=tmp_path / "token",
            on_status=seen.put_nowait,
            tick_seconds=0.3,
            scrape_seconds=0.3,
        )
        running = asyncio.create_task(operator.run())
        try:
            async with asyncio.timeout(60), own_async_client() as client:
                while (await seen.get()).ready != "1/1":
                    pass
                operator.cordon("a", "look at it")
                while (await seen.get()).cordoned != 1:
                    pass
                worker = (await client.get(f"{workers[0].data_url}/v1/worker")).json()
                while worker["state"] != "draining":
                    await asyncio.sleep(0.1)
                    worker = (await client.get(f"{workers[0].data_url}/v1/worker")).json()
                operator.uncordon("a")
                while (await seen.get()).ready != "1/1":
                    pass
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_worker_that_hangs_does_not_keep_the_others_from_being_scraped() -> None:
    """Their few samples would look like a fault of the monitoring, and nothing would be done about it."""
    states = {name: WorkerState(LocalWorker(name, f"http://{name}")) for name in ("hangs", "works")}

    async def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.host == "hangs":
            await asyncio.Event().wait()
        return httpx2.Response(200, text='sn17_boot_info{boot_id="b"} 1\n')

    scraper = Scraper(states, interval=0.01, clock=time.time, transport=httpx2.MockTransport(answer))
    running = asyncio.create_task(scraper.run())
    try:
        async with asyncio.timeout(30):
            while len(states["works"].series.get(Signal.UP, ())) < 20:
                await asyncio.sleep(0.01)
        found = await scraper.measure(time.time(), [default_spec().rules])
        assert found.monitoring.coverage >= 20
        assert found.monitoring.last_scrape is not None
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await scraper.close()


async def test_a_neighbour_that_answers_shows_that_the_only_worker_is_at_fault() -> None:
    states = {"hangs": WorkerState(LocalWorker("hangs", "http://hangs"))}

    async def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.host == "hangs":
            raise httpx2.ReadTimeout("silent", request=request)
        return httpx2.Response(200 if request.url.host == "fixer" else 500)

    async def measured(*neighbours: str) -> Monitoring:
        transport = httpx2.MockTransport(answer)
        scraper = Scraper(states, neighbours, interval=0.01, clock=time.time, transport=transport)
        states["hangs"].series.clear()
        running = asyncio.create_task(scraper.run())
        try:
            async with asyncio.timeout(30):
                while len(states["hangs"].series.get(Signal.UP, ())) < 20:
                    await asyncio.sleep(0.01)
            return (await scraper.measure(time.time(), [default_spec().rules])).monitoring
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await scraper.close()

    assert (await measured()).last_scrape is None
    assert (await measured("http://miner")).last_scrape is None, "an error is no sign of life"
    seen = await measured("http://miner", "http://fixer")
    assert seen.last_scrape is not None
    assert seen.coverage >= 10


def test_unknown_worker_is_an_error(tmp_path: Path) -> None:
    operator = LocalOperator([], token_file=None)
    with pytest.raises(KeyError):
        operator.cordon("nobody", "")
