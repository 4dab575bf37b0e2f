"""The worker's own memory guard: it stands when no operator does.

Pure decisions over a reading and a clock; the runner carries them out.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sn17_files import write_atomically
from sn17_service import MemoryReading

log = logging.getLogger("sn17.trellis.guard")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Shares of the limit, judged on memory that cannot be reclaimed."""

    cleanup: float
    refuse: float


class Guard:
    """Clean up from the first threshold on, refuse from the second on. Unknown memory never refuses."""

    def __init__(
        self,
        thresholds: Thresholds,
        *,
        enabled: bool,
        read: Callable[[], MemoryReading | None],
        cleanup: Callable[[], None],
        monotonic: Callable[[], float],
        resting: Callable[[], bool] = lambda: False,
    ) -> None:
        self._thresholds = thresholds
        self._resting = resting
        self._enabled = enabled
        self._read = read
        self._cleanup = cleanup
        self._monotonic = monotonic
        self._refusing_since: float | None = None
        self._without_limit = False

    @property
    def refusing_since(self) -> float | None:
        """Monotonic time since when generations are refused, None while they are not."""
        return self._refusing_since

    def new_life(self) -> None:
        """Another model process serves: what the last one held is gone."""
        self._refusing_since = None

    def check(self, *, clean: bool = True) -> str | None:
        """Before a generation: None to go on, else the reason to refuse.

        Without ``clean`` only the level is looked at: enough to notice that memory came back. Nothing is
        refused while two model processes live, for the level then says nothing of either.
        """
        if not self._enabled or self._resting():
            return None
        ratio = self._ratio()
        if clean and ratio >= self._thresholds.cleanup:
            self._cleanup()
            before, ratio = ratio, self._ratio()
            log.info("cleaned up", extra={"ratio_before": round(before, 3), "ratio": round(ratio, 3)})
        if ratio < self._thresholds.refuse:
            if self._refusing_since is not None:
                log.info("takes work again", extra={"ratio": round(ratio, 3)})
            self._refusing_since = None
            return None
        if self._refusing_since is None:
            self._refusing_since = self._monotonic()
            log.warning(
                "refuses work", extra={"ratio": round(ratio, 3), "threshold": self._thresholds.refuse}
            )
        return (
            f"{ratio:.0%} of the memory limit cannot be reclaimed (threshold: {self._thresholds.refuse:.0%})"
        )

    def _ratio(self) -> float:
        reading = self._read()
        if reading is None:
            return 0.0
        if (reading.ratio is None) != self._without_limit:
            self._without_limit = not self._without_limit
            if self._without_limit:
                log.warning("no memory limit is known: the guard does nothing; set SN17_MEMORY_LIMIT_BYTES")
            else:
                log.info("a memory limit is known: the guard is on", extra={"limit_bytes": reading.limit})
        return reading.ratio or 0.0


class SelfRecycle:
    """When a worker that refuses, alone with it for long, ends itself; the last time is kept on disk.

    The interval stands between two ends of which the first one changed nothing: it keeps a worker that no
    new container helps from ending again and again. One that has made assets since was helped, and ends as
    soon as memory is full again.
    """

    def __init__(
        self, path: Path, *, after_seconds: float, interval_seconds: float, clock: Callable[[], float]
    ) -> None:
        self._path = path
        self._after = after_seconds
        self._interval = interval_seconds
        self._clock = clock
        self._withheld = self._helped = False
        self.count, self._last = self._load()

    def helped(self) -> None:
        """An asset was made, and there is memory for the next one."""
        self._helped = True

    def due(self, seconds_alone: float, *, refusing: bool, leaks: bool = False) -> bool:
        """True, once, when it is time; ``seconds_alone`` is since the last job or admin call.

        ``leaks``: because of memory that this process holds, which its end frees. A volume in memory outlives
        the container: there, and for a broken device, the interval stands.
        """
        if not refusing or seconds_alone < self._after:
            return False
        now = self._clock()
        cured = leaks and self._helped
        if not cured and self._last is not None and 0 <= now - self._last < self._interval:
            if not self._withheld:
                log.warning("would end itself, but did so too recently")
            self._withheld = True
            return False
        self.count += 1
        self._last = now
        self._helped = False
        try:
            write_atomically(self._path, json.dumps({"count": self.count, "last": now}).encode())
        except OSError as error:
            log.warning("could not write %s: %s", self._path.name, error)
        return True

    def _load(self) -> tuple[int, float | None]:
        try:
            value = json.loads(self._path.read_bytes())
            return int(value["count"]), float(value["last"])
        except FileNotFoundError:
            return 0, None
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning(
                "the self-recycle book %s is unreadable, starting a new one: %s", self._path.name, error
            )
            return 0, None


class Headroom:
    """The growth of unreclaimable memory over a generation, by looking at each step."""

    def __init__(self, read: Callable[[], MemoryReading | None]) -> None:
        self._read = read
        reading = read()
        self._before = reading.unreclaimable if reading else 0
        self._growth = 0

    def look(self) -> None:
        reading = self._read()
        if reading is not None:
            self._growth = max(self._growth, reading.unreclaimable - self._before)

    def say(self, refuse_ratio: float) -> None:
        """Log the highest ratio that a generation allowed by the guard can reach."""
        reading = self._read()
        if reading is None or reading.limit is None:
            return
        worst = refuse_ratio + self._growth / reading.limit
        extra = {"growth_bytes": self._growth, "limit_bytes": reading.limit, "worst_ratio": round(worst, 3)}
        if worst >= 1:
            log.warning(
                "a generation can pass the memory limit from below the refusal threshold", extra=extra
            )
        else:
            log.info("a generation fits above the refusal threshold", extra=extra)
