"""Every query against a real Prometheus: values, restarts in the window, staleness, duplicates, counter
resets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from sn17_chaos.real_fleet import LIMIT, SCRAPE_SECONDS, Prometheus, Worker
from sn17_chaos.waiting import free_port
from sn17_contract.metrics import DegradedReason, DeviceFault
from sn17_operator.adapters.local import default_spec
from sn17_operator.adapters.prometheus import PrometheusMetrics, PrometheusSettings
from sn17_operator.adapters.record import fetch
from sn17_operator.core.evidence import Raw, attribute
from sn17_operator.core.model import Health, Phase, Pod, Verdict
from sn17_operator.core.policy import judge
from sn17_operator.core.readings import Evidence, Gap, Signal
from sn17_operator.core.signals import INFO_LABELS
from sn17_operator.ports import Measurement

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

SPEC = default_spec()


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("127.0.0.1", free_port())
    made.start()
    yield made
    made.stop()


@pytest.fixture
async def metrics(prometheus: Prometheus) -> AsyncIterator[PrometheusMetrics]:
    made = PrometheusMetrics(
        PrometheusSettings(url=prometheus.url, scrape_interval_seconds=SCRAPE_SECONDS, timeout_seconds=5)
    )
    yield made
    await made.close()


def labels(uid: str = "u1") -> dict[str, str]:
    return {"pod_uid": uid, "pod": f"pod-{uid}", "node": "n1"}


def target(worker: Worker, uid: str = "u1") -> tuple[str, dict[str, str]]:
    return f"{worker.address}:{worker.port}", labels(uid)


class Seen:
    """One look at Prometheus."""

    def __init__(self, found: Measurement, uid: str, started_at: float) -> None:
        self.found = found
        self.started_at = started_at
        raw = found.workers.get(uid, Raw())
        self.evidence: Evidence = attribute(raw, started_at, found.monitoring.failed)

    def value(self, signal: Signal) -> float | None:
        series = self.evidence.series(signal)
        return None if series is None else series.value

    @property
    def verdict(self) -> Verdict:
        pod = Pod(
            "u1",
            "w",
            "ns",
            0.0,
            phase=Phase.RUNNING,
            container_id="c",
            started_at=self.started_at,
            ready=True,
        )
        return judge(SPEC, pod, self.evidence, self.found.monitoring)


async def look(metrics: PrometheusMetrics, uid: str = "u1", started_at: float = 0.0) -> Seen:
    return Seen(await metrics.measure(time.time(), [SPEC.rules]), uid, started_at)


async def until(metrics: PrometheusMetrics, true: Callable[[Seen], Any], uid: str = "u1") -> Seen:
    async with asyncio.timeout(40):
        while True:
            seen = await look(metrics, uid)
            if true(seen):
                return seen
            await asyncio.sleep(0.2)


UNSEEN = (Signal.PROGRESS, Signal.POD_MEMORY, *(INFO_LABELS.keys() - {Signal.BOOT, Signal.LIFE}))
"""A time, what cAdvisor shows, and what is said by a label in place of a value."""


async def test_every_signal_is_read(
    prometheus: Prometheus, metrics: PrometheusMetrics, worker: Worker
) -> None:
    worker.gpu_errors, worker.jobs, worker.leases = 3, 1, {"user": "x"}
    worker.says = DegradedReason.SUSPECT_OUTPUTS
    worker.device, worker.fault = "GPU-1", DeviceFault.XID
    prometheus.scrape([target(worker)])
    seen = await until(metrics, lambda s: s.value(Signal.MEMORY) is not None and s.value(Signal.UP) == 1)
    assert seen.found.monitoring.failed == {}
    assert seen.evidence.boot_id == worker.boot_id
    assert {signal: seen.value(signal) for signal in Signal if signal not in UNSEEN} == {
        Signal.BOOT: 1,
        Signal.LIFE: 1,
        Signal.MODEL_PROCESSES: None,
        Signal.SWAP_ROOM: None,
        Signal.SWAP_THRESHOLD: None,
        Signal.GUARD: None,
        Signal.FAILING_STARTS: None,
        Signal.MEMORY: 0.3 * LIMIT,
        Signal.LIMIT: LIMIT,
        Signal.GAUSSIANS: 350_000,
        Signal.GENERATIONS: 10,
        Signal.SECONDS_P50: 12,
        Signal.JOBS: 1,
        Signal.CANARY: 0.01,
        Signal.GPU_ERRORS: 3,
        Signal.UP: 1,
        Signal.DRAINING_USER: 1,
        Signal.DRAINING_OPERATOR: 0,
    }
    assert seen.evidence.doubt is DegradedReason.SUSPECT_OUTPUTS
    assert (seen.evidence.device, seen.evidence.faults) == ("GPU-1", (DeviceFault.XID,))
    progress = seen.value(Signal.PROGRESS)
    assert progress is not None
    assert abs(progress - time.time()) < 30
    assert seen.found.monitoring.last_scrape is not None
    assert seen.found.monitoring.coverage > 0


async def test_a_prometheus_without_cadvisor_is_known_as_one(
    prometheus: Prometheus, metrics: PrometheusMetrics, worker: Worker
) -> None:
    prometheus.scrape([target(worker)])
    await until(metrics, lambda s: s.value(Signal.UP) == 1)
    asked = PrometheusMetrics(metrics.settings.model_copy(update={"namespace": "ns"}))
    try:
        found = (await look(asked)).found.monitoring
    finally:
        await asked.close()
    assert (found.failed, found.pod_memory) == ({}, False)


async def test_restart_in_the_window_leaves_only_the_new_life(
    prometheus: Prometheus, metrics: PrometheusMetrics, worker: Worker
) -> None:
    worker.ratio, worker.gpu_errors = 0.95, 2
    prometheus.scrape([target(worker)])
    old = await until(metrics, lambda s: len(getattr(s.evidence.series(Signal.MEMORY), "samples", ())) >= 3)
    assert old.verdict.health is Health.DEGRADED
    worker.restart()
    new = await until(metrics, lambda s: s.evidence.boot_id == worker.boot_id)
    memory = new.evidence.series(Signal.MEMORY)
    assert memory is not None
    assert {value for _, value in memory.samples} == {0.2 * LIMIT}, "nothing of the earlier life"
    assert new.value(Signal.GPU_ERRORS) == 0, "a counter that starts anew is no negative count"
    assert new.verdict.health is not Health.DEGRADED


async def test_scrape_that_fails_is_up_zero_and_everything_else_goes_stale(
    prometheus: Prometheus, metrics: PrometheusMetrics, worker: Worker
) -> None:
    prometheus.scrape([target(worker)])
    await until(metrics, lambda s: s.value(Signal.MEMORY) is not None)
    worker.answers = False
    seen = await until(metrics, lambda s: s.value(Signal.UP) == 0 and s.verdict.health is Health.UNKNOWN)
    assert seen.verdict.breaches == ()


async def test_target_that_is_gone_leaves_no_fresh_sample(
    prometheus: Prometheus, metrics: PrometheusMetrics, worker: Worker
) -> None:
    prometheus.scrape([target(worker)])
    await until(metrics, lambda s: s.value(Signal.MEMORY) is not None)
    prometheus.scrape([])
    await until(metrics, lambda s: s.verdict.health is Health.UNKNOWN)


async def test_worker_scraped_twice_is_ambiguous(
    prometheus: Prometheus, metrics: PrometheusMetrics, worker: Worker
) -> None:
    prometheus.scrape([target(worker), (f"localhost:{worker.port}", labels())])
    seen = await until(metrics, lambda s: s.evidence.reading(Signal.MEMORY) is Gap.AMBIGUOUS)
    assert seen.verdict.health is Health.UNKNOWN


async def test_series_without_the_pods_uid_are_not_seen(
    prometheus: Prometheus, metrics: PrometheusMetrics, worker: Worker
) -> None:
    prometheus.scrape([target(worker), (f"localhost:{worker.port}", {"pod": "other"})])
    seen = await until(metrics, lambda s: s.value(Signal.MEMORY) is not None)
    assert set(seen.found.workers) == {"u1"}


async def test_recording_holds_what_was_scraped(
    prometheus: Prometheus, metrics: PrometheusMetrics, worker: Worker
) -> None:
    start = time.time() - 5
    prometheus.scrape([target(worker)])
    await until(metrics, lambda s: len(getattr(s.evidence.series(Signal.MEMORY), "samples", ())) >= 3)
    found = await fetch(metrics, start, time.time())
    (recorded,) = found.workers
    assert (recorded.uid, recorded.name, recorded.node) == ("u1", "pod-u1", "n1")
    assert [boot for boot, _ in recorded.boots] == [worker.boot_id]
    assert len(recorded.series[Signal.MEMORY]) >= 3
