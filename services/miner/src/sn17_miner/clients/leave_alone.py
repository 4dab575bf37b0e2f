"""Tells a worker, with each status poll, how long it will get no job from this miner."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from sn17_contract.leave_alone import HEADER_LEAVE_ALONE, LeaveAlone

from sn17_miner.core.scheduler import Lane

MOST_SECONDS: Final = 3600

_log = logging.getLogger("sn17.miner.workers")


def until_next_pull(lanes: Iterable[Lane], now: float) -> float | None:
    """Seconds until a validator may be asked for a task at the earliest; None without any that will be.

    A validator whose task is under way has a worker, and a cooldown afterwards.
    """
    times = [lane.next_pull for lane in lanes if lane.next_pull is not None]
    return max(0.0, min(times) - now) if times else None


class LeaveAloneHeader:
    """``expected`` gives the seconds from now, None where they are not known: then nothing is said.

    Signed with the token of ``token_file``, read anew each time; without one nothing is said either.
    """

    def __init__(
        self,
        token_file: Path | None,
        poller: str,
        expected: Callable[[], float | None],
        clock: Callable[[], float],
    ) -> None:
        self._token_file = token_file
        self._poller = poller
        self._expected = expected
        self._clock = clock

    def __call__(self) -> Mapping[str, str]:
        seconds = self._expected()
        if seconds is None or self._token_file is None:
            return {}
        try:
            token = self._token_file.read_text().strip()
        except OSError as error:
            _log.debug("the admin token cannot be read: %s", error.strerror)
            return {}
        if not token:
            return {}
        said = LeaveAlone(self._poller, min(MOST_SECONDS, int(seconds)), int(self._clock()))
        return {HEADER_LEAVE_ALONE: said.header(token)}
