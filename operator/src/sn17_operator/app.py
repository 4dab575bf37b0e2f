"""The operator's process in a cluster: Lease first, then watches and ticks, with the ops port beside them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from importlib.metadata import version

import kopf
from fastapi import APIRouter, HTTPException
from sn17_contract.explain import Explanation
from sn17_service.service import Service

from sn17_operator import handlers
from sn17_operator.adapters.admin import WorkerAdmin
from sn17_operator.adapters.kube import KubeApi
from sn17_operator.adapters.kube_cluster import KubeCluster
from sn17_operator.adapters.kube_scale import KubeScaler
from sn17_operator.adapters.lease import Lease, LeaseLost
from sn17_operator.adapters.nvsentinel import Drains
from sn17_operator.adapters.prometheus import PrometheusMetrics
from sn17_operator.adapters.store import Store
from sn17_operator.controller import Controller
from sn17_operator.explain import explain_pod
from sn17_operator.loop import Waker, run_ticks, tick_limit
from sn17_operator.settings import OperatorSettings
from sn17_operator.telemetry import Telemetry

log = logging.getLogger("sn17.operator")

VERSION = version("sn17-operator")
SILENT_TICKS = 3


class Operator:
    """Wires the adapters to the controller and runs them until they end."""

    def __init__(self, settings: OperatorSettings, service: Service) -> None:
        self.settings = settings
        self.service = service
        self.telemetry = Telemetry(service.registry, service.monotonic)
        self.controller: Controller | None = None
        self._standby: str | None = "starting"
        service.add_ops_router(self._routes(), admin=False)

    async def run(self) -> None:
        """Everything, in the right order; returns after SIGTERM, raises when the Lease is lost."""
        settings, service = self.settings, self.service
        namespace = settings.resolved_namespace()
        identity = f"{settings.pod_name}_{secrets.token_hex(4)}"
        api = await KubeApi.connect(self.telemetry.api_error)
        lease = Lease(
            api,
            namespace,
            settings.lease.name,
            identity,
            clock=service.clock,
            monotonic=service.monotonic,
            duration=settings.lease.duration_seconds,
            deadline=settings.lease.deadline_seconds,
            retry=settings.lease.retry_seconds,
        )
        admin = WorkerAdmin(settings.admin_token_file, clock=service.clock)
        asked = settings.prometheus
        if asked.namespace is None:
            asked = asked.model_copy(update={"namespace": namespace})
        metrics = PrometheusMetrics(asked, on_error=self.telemetry.prometheus_error)
        store, waker = Store(), Waker()
        cluster = KubeCluster(
            api,
            store,
            namespace,
            settings.selector,
            identity=identity,
            may_act=lambda: lease.held,
            clock=service.clock,
        )
        self.controller = Controller(
            cluster, metrics, admin, self.telemetry, clock=service.clock, scaler=KubeScaler(api, store)
        )
        try:
            self._standby = "waits for the Lease"
            await lease.acquire()
            self._standby = None
            beat = service.health.watch(
                "tick", SILENT_TICKS * settings.tick_seconds + tick_limit(settings.tick_seconds)
            )
            await self._watch_and_tick(
                namespace, store, waker, lease, self._tick(api, namespace, lease), beat
            )
        finally:
            await self.controller.close()
            await lease.release()
            await asyncio.gather(admin.close(), metrics.close(), api.close())

    def _tick(self, api: KubeApi, namespace: str, lease: Lease) -> Callable[[], Awaitable[None]]:
        assert self.controller is not None
        if not self.settings.nvsentinel_namespace:
            return self.controller.tick
        look = self.controller.tick
        drains = Drains(
            api,
            namespace,
            self.settings.nvsentinel_namespace,
            may_act=lambda: lease.held,
            clock=self.service.clock,
        )

        async def both() -> None:
            await drains.tick()
            await look()

        return both

    async def _watch_and_tick(
        self,
        namespace: str,
        store: Store,
        waker: Waker,
        lease: Lease,
        tick: Callable[[], Awaitable[None]],
        beat: Callable[[], None],
    ) -> None:
        settings = kopf.OperatorSettings()
        handlers.configure(settings, self.settings.selector)
        registry = handlers.build_registry(store, waker)
        ticks = asyncio.create_task(
            run_ticks(
                tick,
                waker,
                self.telemetry,
                beat,
                period=self.settings.tick_seconds,
                monotonic=self.service.monotonic,
            ),
            name="ticks",
        )
        holding = asyncio.create_task(lease.hold(), name="lease")
        watching = asyncio.create_task(
            kopf.operator(registry=registry, settings=settings, namespaces=[namespace], standalone=True),
            name="kopf",
        )
        tasks = {ticks, holding, watching}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _routes(self) -> APIRouter:
        router = APIRouter()

        @router.get("/v1/explain/{pod}")
        def explain(pod: str) -> Explanation:
            """Why a worker is judged as it is, and what would happen next."""
            if self.controller is None or not self.controller.snapshots:
                raise HTTPException(503, self._standby or "no tick has finished yet")
            for snapshot in self.controller.snapshots.values():
                if (found := explain_pod(snapshot, pod)) is not None:
                    return found
            raise HTTPException(404, f"{pod} is not a worker of any SN17Miner here")

        return router


def serve(settings: OperatorSettings) -> int:
    """Run until SIGTERM; the exit code is 0 then, and 1 when the Lease or a watch is lost."""
    service = Service("operator", VERSION, settings)
    operator = Operator(settings, service)

    async def main() -> None:
        try:
            await operator.run()
        except LeaseLost as error:
            log.error("%s: leaving, a fresh start takes part again", error)
            service.stop(1, str(error))
        else:
            service.stop(0, "SIGTERM")

    service.background("operator", main)
    return service.main(None)
