"""The gateway in this process, on real sockets, with a clock that moves when told."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Protocol

from gateway_client import Client, FleetWorker
from gateway_process import GUEST, TOKEN
from pydantic import SecretStr
from sn17_gateway.admin import keys_router
from sn17_gateway.app import build_app
from sn17_gateway.gateway import Gateway
from sn17_gateway.settings import GatewaySettings
from sn17_service import Service
from sn17_service.testing import ServiceThread


class Clock:
    """The real time, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class LiveGateway:
    """A context manager; ``settings`` change the defaults, but guests have no limits."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        token = folder / "token"
        token.write_text(TOKEN)
        values = {
            "port": 0, "ops_port": 0, "data_dir": folder / "data", "generic_key": SecretStr(GUEST),
            "guest_concurrent": 0, "guest_daily": 0, "guest_daily_by_address": 0, "rate_add_task": 0,
            "rate_results": 0, "admin_token_file": token, "grace_seconds": 2, **settings,
        }  # fmt: skip
        self.clock = Clock()
        self.settings = GatewaySettings(**values)
        self.service = Service("gateway", "0", self.settings, clock=self.clock)
        self.gateway = Gateway(self.service, self.settings)
        self.service.add_ops_router(keys_router(self.gateway), admin=True)
        self.live = ServiceThread(self.service, build_app(self.gateway), token=TOKEN)
        self.files = folder / "data" / "files"

    def __enter__(self) -> LiveGateway:
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    @property
    def url(self) -> str:
        return self.live.url

    def client(self, key: str | None = GUEST) -> Client:
        return Client(self.url, key)

    def worker(self, worker_id: str = "w1", uri: str = "//Worker") -> FleetWorker:
        return FleetWorker(self.url, worker_id, uri, clock=self.clock)

    def new_key(self, **fields: Any) -> str:
        answer = self.live.ops("POST", "/admin/v1/keys", json={"name": "mine", **fields})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["key"])

    def sweep(self) -> None:
        """One clean-up now."""
        asyncio.run(self.gateway.on_data_loop(self.gateway.sweep()))

    def break_storage(self) -> None:
        """As if the database were gone."""
        asyncio.run(self.gateway.on_data_loop(self.gateway.database.close()))


class Make(Protocol):
    """Starts a gateway with these settings, for one test."""

    def __call__(self, **settings: Any) -> LiveGateway: ...


def retry_after(answer: Any) -> int:
    """Seconds that a refusal asks for."""
    return int(answer.headers["retry-after"])
