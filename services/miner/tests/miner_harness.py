"""A whole miner, in this process or in one of its own, against fakes on the loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bittensor_wallet import Keypair
from miner_fakes import Changes, FakeChain, FakeFixer, FakeScorer, FakeValidator, FakeWorker, Server
from sn17_miner.app import JOURNAL, build, chain_source
from sn17_miner.chain.source import ChainSource
from sn17_miner.clients.web import new_session
from sn17_miner.core.records import Event, Task
from sn17_miner.journal.journal import Journal
from sn17_miner.journal.thread import JournalThread
from sn17_miner.miner import Miner
from sn17_miner.settings import MinerSettings
from sn17_protocol import Neuron
from sn17_protocol.wallet import write_hotkey
from sn17_service import Service


class Harness:
    """Add servers, then ``run`` a miner until it has finished its tasks, or ``process`` one to kill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.changes = Changes()
        self.keypair = Keypair.create_from_uri("//miner")
        self.hotkey = folder / "wallet" / "hotkey"
        write_hotkey(self.hotkey, self.keypair)
        self.servers: list[Server] = []
        self.workers: list[FakeWorker] = []
        self.validators: list[FakeValidator] = []
        self.fixer = FakeFixer(self.changes)
        self.chain = FakeChain(self.changes)
        self.scorer = FakeScorer(self.changes)
        self.processes: list[asyncio.subprocess.Process] = []
        self.service: Service | None = None

    async def close(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
        for server in self.servers:
            await server.stop()

    async def add(self, server: Server) -> None:
        server.changes = self.changes
        await server.start()
        self.servers.append(server)

    async def worker(self, **options: Any) -> FakeWorker:
        made = FakeWorker(name=f"w{len(self.workers)}", **options)
        await self.add(made)
        self.workers.append(made)
        return made

    async def validator(self, **options: Any) -> FakeValidator:
        made = FakeValidator(uid=len(self.validators) + 1, **options)
        await self.add(made)
        self.validators.append(made)
        return made

    async def common(self) -> None:
        if self.fixer not in self.servers:
            await self.add(self.fixer)
            await self.add(self.chain)
            await self.add(self.scorer)
        miner = Neuron(uid=0, hotkey=self.keypair.ss58_address)
        self.chain.neurons = [miner, *(v.neuron for v in self.validators)]

    def environment(self, **more: Any) -> dict[str, str]:
        values = {
            "SN17_HOTKEY_FILE": self.hotkey,
            "SN17_CHAIN__SOURCE": "http",
            "SN17_CHAIN__URL": f"{self.chain.url}/snapshot",
            "SN17_WORKERS": ",".join(worker.url for worker in self.workers),
            "SN17_FIXER_URL": self.fixer.url,
            "SN17_STATE_DIR": self.folder / "state",
            "SN17_OPS_PORT": 0,
            "SN17_READY_FILE": self.folder / "ready.json",
            # Protocol times of 300 s become 3 s; the fakes' cooldowns are their own.
            "SN17_TIME_SCALE": 0.01,
            "SN17_TASK_DEADLINE_SECONDS": 20,
            "SN17_SUBMIT_DEADLINE_SECONDS": 30,
            "SN17_SUBMIT_TIMEOUT_SECONDS": 1,
            "SN17_PULL_TIMEOUT_SECONDS": 1,
            "SN17_STALL_SECONDS": 1,
            "SN17_WORKER_REST_SECONDS": 0.2,
            "SN17_WORKER_POLL_SECONDS": 0.1,
            "SN17_WORKER_DISCOVER_SECONDS": 0.2,
            "SN17_MEMORY_SOURCE": "process",
            "SN17_DIE_WITH_PARENT": 1,
        }
        values |= {f"SN17_{key.upper()}": value for key, value in more.items()}
        return {key: str(value) for key, value in values.items()}

    def settings(self, **more: Any) -> MinerSettings:
        environment = self.environment(**more)
        chain = {"source": "http", "url": environment["SN17_CHAIN__URL"]}
        nested: dict[str, Any] = {"chain": chain, "gate": {}, "enhance": {}}
        flat: dict[str, Any] = {}
        for key, value in environment.items():
            name, _, part = key.removeprefix("SN17_").lower().partition("__")
            if part:
                nested[name][part] = value
            else:
                flat[name] = json.loads(value) if name == "gateways" else value
        return MinerSettings(**flat, **nested)

    async def run(
        self,
        tasks: int = 1,
        *,
        seconds: float = 30.0,
        source: ChainSource | None = None,
        prepare: Callable[[Miner], None] = lambda miner: None,
        **options: Any,
    ) -> Miner:
        """A miner in this process, changed by ``prepare``, until it has finished ``tasks``."""
        await self.common()
        settings = self.settings(max_tasks=tasks, **options)
        self.service = service = Service("miner", "0", settings)
        done = asyncio.Event()
        async with new_session() as session:
            journal = JournalThread(Journal(self.state() / JOURNAL))
            chain = source or chain_source(settings, session)
            miner = build(service, settings, self.keypair, session, journal, chain)
            miner.done = done.set
            prepare(miner)
            self._wait_for_all_workers(miner)
            running = asyncio.create_task(miner.run())
            try:
                async with asyncio.timeout(seconds):
                    await asyncio.wait(
                        {running, asyncio.create_task(done.wait())}, return_when="FIRST_COMPLETED"
                    )
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                journal.close()
        assert done.is_set(), running.exception()
        return miner

    def _wait_for_all_workers(self, miner: Miner) -> None:
        """Pull only when every worker has spoken: which one is chosen must not depend on who was first."""
        fleet, paused, count = miner.context.pool.fleet, miner.paused, len(self.workers)

        def hold() -> str | None:
            heard = sum(1 for worker in fleet.workers.values() if worker.status is not None)
            return paused() if heard >= count else "the test waits for all workers"

        miner.paused = hold

    async def process(self, **options: Any) -> asyncio.subprocess.Process:
        """A miner of its own, to be killed."""
        await self.common()
        environment = {**os.environ, **self.environment(**options)}
        log = (self.folder / "miner.log").open("ab")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sn17_miner", env=environment, stdout=log, stderr=log
        )
        log.close()
        self.processes.append(process)
        return process

    async def kill(self) -> None:
        """SIGKILL the last process."""
        process = self.processes[-1]
        process.send_signal(signal.SIGKILL)
        await process.wait()

    def state(self) -> Path:
        folder = self.folder / "state"
        folder.mkdir(exist_ok=True)
        return folder

    def journal(self) -> Journal:
        return Journal(self.folder / "state" / JOURNAL, readonly=True)

    def tasks(self, limit: int = 50) -> list[Task]:
        journal = self.journal()
        try:
            return journal.tasks(limit=limit)
        finally:
            journal.close()

    def task(self) -> Task:
        (task,) = self.tasks()
        return task

    def events(self, n: int = 1) -> list[Event]:
        journal = self.journal()
        try:
            return journal.events(n)
        finally:
            journal.close()

    def metric(self, name: str, **labels: str) -> float:
        assert self.service is not None
        return self.service.registry.get_sample_value(name, labels) or 0.0
