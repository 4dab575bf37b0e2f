"""The fake of 404's gateway in this process, on real sockets, with a clock that moves when told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from gateway_client import Client, FleetWorker
from sn17_devnet.gateway.cluster import FakeGateway
from sn17_devnet.gateway.settings import LOCAL_KEY, FakeGatewaySettings

T = TypeVar("T")
DEADLINE = 30.0


class LiveFake:
    """A context manager; ``settings`` change the defaults, but guests have no limits."""

    def __init__(self, **settings: Any) -> None:
        values = {
            "guest_concurrent": 0, "guest_daily": 0, "guest_daily_by_address": 0, "rate_add_task": 0,
            "rate_results": 0, **settings,
        }  # fmt: skip
        self.ahead = 0.0
        self.gateway = FakeGateway(FakeGatewaySettings(**values), clock=self.clock)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake", daemon=True)

    def clock(self) -> float:
        return time.time() + self.ahead

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Where the nodes live."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE)

    def __enter__(self) -> LiveFake:
        self._thread.start()
        self.run(self.gateway.start())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.gateway.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE)
        self._loop.close()

    def url(self, node: int = 0) -> str:
        return f"http://127.0.0.1:{self.gateway.nodes[node].server.port}"

    def client(self, key: str | None = LOCAL_KEY, node: int = 0) -> Client:
        return Client(self.url(node), key)

    def worker(self, worker_id: str = "w1", uri: str = "//Worker", node: int = 0) -> FleetWorker:
        return FleetWorker(self.url(node), worker_id, uri, clock=self.clock)

    def later(self, seconds: float) -> None:
        """Time passes, and the clean-up runs."""
        self.ahead += seconds

        async def tick() -> None:
            self.gateway.tick()

        self.run(tick())

    def restart(self, node: int = 0, seconds: float = 0.0) -> None:
        self.run(self.gateway.restart(node, seconds))
