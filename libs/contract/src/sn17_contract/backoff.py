"""How long a caller waits after failures in a row before it tries again."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

_MOST_DOUBLINGS: Final = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double from ``first`` to ``cap`` seconds, each longer or shorter by a share ``jitter``."""

    first: float
    cap: float
    jitter: float = 0.0

    def seconds(self, failures: int, rng: Random | None = None) -> float:
        """The pause after so many failures in a row, counted from 1. Without ``rng`` there is no jitter."""
        pause = min(self.cap, self.first * 2.0 ** min(max(0, failures - 1), _MOST_DOUBLINGS))
        if rng is None:
            return pause
        return pause * (1.0 + self.jitter * (2.0 * rng.random() - 1.0))
