from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from sn17_contract.metrics import GenerationKind
from sn17_http import own_request
from sn17_service import Service
from sn17_service.testing import ServiceThread
from sn17_splats import Splats
from sn17_trellis.backend import Cancelled, Generation, IsCancelled, Job, Progress
from sn17_trellis.http import build_app
from sn17_trellis.serve import connect
from sn17_trellis.settings import WorkerSettings
from sn17_trellis.worker import Worker

TOKEN = "correct horse"
TICK_SECONDS = 0.02


class ScriptedBackend:
    """Does what the test tells it: holds a job until released, fails, or makes strange assets."""

    name = "scripted"
    identity = "scripted/1"
    models: tuple[str, ...] = ("text", "image")

    def __init__(self) -> None:
        self.loading = threading.Event()
        self.loading.set()
        self.release = threading.Event()
        self.release.set()
        self.entered = threading.Semaphore(0)
        self.error: Exception | None = None
        self.asset: Splats | bytes | None = None
        self.gaussians = 8_000
        self.jobs: list[Job] = []
        self.at_work = 0
        self.most_at_work = 0
        self.cleanups = 0
        self.on_cleanup: Callable[[], None] = lambda: None
        self.closed = False
        self.silent = False

    def load(self) -> None:
        assert self.loading.wait(30)

    def warmup(self, progress: Progress, cancelled: IsCancelled) -> None:
        progress("warmup", 1, 1)

    def generate(self, job: Job, progress: Progress, cancelled: IsCancelled) -> Generation:
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            if not self.silent:
                progress("structure", 1, 2)
            if job.kind is GenerationKind.TASK:
                self.jobs.append(job)
                self.entered.release()
                while not self.release.wait(0.005):
                    if cancelled():
                        raise Cancelled
                if self.error is not None:
                    raise self.error
            asset = (
                self.asset if self.asset is not None and job.kind is GenerationKind.TASK else self._make(job)
            )
            lane = job.sampling.lane or "exact"
            return Generation(asset, self.gaussians, {"structure": 0.5, "latents": 0.25}, lane=lane)
        finally:
            self.at_work -= 1

    def cleanup(self) -> None:
        self.cleanups += 1
        self.on_cleanup()

    def gpu_memory(self) -> Mapping[str, int]:
        return {"allocated": 123}

    def canary(self) -> Job:
        return Job(GenerationKind.CANARY, 7, prompt="the canary")

    def close(self) -> None:
        self.closed = True

    def _make(self, job: Job) -> Splats:
        rng = np.random.default_rng(job.seed)

        def normal(mean: float, std: float, *shape: int) -> Any:
            return rng.normal(mean, std, shape).astype(np.float32)

        n = self.gaussians
        return Splats(
            normal(0, 0.2, n, 3),
            normal(-5, 0.3, n, 3),
            normal(0, 1, n, 4),
            normal(4, 2.7, n),
            normal(0, 1, n, 3),
        )


class WorkerThread(ServiceThread):
    """A worker on real sockets in this process."""

    def __init__(self, service: Service, settings: WorkerSettings, worker: Worker) -> None:
        super().__init__(service, build_app(service, settings, worker), token=TOKEN)
        self.worker = worker

    def state(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.data("GET", "/v1/worker").json()
        return answer


@pytest.fixture
def worker_thread() -> type[WorkerThread]:
    return WorkerThread


@pytest.fixture
def backend() -> ScriptedBackend:
    return ScriptedBackend()


@pytest.fixture
def new_worker(tmp_path: Path, backend: ScriptedBackend) -> Iterator[Callable[..., WorkerThread]]:
    """A worker around the scripted backend, not started; keywords are settings, clocks or memory."""
    made: list[WorkerThread] = []

    def make(*, clocks: Mapping[str, Any] | None = None, memory: Any = None, **settings: Any) -> WorkerThread:
        token = tmp_path / "token"
        token.write_text(TOKEN)
        values: dict[str, Any] = {
            "port": 0,
            "ops_port": 0,
            "admin_token_file": token,
            "spool_dir": tmp_path / "spool",
            "worker_name": "worker-1",
            "grace_seconds": 5,
            **settings,
        }
        loaded = WorkerSettings(**values)
        service = Service("trellis", "0", loaded, memory=memory, **(clocks or {}))
        worker = Worker(service, loaded, backend, tick_seconds=TICK_SECONDS)
        connect(service, loaded, worker)
        made.append(WorkerThread(service, loaded, worker))
        return made[-1]

    yield make
    backend.release.set()
    backend.loading.set()
    for instance in made:
        if instance.exit_code is None:
            instance.stop()


@pytest.fixture
def wait_until() -> Callable[[Callable[[], object]], None]:
    """Wait, with a deadline, for something that other threads bring about."""

    def wait(condition: Callable[[], object], deadline: float = 30.0) -> None:
        pause = threading.Event()
        for _ in range(round(deadline / 0.01)):
            if condition():
                return
            pause.wait(0.01)
        raise AssertionError("it did not happen in time")

    return wait


@pytest.fixture
def running(
    new_worker: Callable[..., WorkerThread], wait_until: Callable[[Callable[[], object]], None]
) -> WorkerThread:
    """A worker that is ready."""
    live = new_worker()
    live.start()
    wait_until(lambda: live.state()["state"] == "ready")
    return live


def children(pid: int) -> list[int]:
    """Ids of the processes that this one started."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return sorted(found)


PROMPT = {"prompt": "two large blue domes on a red plate"}
DEADLINE = 60.0


Wait = Callable[[Callable[[], object]], None]


class WorkerProcess:
    """``sn17-trellis serve`` as a user would start it; settings by name, without their prefix."""

    def __init__(
        self, folder: Path, wait_until: Wait, environ: Mapping[str, str] | None = None, **settings: object
    ) -> None:
        token = folder / "token"
        token.write_text(TOKEN)
        self._ready = folder / "ready.json"
        self._ready.unlink(missing_ok=True)
        env = {
            **os.environ,
            "SN17_PORT": "0",
            "SN17_OPS_PORT": "0",
            "SN17_READY_FILE": str(self._ready),
            "SN17_SPOOL_DIR": str(folder / "spool"),
            "SN17_WORKER_NAME": "process-1",
            "SN17_ADMIN_TOKEN_FILE": str(token),
            "SN17_MEMORY_SOURCE": "process",
            "SN17_PROCEDURAL_MAX_GAUSSIANS": "20000",
            "SN17_LOG_FORMAT": "json",
            **{
                f"SN17_{name.upper()}": json.dumps(value) if isinstance(value, dict) else str(value)
                for name, value in settings.items()
            },
            **(environ or {}),
        }
        self._log = (folder / "log").open("a+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sn17_trellis", "serve"], env=env, stderr=self._log
        )
        wait_until(lambda: self._ready.exists() or self.process.poll() is not None)
        values = json.loads(self._ready.read_text())
        self.url = f"http://127.0.0.1:{values['port']}"
        self.ops_url = f"http://127.0.0.1:{values['ops_port']}"
        wait_until(lambda: self.state()["state"] != "warming")

    def post(self, key: str | None = None, **data: str) -> httpx2.Response:
        headers = {} if key is None else {"idempotency-key": key}
        return own_request(
            "POST", f"{self.url}/generate", data={**PROMPT, **data}, headers=headers, timeout=DEADLINE
        )

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = own_request("GET", f"{self.url}/v1/worker", timeout=DEADLINE).json()
        return state

    def admin(self, verb: str, **body: object) -> httpx2.Response:
        return own_request(
            "POST",
            f"{self.ops_url}/admin/v1/{verb}",
            json=body,
            headers={"authorization": f"Bearer {TOKEN}"},
            timeout=DEADLINE,
        )

    def recycle(self, how: str, **more: object) -> httpx2.Response:
        return self.admin("recycle", life_id=self.state()["life_id"], how=how, reason="a test", **more)

    def metric(self, sample: str) -> float | None:
        """A sample by its full name with labels, as in the exposition."""
        for line in own_request("GET", f"{self.ops_url}/metrics", timeout=DEADLINE).text.splitlines():
            if line.startswith(f"{sample} "):
                return float(line.rsplit(" ", 1)[1])
        return None

    def fork_server(self) -> int:
        """Its process id: the only child of the service."""
        (found,) = children(self.process.pid)
        return found

    def models(self) -> list[int]:
        """Ids of the model processes, the oldest first."""
        return children(self.fork_server())

    def wait(self) -> int:
        return self.process.wait(DEADLINE)

    def log(self) -> str:
        self._log.flush()
        return Path(self._log.name).read_text()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE)
        self._log.close()


@pytest.fixture
def new_process(tmp_path: Path, wait_until: Wait) -> Iterator[Callable[..., WorkerProcess]]:
    made: list[WorkerProcess] = []

    def make(*, environ: Mapping[str, str] | None = None, **settings: object) -> WorkerProcess:
        """In the folder of one that ended, as a restart; beside those that live in one of its own."""
        living = sum(worker.process.poll() is None for worker in made)
        folder = tmp_path / str(living) if living else tmp_path
        folder.mkdir(exist_ok=True)
        made.append(WorkerProcess(folder, wait_until, environ, **settings))
        return made[-1]

    yield make
    for worker in made:
        worker.end()
