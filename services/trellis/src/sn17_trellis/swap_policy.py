"""When a worker swaps its model process by itself: the operator is away, or nothing is lost by it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sn17_contract.worker import BY_GUARD

from sn17_trellis.model_process.room import Terms, no_room, not_worth_it

JITTER: Final = 0.5
"""Share of the patience that is added at random, so that equal workers do not act together."""


class SwapPolicy:
    """Asked after jobs and at idle ticks; ``random`` gives numbers in [0, 1)."""

    def __init__(self, *, after_seconds: float, idle_seconds: float, random: Callable[[], float]) -> None:
        self._after = after_seconds
        self._idle = idle_seconds
        self._random = random
        self.new_life()

    def new_life(self) -> None:
        """Another model process serves."""
        self._above_since: float | None = None
        self._patience = self._after * (1 + JITTER * self._random())
        self._idled = False

    def due(
        self,
        terms: Terms | None,
        used: int,
        *,
        now: float,
        idle_for: float,
        alone_for: float | None = None,
        job_next: bool = False,
    ) -> str | None:
        """The reason to swap now, or None. It says idle once a life.

        ``alone_for``: for how many seconds those who send jobs expect to send none, None where nobody says
        so. Known, it decides whether the worker is idle for long enough; else how long it has been idle does.

        Above the threshold the operator has its time, unless a job is about to begin after which a swap
        would not fit any more.
        """
        if terms is None or not_worth_it(terms, used) is not None:
            self._above_since = None
            return None
        if used >= terms.due:
            if self._above_since is None:
                self._above_since = now
            if job_next and no_room(terms, used + terms.growth) is not None:
                return f"{BY_GUARD}after one more generation a swap would not fit"
            if now - self._above_since >= self._patience:
                why = ", from which on assets get smaller" if terms.due < terms.threshold else ""
                return f"{BY_GUARD}above the swap threshold{why} for {now - self._above_since:.0f} s"
            return None
        self._above_since = None
        quiet = idle_for >= self._idle if alone_for is None else alone_for >= terms.swap_seconds
        if self._idle and not self._idled and idle_for > 0 and quiet and used > terms.half_way:
            self._idled = True
            return f"{BY_GUARD}idle, and above half way to the swap threshold"
        return None
