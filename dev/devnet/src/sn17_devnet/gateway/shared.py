"""What the nodes of one gateway share: keys, limits, states and node infos, but no tasks."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from sn17_contract.gateway import GatewayInfo, KeyKind

from sn17_devnet.gateway.answers import NoHandler
from sn17_devnet.gateway.database import DAY_SECONDS, Database
from sn17_devnet.gateway.limits import MINUTE, Guesses, Window
from sn17_devnet.gateway.model import ClientKey
from sn17_devnet.gateway.settings import FakeGatewaySettings


@dataclass(slots=True)
class Limits:
    """Counted over all nodes."""

    add_task: Window
    get_status: Window
    results: Window
    unauthorized: Window
    guesses: Guesses


class Shared:
    """``infos`` lists the nodes as any of them does."""

    def __init__(
        self,
        settings: FakeGatewaySettings,
        clock: Callable[[], float],
        infos: Callable[[], list[GatewayInfo]],
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.infos = infos
        self.database = Database(clock)
        self.limits = Limits(
            Window(settings.rate_add_task, MINUTE, clock),
            Window(settings.rate_get_status, MINUTE, clock),
            Window(settings.rate_results, MINUTE, clock),
            Window(settings.unauthorized_daily, DAY_SECONDS, clock),
            Guesses(clock),
        )
        self.guests = ClientKey(
            text=None,
            kind=KeyKind.GENERIC,
            concurrent=settings.guest_concurrent,
            daily=settings.guest_daily,
            daily_by_address=settings.guest_daily_by_address,
        )
        keys = [
            ClientKey(
                text=known.key.get_secret_value(),
                kind=known.kind,
                concurrent=known.concurrent,
                daily=known.daily,
                tags=frozenset(known.tags),
            )
            for known in settings.keys
        ]
        self.keys = {key.text: key for key in keys}
        self._random = random.Random(settings.seed)

    def count(self, address: str, window: Window) -> None:
        """Raises NoHandler: this address has called too often."""
        if window.exceeded(address):
            raise NoHandler(429)

    def new_id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def draw_seed(self) -> int:
        """What a task without a seed gets; never -1."""
        return self._random.randrange(2**31)

    @property
    def ip(self) -> str:
        """The address that workers are told."""
        host = self.settings.host
        return self.settings.advertise_ip or ("127.0.0.1" if host in ("0.0.0.0", "::", "any") else host)
