"""A server of the local network that can be gone for a while: it restarts as a process does that crashed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

from aiohttp import web
from sn17_service.server import listen

KEEP_ALIVE_SECONDS: Final = 5.0
"""Idle connections are closed after it, as real validators do: a session kept over a generation is dead."""

HEAD_SECONDS: Final = 10.0
"""A connection whose first request has no complete head by then is cut: slow senders do not occupy it."""

REBIND_SECONDS: Final = 0.2

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Every path goes to ``handle``; ``load`` makes the state anew, before each start.

    ``port`` 0 picks a free one at the first start, which is kept.
    """

    def __init__(
        self,
        handle: Handler,
        *,
        host: str,
        port: int,
        max_body_bytes: int,
        load: Callable[[], None],
        log: logging.Logger,
        head_timeout: float = HEAD_SECONDS,
        keep_alive: float = KEEP_ALIVE_SECONDS,
    ) -> None:
        self.port = port
        self.up = asyncio.Event()
        self._handle = handle
        self._host = host
        self._max_body_bytes = max_body_bytes
        self._load = load
        self._log = log
        self._head_timeout = head_timeout
        self._keep_alive = keep_alive
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._silent: set[web.RequestHandler] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._restarting = False

    async def start(self) -> None:
        """Load and listen.

        Raises:
            OSError: the port is taken.
        """
        self._load()
        app = web.Application(client_max_size=self._max_body_bytes)
        app.router.add_route("*", "/{path:.*}", self._heard)
        runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=self._keep_alive,
            handle_signals=False,
            shutdown_timeout=0.1,
            max_field_size=64 * 1024,
        )
        await runner.setup()
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(
                lambda: self._connection(runner), sock=listen(self._host, self.port)
            )
        except OSError:
            await runner.cleanup()
            raise
        self.port = self._listener.sockets[0].getsockname()[1]
        self._runner = runner
        self.up.set()

    async def stop(self) -> None:
        """Cut every connection and stop listening, as in a crash."""
        self.up.clear()
        runner, self._runner = self._runner, None
        if runner is None:
            return
        if self._listener is not None:
            self._listener.close()
        for connection in list(runner.server.connections if runner.server else ()):
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()

    async def restart(self, seconds: float) -> None:
        """Be gone for ``seconds``, then load and listen again. One at a time."""
        if self._restarting:
            return
        self._restarting = True
        try:
            self._log.info("restarting", extra={"seconds": seconds})
            await self.stop()
            await asyncio.sleep(seconds)
            while not self.up.is_set():
                try:
                    await self.start()
                except OSError as error:
                    # A connection of somebody else's may have been given the port in the meantime.
                    self._log.warning("cannot listen yet: %s", error)
                    await asyncio.sleep(REBIND_SECONDS)
        finally:
            self._restarting = False

    def restart_soon(self, seconds: float) -> None:
        """Restart without waiting for it."""
        task = asyncio.get_running_loop().create_task(self.restart(seconds))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def close(self) -> None:
        """Stop for good, also in the middle of a restart."""
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.stop()

    async def _heard(self, request: web.Request) -> web.StreamResponse:
        self._silent.discard(request.protocol)
        return await self._handle(request)

    def _connection(self, runner: web.AppRunner) -> web.RequestHandler:
        """The server's protocol for a new connection, and a limit on its wait for the first request.

        The server itself limits only what comes after it (``keep_alive``).
        """
        assert runner.server is not None
        protocol = runner.server()
        self._silent.add(protocol)
        asyncio.get_running_loop().call_later(self._head_timeout, self._cut_if_silent, protocol)
        return protocol

    def _cut_if_silent(self, protocol: web.RequestHandler) -> None:
        if protocol in self._silent:
            self._silent.discard(protocol)
            protocol.force_close()


def cut(request: web.Request) -> NoReturn:
    """Reset the connection: the client gets no answer."""
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError
