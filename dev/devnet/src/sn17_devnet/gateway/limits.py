"""Rates by client address and guesses of keys, as the nodes share them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Final

MINUTE: Final = 60.0
GUESSES: Final = 50
GUESS_SECONDS: Final = 600.0
BLOCK_SECONDS: Final = 300.0


class Window:
    """At most ``limit`` calls of an address in each fixed window; 0 is no limit."""

    def __init__(self, limit: int, seconds: float, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._seconds = seconds
        self._clock = clock
        self._number = -1
        self._counts: Counter[str] = Counter()

    def exceeded(self, address: str) -> bool:
        """Count one call; whether it is one too many."""
        number = int(self._clock() // self._seconds)
        if number != self._number:
            self._number = number
            self._counts.clear()
        self._counts[address] += 1
        return bool(self._limit) and self._counts[address] > self._limit


class Guesses:
    """Unknown keys by address: after 50 within 600 seconds, 300 seconds without a look-up."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._misses: defaultdict[str, list[float]] = defaultdict(list)
        self._blocked: dict[str, float] = {}

    def blocked(self, address: str) -> bool:
        return self._clock() < self._blocked.get(address, 0.0)

    def missed(self, address: str) -> None:
        now = self._clock()
        misses = [at for at in self._misses[address] if now - at < GUESS_SECONDS]
        self._misses[address] = [*misses, now]
        if len(misses) + 1 >= GUESSES:
            self._blocked[address] = now + BLOCK_SECONDS
            del self._misses[address]
