"""The one loop: a tick every period, earlier when a watch wakes it, and a heartbeat per finished tick."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from .ports import Refused
from .telemetry import Telemetry

log = logging.getLogger("sn17.operator")

SETTLE_SECONDS = 1.0


class Waker:
    """Lets watches end the wait between two ticks early."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def __call__(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Until woken, ``seconds`` at most. Changes come in bursts, so the burst is let through first."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
        await asyncio.sleep(min(SETTLE_SECONDS, seconds))
        self._event.clear()


async def run_ticks(
    tick: Callable[[], Awaitable[None]],
    waker: Waker,
    telemetry: Telemetry,
    beat: Callable[[], None],
    *,
    period: float,
    monotonic: Callable[[], float],
) -> None:
    """Tick for ever. A tick that fails is told and tried again; only one that is finished counts as alive."""
    while True:
        started = monotonic()
        try:
            async with asyncio.timeout(4 * period):
                await tick()
        except Refused as error:
            # The API server answered, or did not: the loop itself is well.
            log.warning("tick: %s", error)
            beat()
        except TimeoutError:
            log.error("a tick took longer than %.0f s and was given up", 4 * period)
        except Exception:
            log.exception("tick failed")
        else:
            beat()
        telemetry.ticked(monotonic() - started)
        await waker.wait(period)
