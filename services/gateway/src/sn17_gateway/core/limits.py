"""Rates by client address, guesses of keys, and what a key may ask for."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sn17_contract.gateway import KeyKind

#: Addresses that one counter remembers; the ones seen longest ago are forgotten first.
MAX_ADDRESSES: Final = 65_536
DAY_SECONDS: Final = 86_400.0


class FixedWindow:
    """At most ``limit`` calls of one address in each window of ``seconds``; 0 is no limit."""

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._counts: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def take(self, address: str, now: float) -> float | None:
        """Count a call; where it is one too many, the seconds until the next window."""
        if not self._limit:
            return None
        window = math.floor(now / self._seconds)
        since, count = self._counts.pop(address, (window, 0))
        count = count + 1 if since == window else 1
        self._counts[address] = (window, count)
        if len(self._counts) > MAX_ADDRESSES:
            self._counts.popitem(last=False)
        return None if count <= self._limit else (window + 1) * self._seconds - now


class UnknownKeys:
    """Blocks look-ups of an address that guesses keys: ``limit`` misses within ``within`` seconds."""

    def __init__(self, limit: int, within: float, block: float) -> None:
        self._limit = limit
        self._within = within
        self._block = block
        self._misses: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._blocked: OrderedDict[str, float] = OrderedDict()

    def blocked(self, address: str, now: float) -> float | None:
        """Seconds left of the block, or None."""
        until = self._blocked.get(address)
        return until - now if until is not None and until > now else None

    def missed(self, address: str, now: float) -> float | None:
        """Count an unknown key; the seconds of the block that it starts, or None."""
        since, count = self._misses.pop(address, (now, 0))
        since, count = (since, count + 1) if now - since < self._within else (now, 1)
        if self._limit and count >= self._limit:
            self._blocked.pop(address, None)
            self._blocked[address] = now + self._block
            if len(self._blocked) > MAX_ADDRESSES:
                self._blocked.popitem(last=False)
            return self._block
        self._misses[address] = (since, count)
        if len(self._misses) > MAX_ADDRESSES:
            self._misses.popitem(last=False)
        return None


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a key may do; 0 is no limit. ``daily_by_address`` is for guests."""

    kind: KeyKind
    concurrent: int
    daily: int
    daily_by_address: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a key does now: open tasks, and tasks of the current day in all and by this address."""

    open: int
    today: int
    today_by_address: int


class OverLimit(StrEnum):
    """Codes of the answer 429."""

    CONCURRENT = "concurrent_limit"
    DAILY = "daily_limit"


def day_start(kind: KeyKind, now: float) -> float:
    """Since when tasks count for the day: midnight UTC for companies, else 24 hours ago."""
    return now - now % DAY_SECONDS if kind is KeyKind.COMPANY else now - DAY_SECONDS


def admit(allowance: Allowance, usage: Usage) -> OverLimit | None:
    """Whether one more task is too many, and by which limit."""
    if allowance.concurrent and usage.open >= allowance.concurrent:
        return OverLimit.CONCURRENT
    if allowance.daily and usage.today >= allowance.daily:
        return OverLimit.DAILY
    if allowance.daily_by_address and usage.today_by_address >= allowance.daily_by_address:
        return OverLimit.DAILY
    return None
