"""The fixer's application in this process, behind the client that the tests use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from sn17_fixer.app import FixerApp
from sn17_fixer.settings import FixerSettings
from sn17_http import own_async_client
from sn17_service import Service


class Fixer:
    """Application, service and settings of one test."""

    def __init__(self, **settings: Any) -> None:
        self.settings = FixerSettings(warm_up=False, **settings)
        self.service = Service("fixer", "0", self.settings)
        self.app = FixerApp(self.service, self.settings)
        self.asgi = self.app.build()

    def metric(self, name: str, **labels: str) -> float:
        return self.service.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def client(fixer: Fixer) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=fixer.asgi)
    async with own_async_client(transport=transport, base_url="http://fixer") as http:
        yield http
    fixer.app.close()
