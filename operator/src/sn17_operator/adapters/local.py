"""The same policy and planner over worker processes of this machine, without a cluster and without
Prometheus.

``LocalOperator`` scrapes the workers' ops ports itself and keeps the operator's notes in memory. Whoever
supervises the processes starts them again when they exit; ``restart`` is its way to end one that does not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from sn17_contract.explain import Explanation

from sn17_operator.adapters.admin import WorkerAdmin
from sn17_operator.adapters.local_scrape import LocalWorker, Scraper, WorkerState
from sn17_operator.api import Spec, TargetReference
from sn17_operator.controller import Controller
from sn17_operator.core.model import Phase, Pod, UserCordon
from sn17_operator.core.plan import Step
from sn17_operator.explain import explain_pod
from sn17_operator.loop import Waker, run_ticks
from sn17_operator.ports import Announcement, Disrupted, Miner, Target
from sn17_operator.status.resource import Status
from sn17_operator.telemetry import Telemetry

log = logging.getLogger("sn17.operator")


@dataclass(frozen=True, slots=True)
class LocalEvent:
    """Something the operator did or noticed; ``worker`` is empty when it is about all of them."""

    at: float
    worker: str
    reason: str
    message: str
    warning: bool


class LocalCluster:
    """Notes in memory; the supervisor in place of kubelet."""

    def __init__(
        self,
        states: dict[str, WorkerState],
        spec: Spec,
        *,
        clock: Callable[[], float],
        on_event: Callable[[LocalEvent], None],
        on_status: Callable[[Status], None],
        restart: Callable[[str], Awaitable[None]] | None,
    ) -> None:
        self._states = states
        self._spec = spec
        self._clock = clock
        self._on_event = on_event
        self._on_status = on_status
        self._restart = restart
        self.paused: str | None = None
        self.status = Status()

    def may_act(self) -> bool:
        return True

    async def miners(self) -> Sequence[Miner]:
        return [Miner("local", "local", "local", self._spec, 1, self.paused, self.status)]

    async def target(self, miner: Miner, now: float) -> Target:
        return Target(tuple(_pod(state) for state in self._states.values()), len(self._states))

    async def annotate(self, miner: Miner, pod: Pod, step: Step) -> Pod:
        state = self._states[pod.uid]
        state.intent, state.history = step.intent, step.history
        if step.drop_request:
            state.recycle_requested = None
        if step.drop_user_cordon:
            state.user_cordon = None
        return replace(_pod(state), container_id=pod.container_id, phase=pod.phase)

    async def evict(self, miner: Miner, pod: Pod) -> None:
        if self._restart is None:
            raise Disrupted("nothing here can end a process that does not exit by itself")
        await self._restart(pod.uid)
        state = self._states[pod.uid]
        # No other pod takes its place: the same name comes back with another process.
        state.intent = None
        state.history = replace(state.history, recycled_at=self._clock())

    async def announce(self, miner: Miner, pod: Pod | None, announcement: Announcement) -> None:
        name = pod.name if pod is not None else ""
        event = LocalEvent(
            self._clock(), name, announcement.reason, announcement.message, announcement.warning
        )
        self._on_event(event)

    async def write_status(self, miner: Miner, status: Status) -> None:
        fields = {name: getattr(status, name) for name in status.model_fields_set}
        self.status = self.status.model_copy(update=fields)
        self._on_status(self.status)


def _pod(state: WorkerState) -> Pod:
    name = state.worker.name
    return Pod(
        uid=name,
        name=name,
        namespace="local",
        created_at=0.0,
        resource_version=str(state.version),
        address=state.worker.ops_url,
        data_address=state.worker.data_url or None,
        phase=Phase.RUNNING if state.running else Phase.WAITING,
        phase_reason="" if state.running else "NotRunning",
        phase_message=state.why,
        container_id=state.boot_id,
        started_at=state.started_at if state.running else None,
        restarts=max(0, state.restarts),
        ready=state.ready and state.running,
        intent=state.intent,
        history=state.history,
        user_cordon=state.user_cordon,
        recycle_requested=state.recycle_requested,
    )


def default_spec(**changes: Any) -> Spec:
    """The defaults of an SN17Miner; ``changes`` in the form of its spec, e.g. ``maxUnavailable=1``."""
    return Spec.model_validate({"targetRef": TargetReference(name="local").model_dump(), **changes})


class LocalOperator:
    """Judges and remediates local workers until cancelled.

    ``neighbours`` are ops URLs of other services: while one of them can be scraped, a worker that cannot is
    at fault itself, even where it is the only one.

    ``on_event`` and ``on_status`` are called in the event loop and must not block. ``restart(name)`` ends
    and starts a process that did not exit when asked; without it such a worker stays cordoned, and that is
    said.
    """

    def __init__(
        self,
        workers: Sequence[LocalWorker],
        *,
        token_file: Path | None,
        neighbours: Sequence[str] = (),
        spec: Spec | None = None,
        on_event: Callable[[LocalEvent], None] = lambda event: None,
        on_status: Callable[[Status], None] = lambda status: None,
        restart: Callable[[str], Awaitable[None]] | None = None,
        tick_seconds: float = 2.0,
        scrape_seconds: float = 1.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._states = {worker.name: WorkerState(worker) for worker in workers}
        self._period = tick_seconds
        self._monotonic = monotonic
        self._waker = Waker()
        self._telemetry = Telemetry(registry or CollectorRegistry(), monotonic)
        self._scraper = Scraper(self._states, neighbours, interval=scrape_seconds, clock=clock)
        self._admin = WorkerAdmin(token_file, clock=clock)
        self._cluster = LocalCluster(
            self._states,
            spec or default_spec(),
            clock=clock,
            on_event=on_event,
            on_status=on_status,
            restart=restart,
        )
        self._controller = Controller(self._cluster, self._scraper, self._admin, self._telemetry, clock=clock)

    async def run(self) -> None:
        """Scrape and tick for ever; cancel to stop. Leases in the workers then lapse by themselves."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._scraper.run(), name="scrape")
                group.create_task(
                    run_ticks(
                        self._controller.tick,
                        self._waker,
                        self._telemetry,
                        lambda: None,
                        period=self._period,
                        monotonic=self._monotonic,
                    ),
                    name="ticks",
                )
        finally:
            await self._controller.close()
            await self._admin.close()
            await self._scraper.close()

    @property
    def status(self) -> Status:
        """The status as an SN17Miner would have it; empty before the first tick."""
        return self._cluster.status

    def update(self, worker: LocalWorker) -> None:
        """A worker has come back at other addresses."""
        self._states[worker.name].worker = worker

    def explain(self, name: str) -> Explanation | None:
        """As ``sn17 explain``; None before the first tick or for an unknown name."""
        for snapshot in self._controller.snapshots.values():
            if (found := explain_pod(snapshot, name)) is not None:
                return found
        return None

    def cordon(self, name: str, reason: str) -> None:
        """A person takes a worker out of service, until ``uncordon``. Raises KeyError for an unknown name."""
        self._states[name].user_cordon = UserCordon(reason)
        self._waker()

    def uncordon(self, name: str) -> None:
        state = self._states[name]
        if state.user_cordon is not None:
            state.user_cordon = replace(state.user_cordon, lift=True)
        self._waker()

    def recycle(self, name: str, reason: str) -> None:
        self._states[name].recycle_requested = reason
        self._waker()

    def pause(self, reason: str) -> None:
        self._cluster.paused = reason
        self._waker()

    def resume(self) -> None:
        self._cluster.paused = None
        self._waker()
