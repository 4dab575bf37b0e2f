"""uvicorn, with a time limit for request heads, own signals, and one server per thread and loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

ABORT_EXTENSION = "sn17.abort"
"""In the ASGI scope: drops the connection without waiting for a client that does not read."""

_BACKLOG = 512
_MAX_HEAD_BYTES = 64 * 1024


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 picks a free one.

    Host ``any`` is every address of the machine: IPv6 and IPv4 on one socket, IPv4 alone without IPv6.

    Raises:
        OSError: the address is taken or not ours; the message names it.
    """
    both = host == "any" and socket.has_dualstack_ipv6()
    host = host if host != "any" else "::" if both else "0.0.0.0"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; else answers wait 40 ms for ACKs.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if both:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    sock.setblocking(False)
    return sock


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def protocol_with_head_timeout(seconds: float) -> type[asyncio.Protocol]:
    """h11, closing connections whose request head is not complete in time."""

    class HeadTimeoutProtocol(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._await_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.scope is not None:
                extensions: dict[str, Any] = self.scope.setdefault("extensions", {})
                extensions[ABORT_EXTENSION] = self.transport.abort
            between = self.cycle is None or self.cycle.response_complete
            if self.conn.their_state is h11.IDLE and between and not self.transport.is_closing():
                self._await_head()
            else:
                self._head_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_complete()
            super().connection_lost(exc)

        def _await_head(self) -> None:
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(seconds, self.transport.abort)

        def _head_complete(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return HeadTimeoutProtocol


class Server(uvicorn.Server):
    """Leaves signals to the service, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Certificate chain and private key, both PEM."""

    certificate: Path
    key: Path

    def check(self) -> None:
        """Raises OSError, with the file's name, where a server could not start with them."""
        for file in (self.certificate, self.key):
            with file.open("rb"):
                pass
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self.certificate, self.key)
        except ssl.SSLError as error:
            raise OSError(f"{self.certificate} and {self.key} are no certificate with its key") from error


def make_server(
    app: ASGIApp,
    *,
    head_timeout: float,
    grace_seconds: float,
    lifespan: str = "auto",
    tls: TlsFiles | None = None,
) -> Server:
    protocol: Any = protocol_with_head_timeout(head_timeout)
    return Server(
        uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan=lifespan,  # type: ignore[arg-type]
            log_config=None,
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
            timeout_graceful_shutdown=max(1, round(grace_seconds)),
            ssl_certfile=None if tls is None else tls.certificate,
            ssl_keyfile=None if tls is None else tls.key,
        )
    )


class ThreadServer:
    """An application on a thread with a loop of its own: a busy main thread never fails a probe."""

    def __init__(self, app: ASGIApp, sock: socket.socket, *, head_timeout: float) -> None:
        self._server = make_server(app, head_timeout=head_timeout, grace_seconds=1, lifespan="off")
        self._sock = sock
        self._thread = threading.Thread(target=self._run, name="ops", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        self._server.should_exit = True
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            asyncio.run(self._server.serve([self._sock]))
        except Exception:
            logging.getLogger("sn17").exception("the ops server ended")
