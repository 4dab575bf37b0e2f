"""A reverse proxy on loopback that can be told to misbehave; it stands before the API server and before
Prometheus.

Runs on an event loop in a thread of its own. A rule looks at each request and says what becomes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
from aiohttp import web

T = TypeVar("T")

HOP_BY_HOP = frozenset(
    {"connection", "transfer-encoding", "content-length", "content-encoding", "host", "keep-alive"}
)
GONE_EVENT = {
    "type": "ERROR",
    "object": {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "too old resource version",
        "reason": "Expired",
        "code": 410,
    },
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, before it goes on."""

    method: str
    path: str
    query: Mapping[str, str]
    body: bytes

    @property
    def watch(self) -> bool:
        return self.query.get("watch") in ("true", "1")

    @property
    def writes(self) -> bool:
        return self.method not in ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a request.

    delay: seconds before anything happens. status: answered with it (and ``body``) instead of being passed
    on. drop: "before" cuts the connection unread, "after" passes the request on and cuts instead of the
    answer. change: what becomes of a whole answer on its way back.
    """

    delay: float = 0.0
    status: int = 0
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: str = ""
    change: Callable[[bytes], bytes] | None = None


PASS = Verdict()


def refusal(code: int, reason: str, message: str, **headers: str) -> Verdict:
    """A Status as the API server answers it."""
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}
    body = json.dumps({**status, "message": message, "metadata": {}}).encode()
    return Verdict(status=code, body=body, headers={"Content-Type": "application/json", **headers})


class Gateway:
    """``start`` it, set ``rule``, ``close`` it. ``after`` sees each request that was passed on, with its
    status, before the answer goes back.
    """

    def __init__(self, upstream: str, *, ca: str | None = None) -> None:
        self.upstream = upstream
        self.rule: Callable[[Asked], Verdict] = lambda asked: PASS
        self.after: Callable[[Asked, int], Verdict | None] = lambda asked, status: None
        self.port = 0
        self._ssl = ssl.create_default_context(cafile=ca) if ca else None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gateway", daemon=True)
        self._watches: set[asyncio.Queue[bytes | None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._thread.start()
        self._run(self._start())

    def close(self) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def end_watches(self, *, gone: bool) -> None:
        """Cut every running watch; ``gone`` says 410 first, as a server that has compacted its history."""

        async def end() -> None:
            for queue in self._watches:
                queue.put_nowait(json.dumps(GONE_EVENT).encode() + b"\n" if gone else None)
                if gone:
                    queue.put_nowait(None)

        self._run(end())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _start(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connector, auto_decompress=True)
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        for queue in self._watches:
            queue.put_nowait(None)
        await self._runner.cleanup()
        await self._session.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(request.method, request.path, dict(request.query), await request.read())
        verdict = self.rule(asked)
        if verdict.delay:
            await asyncio.sleep(verdict.delay)
        if verdict.drop == "before":
            return self._cut(request)
        if verdict.status:
            return web.Response(status=verdict.status, body=verdict.body, headers=verdict.headers)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
        try:
            async with self._session.request(
                request.method,
                self.upstream + str(request.rel_url),
                headers=headers,
                data=asked.body or None,
                ssl=self._ssl if self._ssl is not None else True,
            ) as answer:
                if asked.watch:
                    return await self._watch(request, answer)
                body = await answer.read()
                verdict = self.after(asked, answer.status) or verdict
                if verdict.drop == "after":
                    return self._cut(request)
                if verdict.change is not None:
                    body = verdict.change(body)
                kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
                return web.Response(status=answer.status, body=body, headers=kept)
        except (aiohttp.ClientError, OSError):
            return self._cut(request)

    async def _watch(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
        response = web.StreamResponse(status=answer.status, headers=kept)
        await response.prepare(request)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def pump() -> None:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async for chunk in answer.content.iter_any():
                    queue.put_nowait(chunk)
            queue.put_nowait(None)

        pumping = asyncio.create_task(pump())
        self._watches.add(queue)
        try:
            while (chunk := await queue.get()) is not None:
                await response.write(chunk)
        except (ConnectionError, OSError):
            return response
        finally:
            self._watches.discard(queue)
            pumping.cancel()
        return response

    @staticmethod
    def _cut(request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=502)
