"""World and operator, tick by tick."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Final

from prometheus_client import CollectorRegistry
from sn17_operator.api import Spec
from sn17_operator.controller import Controller
from sn17_operator.core.model import UserCordon
from sn17_operator.telemetry import Telemetry

from sn17_simulation.fleet.cluster import World
from sn17_simulation.fleet.outside import Crash, SimAdmin, SimCluster
from sn17_simulation.fleet.scrape import SimMetrics
from sn17_simulation.fleet.worker import SimWorker


class Simulation:
    """World and operator, tick by tick. The operator may be killed and is then started anew, knowing
    nothing.
    """

    def __init__(
        self,
        count: int,
        spec: Spec | None = None,
        *,
        guard: bool = False,
        operator: bool = True,
        lives: bool = False,
    ) -> None:
        self.world = World(count, spec or SPEC, guard=guard, lives=lives)
        self.host = SimCluster(self.world)
        self.admin = SimAdmin(self.world, self.host)
        self.operator = operator
        self.crashes = 0
        self.controller = self._new()

    def _new(self) -> Controller:
        telemetry = Telemetry(CollectorRegistry(), lambda: self.world.now)
        return Controller(
            self.host,
            SimMetrics(self.world),
            self.admin,
            telemetry,
            clock=lambda: self.world.now,
            scaler=self.host,
        )

    async def tick(self) -> None:
        self.world.advance()
        if not self.operator:
            return
        try:
            await self.controller.tick()
            for _ in range(5):  # clean-ups and canaries run beside the tick
                await asyncio.sleep(0)
        except (Crash, BaseExceptionGroup):
            self.crashes += 1
            await self.controller.close()
            self.controller = self._new()

    async def run(self, ticks: int) -> None:
        for _ in range(ticks):
            await self.tick()

    def cordon(self, worker: SimWorker, reason: str = "by hand") -> None:
        self.world.change(worker, user_cordon=UserCordon(reason))

    def lift(self, worker: SimWorker) -> None:
        if worker.pod.user_cordon is not None:
            self.world.change(worker, user_cordon=replace(worker.pod.user_cordon, lift=True))

    @property
    def workers(self) -> list[SimWorker]:
        return list(self.world.workers.values())

    def reasons(self) -> list[str]:
        return [reason for _, _, reason in self.world.events]

    def count(self, reason: str) -> int:
        return self.reasons().count(reason)


SPEC: Final = Spec.model_validate({"targetRef": {"name": "workers"}})


def spec_with(**changes: Any) -> Spec:
    """The defaults with changes, as a manifest spells them."""
    return Spec.model_validate({"targetRef": {"name": "workers"}, **changes})


def let_leak(sim: Simulation, leak: float) -> None:
    """Every worker, also one that is made later, adds this share of the limit with each job."""
    sim.world.leak = leak
    for worker in sim.workers:
        worker.leak = leak


async def warmed(count: int, **options: Any) -> Simulation:
    """A fleet past its start."""
    sim = Simulation(count, **options)
    await sim.run(10)
    return sim
