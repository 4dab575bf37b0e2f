"""The nodes of one gateway and their life together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from sn17_contract.local_network import GatewayNode, GatewayTask, LocalGateways

from sn17_devnet.faults import FaultPlan
from sn17_devnet.gateway.faults import GatewayFault
from sn17_devnet.gateway.node import Node
from sn17_devnet.gateway.settings import FakeGatewaySettings
from sn17_devnet.gateway.shared import Shared


class FakeGateway:
    """The nodes of one gateway.

    Usable in a test's own event loop: :meth:`start`, :meth:`restart`, :meth:`tick`, :meth:`stop`.
    """

    def __init__(self, settings: FakeGatewaySettings, *, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.clock = clock
        self.shared = Shared(settings, clock, lambda: [node.info() for node in self.nodes])
        self.database = self.shared.database
        self.faults: tuple[GatewayFault, ...] = settings.faults
        self.nodes = [Node(self.shared, index) for index in range(settings.nodes)]
        self.set_faults(settings.faults)

    async def start(self) -> None:
        """Raises OSError: a port is taken."""
        for node in self.nodes:
            await node.server.start()

    async def stop(self) -> None:
        await asyncio.gather(*(node.server.close() for node in self.nodes))

    async def restart(self, index: int, seconds: float) -> None:
        """One node is gone for ``seconds`` and comes back without tasks and results."""
        await self.nodes[index].server.restart(seconds)

    async def keep_swept(self) -> None:
        """Clean up forever."""
        while True:
            await asyncio.sleep(self.settings.sweep_seconds)
            self.tick()

    def tick(self) -> None:
        """One clean-up of every node that runs, and of the database."""
        running = [node for node in self.nodes if node.server.up.is_set()]
        for node in running:
            node.memory.tick()
        self.database.tick(lambda record: any(record.id in node.memory.contexts for node in running))

    def set_faults(self, rules: Sequence[GatewayFault]) -> None:
        """Replace the faults of every node."""
        self.faults = tuple(rules)
        for node in self.nodes:
            node.faults = FaultPlan(rules, node.index, self.settings.seed)

    def description(self, control_url: str, ops_url: str) -> LocalGateways:
        """``gateways.json``: where everything is."""
        return LocalGateways(
            schema="sn17.local-gateways/v1",
            control_url=control_url,
            ops_url=ops_url,
            generic_key=self.settings.generic_key.get_secret_value(),
            nodes=tuple(
                GatewayNode(url=f"http://{self.shared.ip}:{node.server.port}", up=node.server.up.is_set())
                for node in self.nodes
            ),
        )

    def tasks(self) -> list[GatewayTask]:
        """Every task and what became of it, oldest first."""
        return [
            GatewayTask(
                id=record.id,
                node=record.node,
                status=record.status().text,
                reason=record.status().reason,
                created_at=record.created_at,
                hotkeys=tuple(delivery.hotkey for delivery in record.deliveries),
                successes=len(record.successes),
                failures=len(record.finished) - len(record.successes),
            )
            for record in self.database.records.values()
        ]
