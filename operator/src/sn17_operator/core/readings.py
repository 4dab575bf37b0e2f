"""What was measured of a worker, and what was not. Times are Unix seconds, memory is bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from sn17_contract.metrics import DegradedReason, DeviceFault


class Signal(StrEnum):
    """One measured quantity of a worker."""

    BOOT = "boot"
    LIFE = "life"
    MODEL_PROCESSES = "model_processes"
    SWAP_ROOM = "swap_room"
    SWAP_THRESHOLD = "swap_threshold"
    GUARD = "guard"
    """Share of the limit from which on the worker's own guard refuses; a guard that is off has no series."""
    MEMORY = "memory"
    LIMIT = "limit"
    GAUSSIANS = "gaussians"
    GENERATIONS = "generations"
    SECONDS_P50 = "seconds_p50"
    JOBS = "jobs"
    PROGRESS = "progress"
    CANARY = "canary"
    CANARY_INFO = "canary_info"
    """What the last canary made of which checkpoint: a label, as with ``DEGRADED``."""
    GPU_ERRORS = "gpu_errors"
    DEGRADED = "degraded"
    """Why the worker does not trust itself: the reason is a label, so it has no series of numbers."""
    FAILING_STARTS = "failing_starts"
    DEVICE = "device"
    """Which device the worker has: a label, as with ``DEGRADED``."""
    DEVICE_FAULT = "device_fault"
    """What the driver says of a broken device: a label too."""
    UP = "up"
    POD_MEMORY = "pod_memory"
    DRAINING_USER = "draining_user"
    DRAINING_OPERATOR = "draining_operator"


class Gap(StrEnum):
    """Why there is no reading of a signal. A gap is never a value."""

    ABSENT = "Absent"
    STALE = "Stale"
    AMBIGUOUS = "Ambiguous"
    NOT_A_NUMBER = "NotANumber"
    QUERY_FAILED = "QueryFailed"
    OTHER_INCARNATION = "OtherIncarnation"


@dataclass(frozen=True, slots=True)
class Series:
    """Raw samples of one signal of one incarnation: (time, value), oldest first, never empty."""

    samples: tuple[tuple[float, float], ...]

    @property
    def at(self) -> float:
        return self.samples[-1][0]

    @property
    def value(self) -> float:
        return self.samples[-1][1]


Reading = Series | Gap


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the metrics say about one worker.

    An incarnation is one start of the service process (``boot_id``), a life one start of the model process
    in it (``life_id``). A worker that knows no lives is one process, and its boot id is its life.
    ``readings`` hold only samples of the newest life; those of the service (``SERVICE_SIGNALS``) of the
    newest incarnation; ``UP`` and ``POD_MEMORY`` belong to the pod. A signal that is not in the mapping
    counts as ``Gap.ABSENT``.
    """

    boot_id: str | None = None
    readings: Mapping[Signal, Reading] = field(default_factory=dict)
    doubt: DegradedReason | None = None
    """Why the worker said at its newest scrape that it is degraded; None when it did not."""
    life_id: str | None = None
    life_since: float | None = None
    """First sample of the life that is in sight, Unix seconds: it is at least as old as that."""
    canary: str | None = None
    """Digests of checkpoint and output of the latest canary, as told at the newest scrape."""
    device: str | None = None
    """UUID of the worker's device, as told at the newest scrape."""
    faults: tuple[DeviceFault, ...] = ()
    """What the driver said of the device at the newest scrape; nothing where nothing is known."""

    @property
    def separate_model(self) -> bool:
        """The model is a process of its own, so it can be recycled alone."""
        return self.life_id is not None and self.life_id != self.boot_id

    def reading(self, signal: Signal) -> Reading:
        return self.readings.get(signal, Gap.ABSENT)

    def series(self, signal: Signal) -> Series | None:
        reading = self.readings.get(signal)
        return reading if isinstance(reading, Series) else None


@dataclass(frozen=True, slots=True)
class Monitoring:
    """What is known about the monitoring itself at one tick."""

    at: float
    stale_after: float
    scrape_interval: float = 15.0
    failed: Mapping[Signal, str] = field(default_factory=dict)
    last_scrape: float | None = None
    """Latest time at which any target at all was scraped fine."""
    coverage: float = 0.0
    """Good scrapes of the best target within ``window``: proof that the monitoring worked all that time."""
    window: float = 0.0
    """Seconds that the ``UP`` readings look back."""
    queries: Mapping[Signal, str] = field(default_factory=dict)
    pod_memory: bool | None = None
    """Whether Prometheus has the memory of any pod at all (cAdvisor's); None: not asked, or no answer."""
