"""What the planner returns: steps to carry out, refusals to show, and the state they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from sn17_operator.core.model import Eviction, History, Intent, Trial


class Act(StrEnum):
    """The one outside effect of a step."""

    CORDON = "Cordon"
    RENEW = "Renew"
    CLEANUP = "Cleanup"
    CANARY = "Canary"
    SWAP = "Swap"
    REPLACE = "Replace"
    UNCORDON = "Uncordon"
    EXIT = "Exit"
    EVICT = "Evict"
    NOTE = "Note"
    """Nothing but the annotations: something was observed."""
    USER_CORDON = "UserCordon"
    USER_UNCORDON = "UserUncordon"


class Reason(StrEnum):
    """Why a step is taken or refused: Event reason, condition reason and metric label in one."""

    # steps
    WORKER_CORDONED = "WorkerCordoned"
    WORKER_DRAINING = "WorkerDraining"
    CLEANUP_REQUESTED = "CleanupRequested"
    CANARY_REQUESTED = "CanaryRequested"
    SWAP_REQUESTED = "SwapRequested"
    WORKER_SWAPPED = "WorkerSwapped"
    SWAP_FAILED = "SwapFailed"
    SWAP_NO_ROOM = "SwapNoRoom"
    SAME_OUTPUT = "SameOutput"
    REPLACE_REQUESTED = "ReplaceRequested"
    WORKER_REPLACED = "WorkerReplaced"
    RECYCLE_REQUESTED = "RecycleRequested"
    WORKER_EVICTED = "WorkerEvicted"
    MEMORY_CLEARED = "MemoryCleared"
    CANARY_PASSED = "CanaryPassed"
    WORKER_RESTARTED = "WorkerRestarted"
    WORKER_RECYCLED = "WorkerRecycled"
    WORKER_HEALED = "WorkerHealed"
    REMEDIATION_WITHDRAWN = "RemediationWithdrawn"
    REMEDIATION_FAILED = "RemediationFailed"
    ADMIN_UNAVAILABLE = "AdminUnavailable"
    REPLACEMENT_PENDING = "ReplacementPending"
    DEVICE_CLEARED = "DeviceCleared"
    USER_CORDON_ASSERTED = "UserCordonAsserted"
    USER_CORDON_LIFTED = "UserCordonLifted"
    # refusals
    PAUSED = "Paused"
    OBSERVE_ONLY = "ObserveOnly"
    ROLLOUT_IN_PROGRESS = "RolloutInProgress"
    TOO_MANY_UNHEALTHY = "TooManyUnhealthy"
    STORM_COOLDOWN = "StormCooldown"
    BUDGET_EXHAUSTED = "BudgetExhausted"
    COOLDOWN = "Cooldown"
    SKIP_REQUESTED = "SkipRequested"
    USER_CORDONED = "UserCordoned"
    RECYCLE_DISABLED = "RecycleDisabled"
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    DISRUPTION_BUDGET = "DisruptionBudget"
    DEVICE_SUSPECT = "DeviceSuspect"
    TARGET_NOT_FOUND = "TargetNotFound"


FLEET_WIDE: Final = (
    Reason.PAUSED,
    Reason.OBSERVE_ONLY,
    Reason.ROLLOUT_IN_PROGRESS,
    Reason.TOO_MANY_UNHEALTHY,
    Reason.STORM_COOLDOWN,
    Reason.BUDGET_EXHAUSTED,
)
"""What holds actions back whichever worker they are for; the first of them is the one to show."""

HOLDS: Final = (
    *FLEET_WIDE,
    Reason.COOLDOWN,
    Reason.SKIP_REQUESTED,
    Reason.USER_CORDONED,
    Reason.RECYCLE_DISABLED,
    Reason.METRICS_UNAVAILABLE,
    Reason.DISRUPTION_BUDGET,
    Reason.DEVICE_SUSPECT,
    Reason.REMEDIATION_FAILED,
    Reason.ADMIN_UNAVAILABLE,
)
"""What may hold an action back."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do to one worker: first the annotations, then the act, then the Event.

    ``intent`` and ``history`` are what the pod's annotations must hold before the act; ``intent=None``
    removes it. ``silent`` steps repeat what was announced before and make no Event.
    """

    uid: str
    pod: str
    act: Act
    reason: Reason
    message: str
    intent: Intent | None
    history: History
    drop_request: bool = False
    drop_user_cordon: bool = False
    eviction: Eviction | None = None
    silent: bool = False
    warning: bool = False
    cause: str = ""
    """The rule that led here: the ``reason`` label of the actions counter."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """A worker for which something would have been done, and what stands against it."""

    uid: str
    pod: str
    reason: Reason
    message: str
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Workers wanted, working and out of service, and how many may be out of service."""

    expected: int
    available: int
    unavailable: int
    in_flight: int
    budget: int
    unhealthy: int
    unhealthy_allowed: int
    failing: int = 0
    """Workers whose model process does not start any more."""

    @property
    def short_circuit(self) -> bool:
        """Too many quality verdicts at once: the cause is not in the workers."""
        return self.unhealthy > self.unhealthy_allowed

    @property
    def short_circuit_text(self) -> str:
        """What to make of it."""
        return (
            f"{self.unhealthy} of {self.expected} workers have quality verdicts,"
            f" {self.unhealthy_allowed} may: look at prompts, checkpoint and metrics"
        )

    @property
    def failing_text(self) -> str:
        """What to make of many that do not start."""
        return (
            f"the model of {self.failing} of {self.expected} workers does not start, "
            f"{self.unhealthy_allowed} may: look at the checkpoint, its volume and the driver"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of one tick."""

    steps: tuple[Step, ...]
    blocked: tuple[Blocked, ...]
    capacity: Capacity
    evictions: tuple[Eviction, ...]
    short_circuit_at: float | None
    notices: tuple[tuple[Reason, str], ...] = ()
    """What a person must hear that is about no pod there is: reason and message, all bad news."""
    trials: tuple[Trial, ...] = ()
    suspects: Mapping[str, Trial] = field(default_factory=dict)
    """Devices that are suspect, by UUID."""
