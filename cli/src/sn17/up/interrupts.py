"""What Ctrl-C, SIGTERM and their repetition mean: the first ends the run in order, the second at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sn17.interrupts import handled_by

T = TypeVar("T")


class InterruptedRunError(Exception):
    """A signal came before the run had begun."""


@dataclass(slots=True)
class Interrupts:
    """``stop`` after the first signal, ``now`` after the second."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    now: asyncio.Event = field(default_factory=asyncio.Event)

    def signalled(self) -> None:
        """Note a signal."""
        (self.now if self.stop.is_set() else self.stop).set()

    async def unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``, which is cancelled when a signal comes.

        Raises:
            InterruptedRunError: a signal came first.
        """
        task = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self.stop.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise InterruptedRunError
        finally:
            stopping.cancel()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


@contextlib.contextmanager
def listening() -> Iterator[Interrupts]:
    """Signals of the terminal and of service managers go to the result while it is held."""
    interrupts, loop = Interrupts(), asyncio.get_running_loop()

    def signalled(_: int) -> None:
        loop.call_soon_threadsafe(interrupts.signalled)

    with handled_by(signalled):
        yield interrupts
