"""Keeps the last good snapshot, over restarts too, and says how old it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from sn17_contract.backoff import Backoff
from sn17_files import write_atomically
from sn17_protocol import ChainSnapshot

from sn17_miner.chain.source import ChainError, ChainSource, parse_snapshot

_log = logging.getLogger("sn17.miner.chain")

_FIRST_RETRY: Final = 2.0
_JITTER: Final = 0.1


@dataclass(slots=True)
class ChainFeed:
    """``interval`` seconds between reads; failures are retried sooner, with back-off and jitter."""

    source: ChainSource
    store: Path
    netuid: int
    interval: float
    clock: Callable[[], float]
    rng: Random
    on_snapshot: Callable[[ChainSnapshot], None] = lambda snapshot: None
    snapshot: ChainSnapshot | None = None
    error: str | None = "not read yet"

    def load(self) -> None:
        """Start from the snapshot of the last life, if there is one."""
        try:
            self._take(parse_snapshot(self.store.read_bytes(), self.netuid))
        except FileNotFoundError:
            return
        except (OSError, ChainError) as error:
            _log.warning("the stored snapshot is not used: %s", error)

    async def run(self) -> None:
        """Read for ever; never raises for a source that fails."""
        failures = 0
        again = Backoff(_FIRST_RETRY, self.interval, _JITTER)
        regular = Backoff(self.interval, self.interval, _JITTER)
        while True:
            try:
                snapshot = self._believed(await self.source.read())
                await asyncio.to_thread(write_atomically, self.store, snapshot.model_dump_json().encode())
            except (ChainError, OSError) as error:
                failures += 1
                self.error = str(error)
                level = logging.WARNING if failures == 1 else logging.DEBUG
                _log.log(level, "no chain snapshot: %s", error, extra={"failures": failures})
            else:
                if failures:
                    _log.info("the chain answers again", extra={"failures": failures})
                failures, self.error = 0, None
                self._take(snapshot)
            await asyncio.sleep((again if failures else regular).seconds(failures, self.rng))

    @property
    def age(self) -> float | None:
        """Seconds since the snapshot was taken; None before the first."""
        return None if self.snapshot is None else max(0.0, self.clock() - self.snapshot.taken_at)

    def _believed(self, snapshot: ChainSnapshot) -> ChainSnapshot:
        """Raises ChainError for a subnet that has lost all its neurons at once: that is a node which has just
        started. Believing it would forget every validator's cooldown.
        """
        if not snapshot.neurons and self.snapshot is not None and self.snapshot.neurons:
            raise ChainError(f"the snapshot of block {snapshot.block} names no neuron, the one before did")
        return snapshot

    def _take(self, snapshot: ChainSnapshot) -> None:
        self.snapshot = snapshot
        self.on_snapshot(snapshot)
