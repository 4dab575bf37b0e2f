"""Carries out what ``core.scaling`` finds: deletion costs, then the count."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from sn17_operator.core.model import Fleet
from sn17_operator.core.scaling import Scaling, scaling
from sn17_operator.ports import Announcement, Miner, Refused, Scaler
from sn17_operator.telemetry import Telemetry
from sn17_operator.teller import Teller

log = logging.getLogger("sn17.operator")

PARALLEL_COSTS = 16


class Replicas:
    """A refusal is counted and logged, and tried again at the next tick; it never holds anything else up."""

    def __init__(self, scaler: Scaler, telemetry: Telemetry, teller: Teller) -> None:
        self._scaler = scaler
        self._telemetry = telemetry
        self._teller = teller
        self._ignored: dict[str, int] = {}

    async def follow(self, miner: Miner, fleet: Fleet) -> None:
        """Write what differs; almost always nothing does."""
        found = scaling(miner.spec, fleet)
        if found == Scaling():
            self._ignored.pop(miner.uid, None)
            return
        await self._costs(miner, fleet, found)
        if found.adopt is not None:
            await self._try("Adopt", self._scaler.adopt(miner, found.adopt))
        if found.replicas is not None:
            words = f"workers wanted: {found.replicas}, before {fleet.expected}"
            if await self._try("Scale", self._scaler.set_replicas(miner, found.replicas)):
                log.info("%s/%s: %s", miner.namespace, miner.name, words)
                await self._teller.announce(miner, None, Announcement("Scaled", words))
        if found.ignored is not None and self._ignored.get(miner.uid) != found.ignored:
            self._ignored[miner.uid] = found.ignored
            text = (
                f"spec.replicas {found.ignored} does nothing while the Deployment owns its count: "
                "scale that, or set spec.scale.owner to SN17Miner"
            )
            await self._teller.announce(miner, None, Announcement("ReplicasIgnored", text, warning=True))

    async def _costs(self, miner: Miner, fleet: Fleet, found: Scaling) -> None:
        pods = {worker.pod.uid: worker.pod for worker in fleet.workers}
        slots = asyncio.Semaphore(PARALLEL_COSTS)

        async def write(uid: str, cost: int | None) -> None:
            async with slots:
                await self._try("DeletionCost", self._scaler.set_cost(miner, pods[uid], cost))

        await asyncio.gather(*(write(cost.uid, cost.cost) for cost in found.costs))

    async def _try(self, act: str, work: Awaitable[None]) -> bool:
        try:
            await work
        except Refused as error:
            self._telemetry.action(act, "Scaling", error.outcome)
            log.warning("%s did not work: %s", act, error)
            return False
        self._telemetry.action(act, "Scaling", "ok")
        return True
