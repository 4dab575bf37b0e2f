"""A gateway, a miner, four workers and a fixer as processes, and clients whose tasks flow through them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bittensor_wallet import Keypair
from gateway_flow import Flow, Seen
from gateway_process import GatewayProcess
from sn17_miner.app import JOURNAL
from sn17_miner.journal.journal import Journal
from sn17_protocol import ChainSnapshot
from sn17_protocol.wallet import write_hotkey

DEADLINE = 300.0
WORKERS = 4
DOOR = "home"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Part:
    """A process that can be killed and started again, at the same address."""

    def __init__(self, command: list[str], ready: Path, environment: dict[str, str], log: Path) -> None:
        self._command, self._ready, self._log = command, ready, log
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._ready.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
        deadline = time.monotonic() + DEADLINE
        while not self._ready.exists():
            assert self._process.poll() is None, self._log.read_text()[-2000:]
            assert time.monotonic() < deadline, f"{self._command} is not ready"
            time.sleep(0.01)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def finish(self) -> None:
        """As Kubernetes ends it: what is under way is finished."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(DEADLINE)


class Fleet:
    """Everything behind one gateway."""

    def __init__(self, folder: Path, gateway: GatewayProcess) -> None:
        self.state = folder / "state"
        self.state.mkdir()
        tool = [sys.executable, str(Path(__file__).parent / "miner_fleet_process.py")]
        ports = [free_port() for _ in range(WORKERS + 1)]
        kinds = ["fixer", *["worker"] * WORKERS]
        helpers = [
            Part([*tool, kind, str(port), str(folder / f"{port}.ready")], folder / f"{port}.ready", {}, log)
            for kind, port in zip(kinds, ports, strict=True)
            for log in [folder / f"{kind}-{port}.log"]
        ]
        self.fixer, self.workers = helpers[0], helpers[1:]
        hotkey = folder / "wallet" / "hotkey"
        write_hotkey(hotkey, Keypair.create_from_uri("//miner"))
        snapshot = ChainSnapshot(netuid=17, block=1, taken_at=0.0, burn_price=0.5, neurons=())
        (folder / "snapshot.json").write_text(snapshot.model_dump_json())
        values: dict[str, Any] = {
            "hotkey_file": hotkey,
            "chain__source": "file",
            "chain__path": folder / "snapshot.json",
            "workers": ",".join(f"http://127.0.0.1:{port}" for port in ports[1:]),
            "fixer_url": f"http://127.0.0.1:{ports[0]}",
            "state_dir": self.state,
            "ops_port": 0,
            "ready_file": folder / "miner.json",
            "gateways": json.dumps(
                [{"name": DOOR, "url": gateway.url, "poll_seconds": 0.05, "task_seconds": 3600}]
            ),
            "time_scale": 0.01,
            "stall_seconds": 2,
            "worker_rest_seconds": 0.2,
            "worker_poll_seconds": 0.5,
            "worker_discover_seconds": 0.5,
            "memory_source": "process",
            "die_with_parent": 1,
            "log_level": "WARNING",
        }
        environment = {f"SN17_{name.upper()}": str(value) for name, value in values.items()}
        command = [sys.executable, "-m", "sn17_miner"]
        self.miner = Part(command, folder / "miner.json", environment, folder / "miner.log")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        parts = [self.fixer, *self.workers, self.miner]
        try:
            for part in parts:
                part.start()
            yield
        finally:
            for part in parts:
                part.kill()

    def journal(self) -> Journal:
        return Journal(self.state / JOURNAL, readonly=True)


class MinerFlow(Flow):
    """Clients alone: the miner does the work."""

    def _works(self, number: int) -> None:
        self.seen.ended.wait()


def check_journal(fleet: Fleet, seen: Seen) -> dict[str, Any]:
    """Every sending of one task had the same bytes, which are what its client got; what the journal tells."""
    sent: dict[str, list[str]] = defaultdict(list)
    ended: Counter[str] = Counter()
    with contextlib.closing(fleet.journal()) as journal:
        assert journal.open_tasks() == []
        for task in journal.tasks(limit=10 * seen.wanted):
            ended[str(task.reason or task.outcome)] += 1
            for event in journal.events(task.n):
                if event.event == "submit" and (found := re.search(r"sha256 ([0-9a-f]{64})", event.detail)):
                    sent[task.task_id].append(found[1])
    assert {task: len(set(digests)) for task, digests in sent.items() if len(set(digests)) != 1} == {}
    for task, content in seen.got.items():
        assert set(sent[task]) == {hashlib.sha256(content).hexdigest()}
        seen.sent[task] = {content}
    sendings = [len(digests) for digests in sent.values()]
    return {
        "ended": dict(sorted(ended.items())),
        "sendings": sum(sendings),
        "tasks_sent_more_than_once": sum(number > 1 for number in sendings),
    }
