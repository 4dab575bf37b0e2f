"""Whose request it is: the address behind trusted proxies, and one spelling for each path."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ClientAddress:
    """The last address of X-Forwarded-For that is not a trusted proxy's, else the connection's."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted: list[Network] = [ipaddress.ip_network(item) for item in trusted]

    def of(self, peer: str, forwarded: str) -> str:
        """``peer`` is the connection's address, ``forwarded`` the header or an empty text."""
        address = peer
        for hop in reversed([item.strip() for item in forwarded.split(",")]):
            if not self._is_trusted(address):
                break
            try:
                address = str(ipaddress.ip_address(hop))
            except ValueError:
                break
        return address

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)


class TolerantPaths:
    """ASGI middleware: a trailing slash and a doubled leading one are the same route."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if path.startswith("//"):
                path = path[1:]
            if len(path) > 1 and path.endswith("/"):
                path = path[:-1]
            if path != scope["path"]:
                scope = {**scope, "path": path, "raw_path": path.encode("utf-8", "surrogateescape")}
        await self._app(scope, receive, send)
