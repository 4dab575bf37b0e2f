"""One worker: a pod, the processes in it, and what is wrong with them. Shares are of the memory limit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sn17_contract.http import LeaseOwner
from sn17_contract.worker import RecycleHow, RecycleOutcome
from sn17_operator.core.model import Pod, RecycleResult

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


@dataclass
class SimWorker:
    """One pod with its process."""

    pod: Pod
    boot: int = 0
    memory: float = 0.3
    leak: float = 0.0
    """Share of the limit that each finished job adds."""
    gaussians: float = 350_000.0
    generations: int = 0
    fading: bool = False
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
    ours: bool = False
    """It served until the operator took it out of service, and has not served since."""

    @property
    def boot_id(self) -> str:
        return f"{self.pod.uid}-{self.boot}"

    @property
    def life_id(self) -> str:
        return f"{self.boot_id}.{self.life}"

    @property
    def total(self) -> float:
        """Share of the limit that both processes and the service hold."""
        second = FRESH if self.swap_until is not None and self.swap_how is RecycleHow.SWAP else 0.0
        return self.memory + self.held + second

    @property
    def fits_two(self) -> bool:
        """Whether a second process fits below the limit, as the worker says and answers."""
        return self.room and self.memory + self.held + FRESH <= 0.95
