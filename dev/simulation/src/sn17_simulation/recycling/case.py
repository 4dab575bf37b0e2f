"""One case of the comparison: what fails, how much work there is, how long things take."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

WORKERS: Final = 4
JOBS: Final = 250
"""Jobs per worker that a run is long at full load; twice as many for the slowest leaks."""
SATURATED: Final = 1.0
REST: Final = 0.24
"""Share of the limit that a worker with one fresh process holds; the service's part is ``SERVICE``."""
SERVICE: Final = 0.03
FRESH_PEAK: Final = 0.21
"""Ballast of a model process."""
IMPORTS: Final = 4.5
"""Start of Python and torch with warm caches: measured."""
WARM_UP: Final = 8.0
CANARY: Final = 3.0
"""Device seconds: measured."""
SPAWN: Final = 0.2
RESTARTED: Final = 1.5
"""kubelet's part of a restart of a container, without its back-off."""
RESCHEDULED: Final = 20.0
PATIENCE: Final = 120.0
"""A task that has waited so long is gone."""
NOTICED: Final = 1.0
"""From the death of a worker to the next attempt elsewhere."""
BASE_ACCEPTANCE: Final = 0.7


class Fault(StrEnum):
    """What is wrong."""

    LEAK_0 = "leak 0 %"
    LEAK_02 = "leak 0.2 %"
    LEAK_15 = "leak 1.5 %"
    LEAK_5 = "leak 5 %"
    LEAK_10 = "leak 10 %"
    SERVICE_LEAK = "leak in the service"
    TMPFS_LEAK = "leak in tmpfs"
    DEVICE_LEAK = "leak on the device"
    FADING = "output falls, memory is fine"
    FADING_LEAK = "output falls as memory fills"
    BAD_CARD = "one bad card"
    BAD_ROLLOUT = "bad checkpoint rolled out"
    LOCKSTEP = "lockstep, no room for two"
    HUNG = "jobs that hang"


LEAKS: Final = {
    Fault.LEAK_02: 0.002,
    Fault.LEAK_15: 0.015,
    Fault.LEAK_5: 0.05,
    Fault.LEAK_10: 0.10,
    Fault.FADING_LEAK: 0.015,
    Fault.LOCKSTEP: 0.015,
}
"""Share of the limit that a generation leaves behind in the model process."""
OTHER_LEAK: Final = 0.008
"""The same for the service, tmpfs and the device."""
BIG_PEAK: Final = 0.42
"""Ballast of a process with both models: two do not fit."""
FADE: Final = 0.98
"""What is left of an asset's gaussians after each generation, where output falls."""
FADED_LEAST: Final = 0.14
HANGS_EVERY: Final = 400
BAD_CARD_ACCEPTANCE: Final = 0.0
"""What it makes looks right and is not."""
ROLLED_OUT_PART: Final = 0.1
"""Of the acceptance, with a bad checkpoint; its assets have ``ROLLED_OUT_SIZE`` of the gaussians."""
ROLLED_OUT_SIZE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Case:
    """What all arms have in common."""

    fault: Fault
    load: float
    load_seconds: float
    job_seconds: float
    seed: int = 0

    @property
    def leak(self) -> float:
        """Of the model process."""
        return LEAKS.get(self.fault, 0.0)

    @property
    def ballast(self) -> float:
        """Share of the limit that a model process holds from its start on."""
        return BIG_PEAK if self.fault is Fault.LOCKSTEP else FRESH_PEAK

    @property
    def rest(self) -> float:
        """A worker with one fresh process."""
        return SERVICE + self.ballast

    @property
    def seconds(self) -> float:
        """Length of the run."""
        slow = self.fault in (Fault.LEAK_0, Fault.LEAK_02)
        return JOBS * self.job_seconds * (2 if slow else 1)


@dataclass(slots=True)
class Result:
    """What an arm came to. Seconds are device seconds."""

    arm: str
    lost: float = 0.0
    """Not at a job that came to an end, while work was waiting."""
    jobs: int = 0
    accepted: float = 0.0
    """Expected, from each asset's quality."""
    interrupted: int = 0
    keys_lost: int = 0
    oom_kills: int = 0
    missed: int = 0
    recycles: dict[str, int] = field(default_factory=dict)
    hours: float = 0.0
    most_taken: int = 0

    @property
    def lost_per_1000(self) -> float:
        """Device seconds per 1,000 jobs."""
        return 1000.0 * self.lost / max(1, self.jobs)

    @property
    def accepted_per_hour(self) -> float:
        return self.accepted / self.hours

    def note(self, what: str) -> None:
        """Count an act."""
        self.recycles[what] = self.recycles.get(what, 0) + 1
