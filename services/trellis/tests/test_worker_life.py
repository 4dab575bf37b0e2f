"""A worker from its start to its end: warming, guard, canaries, draining, stopping."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import numpy as np
import pytest
from sn17_service import MemoryReading
from sn17_splats import read_ply
from sn17_trellis.backend import DeviceError

Wait = Callable[[Callable[[], object]], None]
PROMPT = {"prompt": "a red cube"}
LIMIT = 1_000_000


class Memory:
    """A container whose level the test sets, in thousandths of its limit."""

    name = "scripted"

    def __init__(self) -> None:
        self.level = 100

    def read(self) -> MemoryReading:
        return MemoryReading(self.level * LIMIT // 1000, LIMIT // 2, LIMIT, {})


class Clock:
    def __init__(self) -> None:
        self.now = 10_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guarded(new_worker: Any, memory: Memory, clock: Clock, wait_until: Wait) -> Any:
    """A ready worker whose memory and clocks the test owns."""
    live = new_worker(memory=memory, clocks={"clock": clock, "monotonic": clock})
    live.start()
    wait_until(lambda: live.state()["state"] == "ready")
    return live


def post(live: Any, **data: str) -> httpx2.Response:
    answer: httpx2.Response = live.data("POST", "/generate", data={**PROMPT, **data})
    return answer


# --- start ------------------------------------------------------------------------------------------


def test_while_warming_it_lives_but_takes_no_work(new_worker: Any, backend: Any, wait_until: Wait) -> None:
    backend.loading.clear()
    live = new_worker()
    live.start()
    assert live.data("GET", "/health").json() == {"status": "healthy"}
    assert live.ops("GET", "/health").status_code == 200
    assert live.ops("GET", "/ready").status_code == 503
    assert live.state()["state"] == "warming"
    assert live.state()["models"] == []
    answer = post(live)
    assert (answer.status_code, answer.json()["code"]) == (503, "warming_up")
    backend.loading.set()
    wait_until(lambda: live.ops("GET", "/ready").status_code == 200)
    assert live.state()["models"] == ["text", "image"]
    assert post(live).status_code == 200


def test_a_backend_that_does_not_load_ends_the_process_with_its_reason(
    new_worker: Any, backend: Any, tmp_path: Any
) -> None:
    message = tmp_path / "termination"
    message.touch()

    def load() -> None:
        raise ValueError("ckpts/slat.safetensors: key blocks.0 is missing")

    backend.load = load
    live = new_worker(termination_log=message)
    live.start()
    assert live.join() == 1
    assert "key blocks.0 is missing" in message.read_text()


def test_the_state_tells_who_where_and_how_full(guarded: Any) -> None:
    state = guarded.state()
    assert state["worker"] == "worker-1"
    assert state["boot_id"] == guarded.service.boot_id
    assert state["memory"] == {
        "unreclaimable_bytes": 100_000,
        "working_set_bytes": 500_000,
        "limit_bytes": 1_000_000,
    }
    assert state["job"] is None
    assert state["gaussians_mean"] is None


# --- guard ------------------------------------------------------------------------------------------


def test_at_the_first_mark_it_cleans_up_before_it_generates(
    guarded: Any, backend: Any, memory: Memory
) -> None:
    backend.on_cleanup = lambda: setattr(memory, "level", 300)
    cleanups = backend.cleanups
    memory.level = 749
    assert post(guarded).status_code == 200
    assert backend.cleanups == cleanups
    memory.level = 760
    assert post(guarded).status_code == 200
    assert backend.cleanups == cleanups + 1
    assert memory.level == 300


def test_at_the_second_mark_it_refuses_and_comes_back_with_its_memory(
    guarded: Any, backend: Any, memory: Memory, wait_until: Wait
) -> None:
    memory.level = 900
    answer = post(guarded)
    assert (answer.status_code, answer.json()["code"]) == (503, "memory_refused")
    assert backend.jobs == []
    assert guarded.state()["state"] == "refusing"
    assert guarded.ops("GET", "/ready").status_code == 503
    assert guarded.metric("sn17_generations_total", kind="task", outcome="memory_refused") <= 1
    memory.level = 500
    wait_until(lambda: guarded.state()["state"] == "ready")
    assert post(guarded).status_code == 200


def test_a_guard_that_is_off_lets_everything_through(
    new_worker: Any, memory: Memory, wait_until: Wait
) -> None:
    live = new_worker(memory=memory, guard="off")
    live.start()
    memory.level = 990
    wait_until(lambda: live.state()["state"] == "ready")
    assert post(live).status_code == 200


def test_marks_are_metrics(guarded: Any) -> None:
    assert guarded.metric("sn17_memory_mark_ratio", mark="cleanup") == 0.75
    assert guarded.metric("sn17_memory_mark_ratio", mark="refuse") == 0.88


def test_refusing_long_and_alone_it_ends_itself(
    guarded: Any, memory: Memory, clock: Clock, wait_until: Wait
) -> None:
    memory.level = 900
    wait_until(lambda: guarded.state()["state"] == "refusing")
    clock.now += 599
    guarded.ops("POST", "/admin/v1/cleanup")
    clock.now += 599
    wait_until(lambda: guarded.worker._thread.call(lambda: True).result(10))
    assert guarded.exit_code is None, "an admin call puts it off"
    clock.now += 2
    assert guarded.join() == 75
    assert guarded.service.stopping == "self_recycle"
    assert guarded.metric("sn17_self_recycles_total") == 1


def test_a_dead_device_ends_it_too(guarded: Any, backend: Any, clock: Clock) -> None:
    backend.error = DeviceError("ecc", "double bit")
    post(guarded)
    clock.now += 601
    assert guarded.join() == 75


# --- canary -----------------------------------------------------------------------------------------


def test_the_canary_runs_at_the_start_and_never_counts_as_work(guarded: Any) -> None:
    assert guarded.metric("sn17_generations_total", kind="canary", outcome="ok") == 1
    assert guarded.metric("sn17_canary_drift_ratio") == 0
    assert guarded.metric("sn17_recent_generations") == 0
    assert guarded.metric("sn17_recent_gaussians_mean") is None
    assert guarded.metric("sn17_recent_generation_seconds_p50") is None
    assert post(guarded).status_code == 200
    assert guarded.metric("sn17_recent_generations") == 1
    assert guarded.metric("sn17_recent_gaussians_mean") == 8000
    assert guarded.state()["gaussians_mean"] == 8000


def test_recent_work_is_of_the_last_half_hour(guarded: Any, clock: Clock) -> None:
    post(guarded)
    clock.now += 1801
    assert guarded.metric("sn17_recent_generations") == 0
    assert guarded.metric("sn17_recent_gaussians_mean") is None


def test_drift_marks_the_worker_and_is_seen_across_restarts(
    guarded: Any, new_worker: Any, backend: Any, wait_until: Wait
) -> None:
    backend.gaussians = 6_200
    result = guarded.ops("POST", "/admin/v1/canary").json()["result"]
    assert result["passed"] is False
    assert result["drift"] == pytest.approx(0.225)
    assert guarded.state()["state"] == "degraded"
    assert guarded.metric("sn17_degraded", reason="canary_failed") == 1
    assert guarded.metric("sn17_canary_drift_ratio") == pytest.approx(0.225)
    assert post(guarded).status_code == 200, "only the operator takes it out of service"
    guarded.stop()
    again = new_worker()
    again.start()
    wait_until(lambda: again.state()["state"] == "degraded")
    backend.gaussians = 8_000
    assert again.ops("POST", "/admin/v1/canary").json()["result"]["passed"] is True
    assert again.state()["state"] == "ready"
    assert again.metric("sn17_degraded", reason="canary_failed") is None


def test_a_degraded_worker_tries_its_canary_again_until_it_heals(
    guarded: Any, backend: Any, clock: Clock, wait_until: Wait
) -> None:
    backend.gaussians = 100_000
    guarded.ops("POST", "/admin/v1/canary")
    clock.now += 61
    wait_until(lambda: guarded.metric("sn17_generations_total", kind="canary", outcome="ok") == 3)
    assert guarded.state()["state"] == "degraded"
    backend.gaussians = 8_000
    clock.now += 61
    wait_until(lambda: guarded.state()["state"] == "ready")


def test_a_canary_of_nothing_degrades_at_once(guarded: Any, backend: Any) -> None:
    backend.gaussians = 0
    result = guarded.ops("POST", "/admin/v1/canary").json()["result"]
    assert result["ran"] is False
    assert "unusable" in result["reason"]
    assert guarded.state()["state"] == "degraded"
    assert guarded.metric("sn17_generations_total", kind="canary", outcome="unusable") == 1


def test_another_checkpoint_gets_a_baseline_of_its_own(
    guarded: Any, new_worker: Any, backend: Any, wait_until: Wait
) -> None:
    guarded.stop()
    backend.identity = "scripted/2"
    backend.gaussians = 20_000
    again = new_worker()
    again.start()
    wait_until(lambda: again.state()["state"] == "ready")


def test_the_canary_runs_every_n_tasks(new_worker: Any, wait_until: Wait) -> None:
    live = new_worker(canary_every=3)
    live.start()
    wait_until(lambda: live.state()["state"] == "ready")
    for seed in range(3):
        wait_until(lambda: live.state()["state"] == "ready")
        assert post(live, seed=str(seed)).status_code == 200
    wait_until(lambda: live.metric("sn17_generations_total", kind="canary", outcome="ok") == 2)


def test_a_canary_asked_for_waits_for_the_job_at_work(guarded: Any, backend: Any) -> None:
    backend.release.clear()
    with ThreadPoolExecutor(2) as pool:
        job = pool.submit(post, guarded)
        assert backend.entered.acquire(timeout=30)
        canary = pool.submit(guarded.ops, "POST", "/admin/v1/canary")
        assert guarded.ops("GET", "/health").status_code == 200
        backend.release.set()
        assert job.result(30).status_code == 200
        assert canary.result(30).json()["result"]["ran"] is True


def test_a_canary_that_may_not_run_says_why(guarded: Any, memory: Memory) -> None:
    memory.level = 900
    result = guarded.ops("POST", "/admin/v1/canary").json()["result"]
    assert result["ran"] is False
    assert result["passed"] is None, "what did not run proves nothing"
    assert "memory limit" in result["reason"]


# --- draining and the end ---------------------------------------------------------------------------


def test_draining_finishes_the_job_and_takes_no_other(guarded: Any, backend: Any, clock: Clock) -> None:
    backend.release.clear()
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(post, guarded)
        assert backend.entered.acquire(timeout=30)
        guarded.ops("POST", "/admin/v1/drain", json={"by": "operator", "reason": "MemoryHigh"})
        state = guarded.state()
        assert state["state"] == "draining"
        assert state["job"] is not None
        assert "MemoryHigh" in state["reason"]
        answer = post(guarded)
        assert (answer.status_code, answer.json()["code"]) == (503, "draining")
        assert guarded.ops("GET", "/ready").status_code == 503
        backend.release.set()
        assert job.result(30).status_code == 200
    clock.now += 61
    assert guarded.state()["state"] == "ready"


def test_a_stop_delivers_the_job_at_work_first(guarded: Any, backend: Any) -> None:
    backend.release.clear()
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(post, guarded)
        assert backend.entered.acquire(timeout=30)
        guarded.service.stop(0, "SIGTERM")
        assert post(guarded).json()["code"] == "draining"
        backend.release.set()
        answer = job.result(30)
        assert answer.status_code == 200
        assert len(read_ply(answer.content)) == 8000
    assert guarded.join() == 0
    assert backend.closed


def test_a_job_that_outlasts_the_grace_is_cancelled(new_worker: Any, backend: Any, wait_until: Wait) -> None:
    live = new_worker(grace_seconds=0.2)
    live.start()
    wait_until(lambda: live.state()["state"] == "ready")
    backend.release.clear()
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(post, live)
        assert backend.entered.acquire(timeout=30)
        live.service.stop(0, "SIGTERM")
        assert live.join() == 0
        with contextlib.suppress(httpx2.TransportError):
            assert job.result(30).status_code == 409
    assert live.metric("sn17_generations_total", kind="task", outcome="cancelled") == 1


def test_an_exit_by_the_operator_finishes_the_job_and_returns_75(guarded: Any, backend: Any) -> None:
    backend.release.clear()
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(post, guarded)
        assert backend.entered.acquire(timeout=30)
        body = {"boot_id": guarded.service.boot_id, "reason": "GaussiansLow"}
        assert guarded.ops("POST", "/admin/v1/exit", json=body).status_code == 202
        backend.release.set()
        assert job.result(30).status_code == 200
    assert guarded.join() == 75


def test_an_idle_hour_does_not_look_like_a_stall_of_the_next_job(
    guarded: Any, backend: Any, clock: Clock
) -> None:
    post(guarded)
    assert backend.entered.acquire(timeout=30)
    clock.now += 3600
    backend.silent = True
    backend.release.clear()
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(post, guarded)
        assert backend.entered.acquire(timeout=30)
        assert guarded.metric("sn17_jobs_in_flight") == 1
        assert guarded.metric("sn17_last_progress_timestamp_seconds") == clock.now
        assert guarded.state()["job"]["progress_at"] == clock.now
        backend.release.set()
        assert job.result(30).status_code == 200


def test_gaussians_of_a_decayed_worker_show_in_the_mean(guarded: Any, backend: Any) -> None:
    for backend.gaussians in (8_000, 8_000, 50_000):
        assert post(guarded).status_code == 200
    assert guarded.metric("sn17_recent_gaussians_mean") == pytest.approx(np.mean([8_000, 8_000, 50_000]))
    assert guarded.metric("sn17_generation_gaussians_count", kind="task") == 3
    assert guarded.metric("sn17_generation_duration_seconds_sum", kind="task", stage="structure") == 1.5
    assert guarded.metric("sn17_gpu_memory_bytes", kind="allocated") == 123
