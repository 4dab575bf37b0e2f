"""A real worker process under continuous jobs, with what it says of itself, for ``sn17_bench.swaps``."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families
from sn17_http import own_client

TOKEN = "bench"
SEEDS = 4
SAMPLE_SECONDS = 0.25
DEADLINE_SECONDS = 900.0
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Job:
    """One answered job; times are monotonic seconds."""

    began: float
    ended: float
    gaussians: int

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(slots=True)
class Sample:
    """One scrape: bytes by name, how many model processes lived."""

    at: float
    processes: int
    host: float | None
    device: dict[str, float]
    by_process: dict[str, float]


class WorkerError(RuntimeError):
    """The worker ended, or did not do in time what was waited for."""


class Worker:
    """``command`` is run with the worker's settings in its environment; it must serve until it is ended."""

    def __init__(self, folder: Path, command: Sequence[str], env: Mapping[str, str]) -> None:
        token, self._ready = folder / "token", folder / "ready.json"
        token.write_text(TOKEN)
        self._log_path = folder / "worker.log"
        self._log = self._log_path.open("w")
        self.process = subprocess.Popen(
            command,
            env={
                **os.environ,
                "SN17_PORT": "0",
                "SN17_OPS_PORT": "0",
                "SN17_READY_FILE": str(self._ready),
                "SN17_SPOOL_DIR": str(folder / "spool"),
                "SN17_WORKER_NAME": "bench",
                "SN17_ADMIN_TOKEN_FILE": str(token),
                "SN17_DIE_WITH_PARENT": "true",
                **env,
            },
            stdout=self._log,
            stderr=self._log,
        )
        self._client = own_client(timeout=DEADLINE_SECONDS)
        self.url = self.ops_url = ""

    def wait_ready(self) -> float:
        """Seconds until it took jobs. Raises WorkerError."""
        began = time.monotonic()
        self.wait("it listens", self._ready.exists)
        ports = json.loads(self._ready.read_text())
        self.url, self.ops_url = (f"http://127.0.0.1:{ports[port]}" for port in ("port", "ops_port"))
        self.wait("it takes jobs", lambda: self.state()["state"] in ("ready", "degraded"))
        return time.monotonic() - began

    def wait(self, what: str, condition: Any) -> None:
        end = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            if self.process.poll() is not None or time.monotonic() > end:
                code = self.process.poll()
                raise WorkerError(f"not seen that {what}; exit code {code}; log:\n{self.tail()}")
            time.sleep(0.05)

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._client.get(f"{self.url}/v1/worker").raise_for_status().json()
        return state

    def generate(self, form: Mapping[str, str], key: str) -> httpx2.Response:
        return self._client.post(f"{self.url}/generate", data=dict(form), headers={"idempotency-key": key})

    def recycle(self, how: str) -> httpx2.Response:
        body = {"life_id": self.state()["life_id"], "how": how, "reason": "a measurement"}
        headers = {"authorization": f"Bearer {TOKEN}"}
        return self._client.post(f"{self.ops_url}/admin/v1/recycle", json=body, headers=headers)

    def metrics(self) -> dict[tuple[str, Labels], float]:
        text = self._client.get(f"{self.ops_url}/metrics").raise_for_status().text
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def tail(self) -> str:
        return "\n".join(self._log_path.read_text().splitlines()[-15:])

    def end(self) -> int | None:
        """Ask it to end; kills it after a while. Returns its exit code."""
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._client.close()
        self._log.close()
        return self.process.returncode


@dataclass
class Load:
    """Keyed jobs one after the other on a thread of its own; the same seed must give the same bytes."""

    worker: Worker
    form: Mapping[str, str]
    jobs: list[Job] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    different: int = 0
    error: str = ""

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._known: dict[int, str] = {}
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(DEADLINE_SECONDS)

    def _run(self) -> None:
        try:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                self._one(number)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"

    def _one(self, number: int) -> None:
        seed, key = number % SEEDS, f"bench/{number}"
        while not self._stop.is_set():
            began = time.monotonic()
            answer = self.worker.generate({**self.form, "seed": str(seed)}, key)
            ended = time.monotonic()
            if answer.is_success:
                break
            self.refused[answer.json()["code"]] += 1
            if answer.status_code != httpx2.codes.SERVICE_UNAVAILABLE:
                raise WorkerError(f"the worker does not take the job: {answer.text}")
            time.sleep(0.2)
        else:
            return
        digest = hashlib.sha256(answer.content).hexdigest()
        self.different += self._known.setdefault(seed, digest) != digest
        self.jobs.append(Job(began, ended, int(answer.headers["SN17-Gaussians"])))


class Watch:
    """Scrapes a worker all the time, on a thread of its own."""

    def __init__(self, worker: Worker) -> None:
        self.samples: list[Sample] = []
        self._worker = worker
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            with contextlib.suppress(httpx2.HTTPError):
                self.samples.append(sample(self._worker.metrics()))


def sample(metrics: Mapping[tuple[str, Labels], float]) -> Sample:
    """What one scrape says of memory."""

    def by(name: str, label: str) -> dict[str, float]:
        return {dict(labels)[label]: value for (found, labels), value in metrics.items() if found == name}

    return Sample(
        time.monotonic(),
        int(metrics.get(("sn17_model_processes", ()), 1)),
        metrics.get(("sn17_memory_unreclaimable_bytes", ())),
        by("sn17_gpu_memory_bytes", "kind"),
        by("sn17_process_memory_bytes", "process"),
    )


@contextlib.contextmanager
def started(folder: Path, command: Sequence[str], env: Mapping[str, str]) -> Iterator[Worker]:
    worker = Worker(folder, command, env)
    try:
        yield worker
    finally:
        worker.end()


def serve_command(limit_gib: int | None, note: Path) -> list[str]:
    """The command that serves, under a memory limit if one is asked for."""
    serve = [sys.executable, "-m", "sn17_trellis", "serve"]
    if limit_gib is None:
        return serve
    return [sys.executable, "-m", "sn17_bench.limited", str(limit_gib), str(note), *serve]
