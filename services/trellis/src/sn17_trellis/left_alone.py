"""For how long those who poll the worker expect to give it no job."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from sn17_contract.leave_alone import read_leave_alone

HEARD_SECONDS: Final = 30.0
"""A poller that has not been heard for so long may come at any moment."""


class LeftAlone:
    """The words of all pollers that are authenticated. Any thread may ask."""

    def __init__(
        self,
        token: Callable[[], str | None],
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._token = token
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._words: dict[str, tuple[float, float]] = {}

    def heard(self, header: str | None) -> None:
        """Take in the header of a poll; one that is missing, forged or old changes nothing."""
        token = self._token() if header is not None else None
        if header is None or not token:
            return
        said = read_leave_alone(header, token, self._clock())
        if said is None:
            return
        now = self._monotonic()
        with self._lock:
            self._words = {k: v for k, v in self._words.items() if now - v[0] < HEARD_SECONDS}
            self._words[said.poller] = (now, now + said.seconds)

    def seconds(self) -> float | None:
        """The least that any of them leaves it alone for from now on; None where nobody says so."""
        now = self._monotonic()
        with self._lock:
            words = list(self._words.values())
        left = [max(0.0, until - now) for at, until in words if now - at < HEARD_SECONDS]
        return min(left, default=None)
