"""The loop: what counts as alive, what wakes it, what its metrics say."""

from __future__ import annotations

import asyncio
import gc

import pytest
from prometheus_client import CollectorRegistry
from sn17_operator.adapters.admin import QUICK_SECONDS
from sn17_operator.adapters.kube import ApiError
from sn17_operator.core.plan import Reason
from sn17_operator.loop import LEAST_LIMIT_SECONDS, Waker, run_ticks
from sn17_operator.status.resource import State
from sn17_operator.status.view import Ratios
from sn17_operator.telemetry import Telemetry


async def run(outcomes: list[Exception | None]) -> tuple[int, CollectorRegistry]:
    """Tick once per outcome; returns how often the loop counted as alive."""
    beats: list[None] = []
    registry = CollectorRegistry()
    left = list(outcomes)

    async def tick() -> None:
        if not left:
            raise asyncio.CancelledError
        outcome = left.pop(0)
        if outcome is not None:
            raise outcome

    def beat() -> None:
        beats.append(None)

    with pytest.raises(asyncio.CancelledError):
        await run_ticks(
            tick, Waker(), Telemetry(registry, lambda: 0.0), beat, period=0.01, monotonic=lambda: 0.0
        )
    return len(beats), registry


async def test_only_a_finished_tick_counts_as_alive() -> None:
    beats, registry = await run([None, ValueError("bug"), None])
    assert beats == 2
    assert registry.get_sample_value("sn17_tick_duration_seconds_count") == 3


@pytest.mark.parametrize("status", [0, 429, 500, 503])
async def test_api_server_that_refuses_is_no_fault_of_the_loop(status: int) -> None:
    beats, _ = await run([ApiError(status, "later", retry_after=1.0), None])
    assert beats == 2


async def test_tick_that_hangs_is_given_up_and_not_alive() -> None:
    beats: list[None] = []
    ticks: list[None] = []

    async def tick() -> None:
        ticks.append(None)
        if len(ticks) == 3:
            raise asyncio.CancelledError
        await asyncio.Event().wait()

    telemetry = Telemetry(CollectorRegistry(), lambda: 0.0)
    with pytest.raises(asyncio.CancelledError):
        await run_ticks(
            tick,
            Waker(),
            telemetry,
            lambda: beats.append(None),
            period=0.01,
            monotonic=lambda: 0.0,
            limit=0.05,
        )
    assert beats == []


async def test_tick_of_a_short_period_outlives_a_worker_that_does_not_answer() -> None:
    """Else it is given up at the same worker each time, and that worker is never restarted."""
    ticks: list[str] = []

    async def tick() -> None:
        if ticks:
            raise asyncio.CancelledError
        ticks.append("started")
        await asyncio.sleep(0.2)
        ticks.append("finished")

    telemetry = Telemetry(CollectorRegistry(), lambda: 0.0)
    with pytest.raises(asyncio.CancelledError):
        await run_ticks(tick, Waker(), telemetry, lambda: None, period=0.01, monotonic=lambda: 0.0)
    assert ticks == ["started", "finished"]
    assert LEAST_LIMIT_SECONDS > 2 * QUICK_SECONDS


async def test_watch_wakes_the_loop_early() -> None:
    waker = Waker()
    waiting = asyncio.create_task(waker.wait(3_600))
    await asyncio.sleep(0)
    waker()
    async with asyncio.timeout(30):
        await waiting


def test_gauges_of_what_is_gone_go_too() -> None:
    registry = CollectorRegistry()
    telemetry = Telemetry(registry, lambda: 0.0)
    telemetry.begin()
    telemetry.fleet([State.HEALTHY, State.RECYCLING], [Reason.PAUSED], {"1h": Ratios(0.9, 0.8)})
    telemetry.end()
    assert registry.get_sample_value("sn17_workers", {"state": "Recycling"}) == 1
    assert registry.get_sample_value("sn17_success_ratio", {"window": "1h"}) == 0.9
    telemetry.begin()
    telemetry.fleet([State.HEALTHY], [], {})
    telemetry.end()
    assert registry.get_sample_value("sn17_workers", {"state": "Recycling"}) == 0
    assert registry.get_sample_value("sn17_success_ratio", {"window": "1h"}) is None
    assert registry.get_sample_value("sn17_blocked_total", {"reason": "Paused"}) == 1


@pytest.mark.parametrize("outcome", [None, ValueError("bug"), ApiError(429, "later")])
async def test_collection_waits_for_the_end_of_the_tick_and_no_longer(outcome: Exception | None) -> None:
    during: list[bool] = []
    after: list[bool] = []

    async def tick() -> None:
        if during:
            after.append(gc.isenabled())
            raise asyncio.CancelledError
        during.append(gc.isenabled())
        if outcome is not None:
            raise outcome

    class Between(Waker):
        async def wait(self, seconds: float) -> None:
            after.append(gc.isenabled())

    with pytest.raises(asyncio.CancelledError):
        await run_ticks(
            tick,
            Between(),
            Telemetry(CollectorRegistry(), lambda: 0.0),
            lambda: None,
            period=1,
            monotonic=lambda: 0.0,
        )
    assert (during, after) == ([False], [True, False])
    assert gc.isenabled()
