"""The miner's time constants and thresholds, in one place, scalable by one factor."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

_UNSCALED: Final = frozenset(
    {"cooldown_margin", "stall", "worker_lost", "worker_rest", "fixer_rest"}
    | {"min_stake", "jitter", "max_seeds"}
)
"""What depends on machines and not on validators, and what is no time."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, except where a name says otherwise. The first group repeats what validators are configured
    with by default; the miner learns the real values from their answers as far as those tell them.
    """

    base_cooldown: float = 300.0
    penalty: float = 600.0
    throttle: float = 30.0
    lock: float = 30.0
    evidence_half_life: float = 24 * 3600.0
    """In which a verdict loses half its weight for the quality gate."""

    cooldown_margin: float = 0.05
    """A pull arrives this much after the cooldown at the earliest; a property of clocks, never scaled."""
    longest_cooldown: float = 86400.0
    unregistered_wait: float = 3600.0
    """What a validator tells a hotkey it does not know."""
    unregistered_retry: float = 600.0
    no_task_rest: float = 10.0
    failure_rest: float = 5.0
    longest_rest: float = 300.0
    task_deadline: float = 600.0
    submit_deadline: float = 3600.0
    stall: float = 30.0
    worker_lost: float = 10.0
    worker_rest: float = 15.0
    fixer_rest: float = 1.0

    min_stake: float = 1000.0
    jitter: float = 0.2
    max_seeds: int = 3

    def scaled(self, factor: float) -> Timing:
        """The constants of the protocol multiplied by ``factor``: for a network that runs in fast motion."""
        times = {f.name: getattr(self, f.name) * factor for f in fields(self) if f.name not in _UNSCALED}
        return replace(self, **times)
