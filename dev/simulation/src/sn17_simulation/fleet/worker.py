"""One worker: a pod, the processes in it, and what is wrong with them. Shares are of the memory limit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from sn17_contract.http import LeaseOwner
from sn17_contract.worker import RecycleHow, RecycleOutcome
from sn17_operator.core.model import Pod, RecycleResult
from sn17_trellis.model_process.fading import Costs, Fading, best

TICK: Final = 15.0
WARMUP_SECONDS: Final = 40.0
RESTART_SECONDS: Final = 10.0
RESCHEDULE_SECONDS: Final = 20.0
GIB: Final = 1024.0**3
LIMIT: Final = 12 * GIB
START: Final = 1_700_000_000.0
JOB_SECONDS: Final = 20.0
FRESH: Final = 0.21
GUARD: Final = 0.88
SWAP_THRESHOLD: Final = 0.65
SWAP_SECONDS: Final = 35.0
REPLACE_SECONDS: Final = 25.0
AT_REST: Final = 0.3
SWAP_ON_DEVICE: Final = 11.0
"""Seconds of a swap that need the device."""


@dataclass
class SimWorker:
    """One pod with its process."""

    pod: Pod
    boot: int = 0
    memory: float = AT_REST
    leak: float = 0.0
    """Share of the limit that each finished job adds."""
    gaussians: float = 350_000.0
    generations: int = 0
    fading: bool = False
    sizes: Fading = field(default_factory=Fading)
    """What the worker learned of its assets as memory fills."""
    hung: bool = False
    deaf: bool = False
    """Nothing answers: neither scrape nor admin."""
    stubborn: bool = False
    """Ignores the request to exit."""
    canary_passes: bool = True
    canary_output: str = ""
    """Checkpoint and output of its canary, as digests; older images do not tell."""
    cleanup_helps: bool = False
    left_over: float = 0.0
    """Share of the limit that stays in the pod when its container is restarted."""
    bad_checkpoint: bool = False
    """Every canary after the next restart drifts."""
    back_off: float = 0.0
    """Seconds that kubelet waits before the next restart."""
    mute_seconds: float = 0.0
    """Seconds that a new process needs before it can be scraped."""
    says: str = ""
    """Why the worker itself says that it is degraded."""
    job_until: float | None = None
    progress: float = START
    ready_at: float = START
    restart_at: float | None = None
    gone_at: float | None = None
    leaving: bool = False
    """Was told to end: finishes its job, takes no other, and goes."""
    leases: dict[LeaseOwner, float | None] = field(default_factory=dict)
    cordoned_since: float | None = None
    lives: bool = False
    """The model is a process of its own; older images are one process."""
    life: int = 0
    room: bool = True
    promises_room: bool = False
    """Its metrics say that a second process fits whatever it answers, as a sample that is too old does."""
    swap_until: float | None = None
    start_seconds: float = REPLACE_SECONDS
    """What a model process takes until it is ready where none was before."""
    swap_how: RecycleHow = RecycleHow.SWAP
    swap_outcome: RecycleOutcome = RecycleOutcome.DONE
    swap_verify: bool = False
    last_swap: tuple[str, RecycleHow, RecycleResult, float] | None = None
    stuck: bool = False
    """Says that it recycles its model process, and never does."""
    held: float = 0.0
    """Share of the limit that the service holds: only the container's end frees it."""
    device_broken: bool = False
    """Every model process in this container makes bad output."""
    gpu_errors: int = 0
    """Counted by the service since its start."""
    device: str = ""
    """UUID of its card; older images do not tell."""
    fault: str = ""
    """What the driver says against the card."""
    failing_starts: int = 0
    """Starts of its model process that failed in a row."""
    ours: bool = False
    """It served until the operator took it out of service, and has not served since."""

    @property
    def boot_id(self) -> str:
        return f"{self.pod.uid}-{self.boot}"

    @property
    def life_id(self) -> str:
        return f"{self.boot_id}.{self.life}"

    @property
    def swap_threshold(self) -> float:
        """Share of the limit from which the worker says that a swap is due."""
        shares = self.sizes.shares() if self.leak > 0 else None
        if shares is None:
            return SWAP_THRESHOLD
        whole = GUARD - AT_REST
        costs = Costs(
            job_seconds=JOB_SECONDS,
            job_way=self.leak / whole,
            beside_way=FRESH / whole,
            jobs_meanwhile=math.ceil(SWAP_SECONDS / JOB_SECONDS),
            swap_seconds=SWAP_ON_DEVICE,
            replace_seconds=REPLACE_SECONDS,
        )
        found = best(shares, costs)
        return min(SWAP_THRESHOLD, AT_REST + found.way * whole) if found.swap else SWAP_THRESHOLD

    @property
    def total(self) -> float:
        """Share of the limit that both processes and the service hold."""
        second = FRESH if self.swap_until is not None and self.swap_how is RecycleHow.SWAP else 0.0
        return self.memory + self.held + second

    @property
    def fits_two(self) -> bool:
        """Whether a second process fits below the limit, as the worker says and answers."""
        return self.room and self.memory + self.held + FRESH <= 0.95
