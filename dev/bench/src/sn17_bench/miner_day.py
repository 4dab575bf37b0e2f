"""An accelerated day of one miner among real validators, workers and fixer, with faults all day long."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sn17_contract.tasks import GivenUpReason, Outcome, TaskState
from sn17_http import own_client
from sn17_miner.core.records import Task
from sn17_miner.journal.journal import Journal

SCALE = 0.01
"""Cooldown 300 s becomes 3 s, a day 864 s."""
KNOWN_ENDS = {outcome.value for outcome in Outcome} | {reason.value for reason in GivenUpReason}
FAULTS: list[dict[str, Any]] = [
    {"kind": "reset", "probability": 0.01},
    {"kind": "reset", "when": "after", "probability": 0.01},
    {"kind": "status", "status": 408, "probability": 0.005},
    {"kind": "status", "status": 503, "probability": 0.005},
    {"kind": "status", "status": 500, "when": "after", "probability": 0.005},
    {"kind": "garbage", "when": "after", "probability": 0.005},
    {"kind": "slow", "seconds": 5.0, "call": "SubmitResults", "when": "after", "probability": 0.005},
    {"kind": "unvalidated", "call": "SubmitResults", "probability": 0.005},
    {"kind": "restart", "seconds": 1.0, "probability": 0.002},
]


@dataclass
class Process:
    """A service as a process of its own that can be killed and comes back on the same ports."""

    name: str
    module: tuple[str, ...]
    folder: Path
    env: dict[str, Any]
    running: subprocess.Popen[bytes] | None = None
    ports: dict[str, int] = field(default_factory=dict)
    kills: int = 0

    def start(self, *, wait: bool = True) -> None:
        ready = self.folder / f"{self.name}.ready"
        ready.unlink(missing_ok=True)
        env = {
            "SN17_PORT": self.ports.get("port") or 0,
            "SN17_OPS_PORT": self.ports.get("ops_port", 0),
            "SN17_READY_FILE": ready,
            "SN17_MEMORY_SOURCE": "process",
            "SN17_LOG_LEVEL": "WARNING",
            "SN17_DIE_WITH_PARENT": 1,
        } | self.env
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.running = subprocess.Popen(
                [sys.executable, "-m", *self.module],
                env={**os.environ, **{key: str(value) for key, value in env.items()}},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while wait and not ready.exists():
            if self.running.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start: see {self.folder}/{self.name}.log")
            time.sleep(0.05)
        if wait:
            self.ports = json.loads(ready.read_text())

    def kill(self) -> None:
        assert self.running is not None
        self.running.send_signal(signal.SIGKILL)
        self.running.wait()
        self.kills += 1

    def end(self) -> None:
        if self.running is not None and self.running.poll() is None:
            self.running.terminate()
            try:
                self.running.wait(60)
            except subprocess.TimeoutExpired:
                self.running.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['port']}"


@dataclass
class Watcher:
    """Counts completed generations by key: each leaves a file of its own in the worker's spool."""

    folders: list[Path]
    seen: set[tuple[str, int]] = field(default_factory=set)
    completed: Counter[str] = field(default_factory=Counter)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.wait(0.05):
            for folder in self.folders:
                for path in folder.glob("*.json"):
                    try:
                        found = (path.name, path.stat().st_ino)
                        if found in self.seen:
                            continue
                        key = json.loads(path.read_bytes())["key"]
                    except (OSError, ValueError, KeyError):
                        continue
                    self.seen.add(found)
                    self.completed[f"{folder} {key}"] += 1


@contextmanager
def stack(folder: Path, *, validators: int, workers: int, seed: int) -> Iterator[dict[str, Any]]:
    """Everything but the miner."""
    with ExitStack() as stop:

        def add(process: Process) -> Process:
            process.start()
            stop.callback(process.end)
            return process

        devnet = add(
            Process(
                "validators",
                ("sn17_devnet",),
                folder,
                {
                    "SN17_VALIDATORS": validators,
                    "SN17_STATE_DIR": folder / "devnet",
                    "SN17_TIME_SCALE": SCALE,
                    "SN17_SEED": seed,
                },
            )
        )
        fleet = []
        for n in range(workers):
            env: dict[str, Any] = {
                "SN17_WORKER_NAME": f"w{n}",
                "SN17_SPOOL_DIR": folder / f"w{n}",
                "SN17_PROCEDURAL_MAX_GAUSSIANS": 40_000,
                "SN17_RESULTS_KEPT": 32,
                "SN17_CANARY_EVERY": 0,
                "SN17_FAULTS__HALF_ANSWER_EVERY": 11,
                "SN17_FAULTS__GARBAGE_EVERY": 23,
                "SN17_FAULTS__EMPTY_EVERY": 17,
            }
            if n == 0:
                env["SN17_FAULTS__HANG_AFTER"] = 15
            fleet.append(add(Process(f"w{n}", ("sn17_trellis", "serve"), folder, env)))
        fixer = add(Process("fixer", ("sn17_fixer",), folder, {}))
        told = json.loads((folder / "devnet" / "devnet.json").read_text())
        yield {"devnet": devnet, "workers": fleet, "fixer": fixer, "told": told}


def miner_of(folder: Path, parts: dict[str, Any]) -> Process:
    """The miner, with its timeouts as short as the accelerated network asks."""
    return Process(
        "miner",
        ("sn17_miner",),
        folder,
        {
            "SN17_HOTKEY_FILE": folder / "devnet" / "miner_hotkey.json",
            "SN17_CHAIN__SOURCE": "http",
            "SN17_CHAIN__URL": parts["told"]["snapshot_url"],
            "SN17_CHAIN__INTERVAL_SECONDS": 10,
            "SN17_WORKERS": ",".join(worker.url for worker in parts["workers"]),
            "SN17_FIXER_URL": parts["fixer"].url,
            "SN17_STATE_DIR": folder / "miner",
            "SN17_TIME_SCALE": SCALE,
            "SN17_TASK_DEADLINE_SECONDS": 60,
            "SN17_SUBMIT_DEADLINE_SECONDS": 120,
            "SN17_PULL_TIMEOUT_SECONDS": 3,
            "SN17_SUBMIT_TIMEOUT_SECONDS": 3,
            "SN17_STALL_SECONDS": 5,
            "SN17_WORKER_REST_SECONDS": 1,
            "SN17_WORKER_POLL_SECONDS": 0.25,
            "SN17_WORKER_DISCOVER_SECONDS": 1,
        },
    )


def day(folder: Path, *, seconds: float, validators: int, workers: int, seed: int) -> dict[str, Any]:
    """Run for ``seconds`` with faults, then settle without; the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    with stack(folder, validators=validators, workers=workers, seed=seed) as parts:
        watcher = Watcher([folder / f"w{n}" / "results" for n in range(workers)])
        threading.Thread(target=watcher.run, daemon=True).start()
        miner = miner_of(folder, parts)
        with own_client(timeout=30.0) as client:
            client.put(parts["told"]["faults_url"], json=FAULTS).raise_for_status()
            miner.start()
            began = time.monotonic()
            try:
                chaos(rng, parts["workers"], miner, seconds)
                client.put(parts["told"]["faults_url"], json=[]).raise_for_status()
                time.sleep(10)
                miner.end()
                took = time.monotonic() - began
                ledger = client.get(parts["told"]["ledger_url"]).json()
            finally:
                miner.end()
                watcher.stop.set()
        kills = {"miner": miner.kills, "workers": sum(worker.kills for worker in parts["workers"])}
    journal = Journal(folder / "miner" / "journal.sqlite", readonly=True)
    tasks = journal.tasks(limit=1_000_000)
    resumed = sum(1 for task in tasks for event in journal.events(task.n) if event.event == "resumed")
    journal.close()
    return figures(tasks, ledger, watcher.completed, took, kills | {"resumed_generations": resumed})


def chaos(rng: random.Random, workers: list[Process], miner: Process, seconds: float) -> None:
    """Kill a worker about every 15 s and the miner about every 40 s, at moments of no one's choosing."""
    end = time.monotonic() + seconds
    next_worker, next_miner = (time.monotonic() + rng.uniform(5, 25) for _ in range(2))
    while (now := time.monotonic()) < end:
        if now >= next_worker:
            worker = rng.choice(workers)
            worker.kill()
            time.sleep(rng.uniform(0.1, 1.0))
            worker.start(wait=False)
            next_worker = time.monotonic() + rng.uniform(5, 25)
        if now >= next_miner:
            miner.kill()
            miner.start(wait=False)
            next_miner = time.monotonic() + rng.uniform(20, 60)
        for process in (*workers, miner):
            if process.running is not None and process.running.poll() is not None:
                process.start(wait=False)
        time.sleep(0.1)


def figures(
    tasks: list[Task], ledger: dict[str, Any], completed: Counter[str], took: float, kills: dict[str, int]
) -> dict[str, Any]:
    """What the table shows, from the miner's journal, the referee's ledger and the workers' spools."""
    fates = Counter(fate(task) for task in tasks)
    records = [record for validator in ledger["validators"] for record in validator["tasks"]]
    known = {task.task_id for task in tasks}
    idle = [task.idle for task in tasks if task.idle is not None]
    overhead = [seconds for task in tasks if (seconds := overhead_of(task)) is not None]
    delivery = [task.finished_at - task.assigned_at for task in tasks if task.finished_at and task.score]
    outcomes = Counter(task.outcome for task in tasks if task.outcome)
    ended = sum(outcomes.values())
    tried = ended - outcomes["skipped"]
    return {
        "seconds": round(took, 1),
        "network_hours": round(took / SCALE / 3600, 1),
        "pulled": len(tasks),
        "fates": dict(fates),
        "outcomes": dict(outcomes),
        "reasons": dict(Counter(task.reason for task in tasks if task.reason)),
        "open_at_the_end": sum(1 for task in tasks if task.state is not TaskState.DONE),
        "never_heard_of": sum(
            1
            for record in records
            if record["task_id"] not in known and record["outcome"] not in ("open", "dropped")
        ),
        "second_completions": sum(count - 1 for count in completed.values()),
        "completed_generations": sum(completed.values()),
        "violations": sum(sum(validator["violations"].values()) for validator in ledger["validators"]),
        "referee": dict(Counter(record["outcome"] for record in records)),
        "validator_restarts": sum(validator["restarts"] for validator in ledger["validators"]),
        "idle_mean": sum(idle) / len(idle) if idle else None,
        "idle_p95": quantile(idle, 0.95),
        "overhead_p50": quantile(overhead, 0.5),
        "overhead_p95": quantile(overhead, 0.95),
        "delivery_p50": quantile(delivery, 0.5),
        "delivery_p95": quantile(delivery, 0.95),
        "success": outcomes["accepted"] / tried if tried else None,
        "yield": outcomes["accepted"] / ended if ended else None,
        **kills,
    }


def fate(task: Task) -> str:
    """Where a task belongs in the first row of the table."""
    if task.state is not TaskState.DONE:
        return "open"
    if task.reason == GivenUpReason.VALIDATOR_DROPPED:
        return "validator dropped it"
    if task.submitted_attempt is not None:
        return "submitted"
    reason = task.reason or task.outcome or ""
    return f"reason: {reason}" if reason in KNOWN_ENDS else "no reason"


def overhead_of(task: Task) -> float | None:
    """Pull to submission without the generations, of tasks that took one generation and one submission."""
    if (
        task.submits != 1
        or task.submit_time is None
        or len(task.attempts) != 1
        or task.submitted_attempt is None
    ):
        return None
    attempt = task.attempts[0]
    working = (attempt.finished_at or attempt.started_at) - attempt.started_at
    return task.submit_time / 1e9 - task.pulled_at - working


def quantile(values: list[float], share: float) -> float | None:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
