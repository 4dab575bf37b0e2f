"""What a validator's answers prove about the distance between its clock and ours.

Every piece of evidence is an interval that must hold the offset ``theirs - ours``. Intervals are intersected;
they widen slowly, since clocks drift, and a contradiction (a stepped clock) starts over from the newest.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import Final

DRIFT: Final = 5e-5
"""Seconds per second by which what is known about an offset ages: the usual bound of quartz."""

DATE_SPAN: Final = 2.2
"""The ``Date`` header counts whole seconds and servers refresh it about once a second."""


@dataclass(slots=True)
class Offset:
    """Bounds in seconds on ``validator's clock - our clock``."""

    low: float = -inf
    high: float = inf
    updated: float = 0.0
    dates: bool = True
    """Whether ``Date`` headers are believed: not any more once one of them made us too early."""

    def learn(self, now: float, low: float, high: float) -> None:
        """Intersect with the interval ``[low, high]`` observed at our time ``now``."""
        aged = max(0.0, now - self.updated) * DRIFT
        self.low, self.high, self.updated = max(self.low - aged, low), min(self.high + aged, high), now
        if self.low > self.high:
            self.low, self.high = low, high

    def date_header(self, sent: float, received: float, date: float) -> None:
        """An answer whose ``Date`` was ``date``, to a call between ``sent`` and ``received``."""
        if self.dates:
            self.learn(received, date - received, date + DATE_SPAN - sent)

    def not_before(self, sent: float, received: float, moment: float) -> None:
        """During the call their clock had reached ``moment`` (a cooldown was over)."""
        self.learn(received, moment - received, inf)

    def before(self, sent: float, received: float, moment: float) -> None:
        """During the call their clock had not reached ``moment`` (a cooldown was not over)."""
        self.dates = self.dates and self.low <= moment - sent
        self.learn(received, -inf, moment - sent)

    @property
    def estimate(self) -> float:
        """The offset to act on: zero unless disproved, then the end that does not wake us too early; where
        only the other end is known, one resolution of the evidence below it.
        """
        if self.low > 0.0:
            return self.low
        if self.high < 0.0:
            return self.low if isfinite(self.low) else self.high - DATE_SPAN
        return 0.0

    def ours(self, theirs: float) -> float:
        """Our time at which their clock shows ``theirs``."""
        return theirs - self.estimate
