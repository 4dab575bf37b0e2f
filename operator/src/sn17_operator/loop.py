"""The one loop: a tick every period, earlier when a watch wakes it, and a heartbeat per finished tick."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Awaitable, Callable, Iterator

from sn17_operator.ports import Refused
from sn17_operator.telemetry import Telemetry

log = logging.getLogger("sn17.operator")

SETTLE_SECONDS = 1.0
LEAST_LIMIT_SECONDS = 30.0
"""However short the period: a tick must outlive calls to workers that do not answer, or nothing is done about
them for ever.
"""


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


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """Put cyclic garbage collection off until a tick is over.

    A tick makes some sixty objects per worker, in no cycles, which reference counting frees. The collector
    would walk through all of them again and again: at 10,000 workers that took a third of the tick.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def tick_limit(period: float) -> float:
    """Seconds after which a tick is given up."""
    return max(4 * period, LEAST_LIMIT_SECONDS)


async def run_ticks(
    tick: Callable[[], Awaitable[None]],
    waker: Waker,
    telemetry: Telemetry,
    beat: Callable[[], None],
    *,
    period: float,
    monotonic: Callable[[], float],
    limit: float | None = None,
) -> None:
    """Tick for ever. A tick that fails is told and tried again; only one that is finished counts as alive.

    ``limit``: seconds after which a tick is given up, ``tick_limit`` by default.
    """
    limit = tick_limit(period) if limit is None else limit
    while True:
        started = monotonic()
        try:
            with gc_paused():
                async with asyncio.timeout(limit):
                    await tick()
        except Refused as error:
            # The API server answered, or did not: the loop itself is well.
            log.warning("tick: %s", error)
            beat()
        except TimeoutError:
            log.error("a tick took longer than %.0f s and was given up", limit)
        except Exception:
            log.exception("tick failed")
        else:
            beat()
        telemetry.ticked(monotonic() - started)
        await waker.wait(period)
