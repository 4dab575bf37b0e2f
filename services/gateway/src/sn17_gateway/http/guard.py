"""Who may do what how often: limits by address, client keys, workers' signatures."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Final

from fastapi import Request
from sn17_contract.gateway import HEADER_KEY, KeyKind
from sn17_protocol.gateway import check_signature, timestamp_seconds

from sn17_gateway.core.limits import DAY_SECONDS, Allowance, FixedWindow, UnknownKeys
from sn17_gateway.gateway import Gateway
from sn17_gateway.http.address import ClientAddress
from sn17_gateway.http.errors import Refusal, TooManyRequests, bad_request, limited
from sn17_gateway.keys import KEY_FORMAT

_MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key came with a request; ``owner`` is None for guests."""

    owner: str | None
    allowance: Allowance
    tags: frozenset[str]


class Guard:
    """Limits are counted in this process: each replica has its own."""

    def __init__(self, gateway: Gateway) -> None:
        settings = gateway.settings
        self._gateway = gateway
        self._settings = settings
        self._address = ClientAddress(settings.trusted_proxies)
        self.add_task = FixedWindow(settings.rate_add_task, _MINUTE)
        self.get_status = FixedWindow(settings.rate_get_status, _MINUTE)
        self.get_result = FixedWindow(settings.rate_get_result, _MINUTE)
        self.get_tasks = FixedWindow(settings.rate_get_tasks, _MINUTE)
        self.results = FixedWindow(settings.rate_results, _MINUTE)
        self._unauthorized = FixedWindow(settings.unauthorized_daily, DAY_SECONDS)
        self._unknown = UnknownKeys(
            settings.unknown_key_limit, settings.unknown_key_seconds, settings.unknown_key_block_seconds
        )

    def address(self, request: Request) -> str:
        peer = request.client.host if request.client else ""
        return self._address.of(peer, request.headers.get("x-forwarded-for", ""))

    def count(self, request: Request, window: FixedWindow) -> None:
        """Raises TooManyRequests."""
        wait = window.take(self.address(request), self._gateway.clock())
        if wait is not None:
            raise TooManyRequests(wait)

    async def caller_of_add_task(self, request: Request) -> Caller:
        """Like :meth:`caller`; calls without a valid key have a limit by day. Raises Refusal."""
        try:
            return await self.caller(request)
        except Refusal:
            wait = self._unauthorized.take(self.address(request), self._gateway.clock())
            if wait is not None:
                raise limited(
                    "unauthorized_daily_limit", "Too many calls without a valid key today", wait
                ) from None
            raise

    async def caller(self, request: Request) -> Caller:
        """The owner of ``x-api-key``. Raises Refusal: 401, 400, or 429 for an address that guesses."""
        text = request.headers.get(HEADER_KEY)
        if text is None:
            raise Refusal(401, "Missing API key")
        if not KEY_FORMAT.fullmatch(text):
            raise bad_request("the API key must be a UUID with hyphens")
        settings = self._settings
        generic = settings.generic_key
        if generic is not None and uuid.UUID(text) == uuid.UUID(generic.get_secret_value()):
            allowance = Allowance(
                KeyKind.GENERIC,
                settings.guest_concurrent,
                settings.guest_daily,
                settings.guest_daily_by_address,
            )
            return Caller(None, allowance, frozenset())
        key = await self._gateway.keys.find(text)
        if key is not None:
            return Caller(key.id, key.allowance, key.tags)
        address, now = self.address(request), self._gateway.clock()
        wait = self._unknown.blocked(address, now)
        if wait is not None:
            raise limited("invalid_api_key_rate_limit", "Too many unknown API keys", wait)
        if self._unknown.missed(address, now) is not None:
            self._gateway.service.log.warning("key look-ups blocked", extra={"address": address})
        raise Refusal(401, "Unknown API key")

    def worker(self, hotkey: str, signature: str, timestamp: str) -> None:
        """Raises Refusal unless this hotkey may work here and has signed a fresh time."""
        if self._settings.worker_hotkeys and hotkey not in self._settings.worker_hotkeys:
            raise Refusal(401, "this hotkey is not on the gateway's list")
        if timestamp_seconds(timestamp) is None:
            raise bad_request("Invalid timestamp format: must be 404_GATEWAY_ and unix seconds")
        bad = check_signature(hotkey, signature, timestamp, self._gateway.clock())
        if bad is not None:
            raise Refusal(401, bad.value)
