"""Stands between the operator and the API server: throttles, cuts watches, and ends the operator at a chosen
effect.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web


class Gate:
    """Counts outside effects of the operator, whichever way they go, and kills it at one of them.

    ``arm(point, before=True)``: after ``point`` more effects the next does not happen; with ``before=False``
    it happens, but the operator does not live to hear of it.
    """

    def __init__(self, kill: Callable[[], None]) -> None:
        self._kill = kill
        self._lock = threading.Lock()
        self._left: int | None = None
        self._before = False
        self.killed = threading.Event()

    def arm(self, point: int, *, before: bool) -> None:
        with self._lock:
            self._left, self._before = point, before
            self.killed.clear()

    def disarm(self) -> None:
        with self._lock:
            self._left = None

    def enter(self) -> bool:
        """An effect is asked for; False: it must not happen, the operator is dead."""
        with self._lock:
            if self._left == 0 and self._before:
                self._end()
            return not self.killed.is_set()

    def leave(self) -> None:
        """An effect has happened."""
        with self._lock:
            if self._left == 0:
                self._end()
            elif self._left is not None:
                self._left -= 1

    def _end(self) -> None:
        self._left = None
        self._kill()
        self.killed.set()


class ApiProxy:
    """Plain HTTP on loopback in front of the API server; who asks is passed on."""

    def __init__(self, kubeconfig: Path) -> None:
        cluster = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
        self._upstream: str = cluster["server"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=authority)
        self._watches: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self.url = ""
        self.gate: Gate | None = None
        self.throttles: Callable[[str, str], bool] = lambda method, path: False
        """Calls to answer as the API server does when it has no seat for them."""
        self.throttled: list[float] = []
        """When calls were."""
        self.forgotten = 0
        """Watches that the server answered with 410."""

    @contextlib.contextmanager
    def running(self) -> Iterator[ApiProxy]:
        thread = threading.Thread(target=asyncio.run, args=(self._serve(),), daemon=True)
        thread.start()
        assert self._ready.wait(30)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join(30)

    @property
    def watching(self) -> int:
        """Watches that are open."""
        return len(self._watches)

    def cut_watches(self) -> None:
        """End every watch and its connection, as a load balancer does."""
        done = threading.Event()

        def cut() -> None:
            for watch in self._watches:
                watch.cancel()
            done.set()

        self._loop.call_soon_threadsafe(cut)
        assert done.wait(30)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as self._session:
            app = web.Application(client_max_size=16 * 1024**2)
            app.router.add_route("*", "/{path:.*}", self._pass)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            self.url = f"http://{host}:{port}"
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        if self.throttles(request.method, request.path):
            self.throttled.append(time.monotonic())
            text = "Too many requests, please try again later.\n"
            return web.Response(status=429, text=text, headers={"Retry-After": "1"})
        gate = self.gate
        effect = gate is not None and request.method != "GET" and "/leases" not in request.path
        if effect and gate is not None and not gate.enter():
            raise web.HTTPBadGateway
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() in ("authorization", "accept", "content-type", "user-agent")
        }
        asked = self._session.request(
            request.method,
            self._upstream + request.raw_path,
            headers=headers,
            data=await request.read() or None,
        )
        async with asked as answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name in ("content-type", "retry-after"):
                if name in answer.headers:
                    response.headers[name] = answer.headers[name]
            if "watch" not in request.query:
                body = await answer.read()
                if effect and gate is not None:
                    gate.leave()
                with contextlib.suppress(ConnectionError):  # the operator may be dead by now
                    await response.prepare(request)
                    await response.write(body)
                return response
            self.forgotten += answer.status == 410
            await response.prepare(request)
            watch = asyncio.ensure_future(self._stream(answer, response))
            self._watches.add(watch)
            try:
                await asyncio.wait([watch])
            finally:
                self._watches.discard(watch)
                watch.cancel()
            response.force_close()
            return response

    async def _stream(self, answer: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            async for chunk in answer.content.iter_any():
                self.forgotten += b'"code":410' in chunk
                await response.write(chunk)
