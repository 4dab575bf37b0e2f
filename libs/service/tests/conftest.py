from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from sn17_contract.http import Code
from sn17_service import Problem, Service, ServiceSettings
from sn17_service.testing import ServiceThread

TOKEN = "correct horse"
MAX_BODY = 100_000


class Clock:
    """Moves only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def demo_app(service: Service) -> FastAPI:
    app = service.new_app("demo", MAX_BODY)

    @app.post("/length")
    async def length(request: Request) -> dict[str, int]:
        return {"length": len(await request.body())}

    @app.post("/form")
    async def form(request: Request) -> list[str]:
        return sorted((await request.form()).keys())

    @app.get("/number/{value}")
    async def number(value: int) -> int:
        return value

    @app.get("/busy")
    async def busy() -> None:
        raise Problem(Code.BUSY, "one at a time", retry_after_seconds=3)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a secret inside")

    @app.get("/long")
    async def long() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(512):
                yield bytes(256 * 1024)

        return StreamingResponse(pieces(), headers={"content-length": str(512 * 256 * 1024)})

    return app


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def new_live(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., ServiceThread]]:
    """A service that is not started yet."""
    made: list[ServiceThread] = []

    def make(**settings: Any) -> ServiceThread:
        token = tmp_path / "token"
        token.write_text(TOKEN + "\n")
        values = {"ops_port": 0, "admin_token_file": token, "grace_seconds": 2, **settings}
        service = Service("demo", "1.2.3", ServiceSettings(**values), monotonic=clock)
        made.append(ServiceThread(service, demo_app(service), token=TOKEN))
        return made[-1]

    yield make
    for instance in made:
        if instance.exit_code is None:
            instance.stop()


@pytest.fixture
def live(new_live: Callable[..., ServiceThread]) -> ServiceThread:
    """A running service with short timeouts."""
    return new_live(header_timeout_seconds=0.3, body_timeout_seconds=0.5, send_timeout_seconds=0.5).start()
