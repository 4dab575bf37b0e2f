"""Values that the pure core takes and returns. Times are Unix seconds, memory is bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from sn17_contract.metrics import SwapPhase
from sn17_contract.worker import RecycleOutcome

from sn17_operator.core.readings import Evidence, Signal

UUIDS = ("GPU-", "MIG-")
"""How the UUIDs of a GPU and of a part of one begin."""


class Stage(StrEnum):
    """What the operator means to do, or is doing, to a worker: ``action`` of its intent."""

    CORDON = "Cordon"
    CLEANUP = "Cleanup"
    CANARY = "Canary"
    SWAP = "Swap"
    REPLACE = "Replace"
    RECYCLE = "Recycle"
    EVICT = "Evict"
    WARMUP = "Warmup"


class RuleName(StrEnum):
    """What a finding is about; ``REQUESTED`` is a person's wish."""

    MEMORY_EMERGENCY = "MemoryEmergency"
    MEMORY_HIGH = "MemoryHigh"
    POD_MEMORY_HIGH = "PodMemoryHigh"
    DEVICE_UNHEALTHY = "DeviceUnhealthy"
    GPU_ERROR = "GpuError"
    MODEL_FAILING = "ModelFailing"
    UNREACHABLE = "Unreachable"
    STALLED = "Stalled"
    CANARY_DRIFT = "CanaryDrift"
    CANARY_DISAGREES = "CanaryDisagrees"
    GAUSSIANS_LOW = "GaussiansLow"
    SLOW = "Slow"
    SWAP_DUE = "SwapDue"
    REQUESTED = "Requested"


class RuleClass(StrEnum):
    """Decides how a breach is resolved."""

    MEMORY = "memory"
    QUALITY = "quality"
    STALL = "stall"
    DEVICE = "device"
    REQUEST = "request"


@dataclass(frozen=True, slots=True)
class Intent:
    """Written to the pod before the act it names, so that a restarted operator goes on where it was."""

    action: Stage
    boot_id: str | None
    container_id: str
    rule: str
    rule_class: RuleClass
    reason: str
    at: float
    cordoned_at: float
    life_id: str | None = None


@dataclass(frozen=True, slots=True)
class History:
    """What must outlive a remediation, kept on the pod."""

    recycled_at: float | None = None
    recycled_container: str | None = None
    reason: str | None = None
    rest: Mapping[str, float] = field(default_factory=dict)
    """Rule to the time until which it rests, for one life only: ``rest_life`` in ``rest_container``."""
    rest_container: str | None = None
    failed: str | None = None
    """Why remediation of this pod was given up."""
    retry_at: float | None = None
    """Not before this time again: the worker could not be told anything."""
    rest_life: str | None = None
    tried: Stage | None = None
    """The last act that did not help, or whose effect is still open: the next act is the one after it."""
    tried_at: float | None = None
    swapped_at: float | None = None
    cleanup_helped: bool | None = None
    """Whether a clean-up has ever freed memory in this pod; None: not tried yet."""
    suspect: str | None = None
    """Why the pod's device is suspect: told to others as an annotation of its own."""

    def resting(self, container_id: str, life_id: str | None, now: float) -> dict[str, float]:
        """The rules that rest now in a life."""
        if self.rest_life is not None and life_id is not None:
            own = self.rest_life == life_id
        else:
            own = self.rest_container == container_id
        return {rule: until for rule, until in self.rest.items() if until > now} if own else {}


@dataclass(frozen=True, slots=True)
class UserCordon:
    """A person's cordon: no end. ``lift`` is the person's wish to have it ended."""

    reason: str
    at: float | None = None
    lift: bool = False


class Phase(StrEnum):
    """State of the worker's container."""

    PENDING = "Pending"
    RUNNING = "Running"
    WAITING = "Waiting"
    TERMINATED = "Terminated"


@dataclass(frozen=True, slots=True)
class Termination:
    """How the previous container of a worker ended."""

    reason: str
    exit_code: int
    at: float
    message: str = ""


class DeviceHealth(StrEnum):
    """What kubelet says of a device that it has given to a container."""

    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Device:
    """A device of a container: its id is the device plugin's, a UUID for a GPU."""

    id: str
    health: DeviceHealth = DeviceHealth.UNKNOWN


@dataclass(frozen=True, slots=True)
class Pod:
    """A worker as its host (Kubernetes, or the local supervisor) sees it."""

    uid: str
    name: str
    namespace: str
    created_at: float
    resource_version: str = ""
    node: str | None = None
    address: str | None = None
    data_address: str | None = None
    phase: Phase = Phase.PENDING
    phase_reason: str = ""
    phase_message: str = ""
    container_id: str = ""
    started_at: float | None = None
    restarts: int = 0
    ready: bool = False
    deleting: bool = False
    last_termination: Termination | None = None
    intent: Intent | None = None
    history: History = field(default_factory=History)
    user_cordon: UserCordon | None = None
    recycle_requested: str | None = None
    skip: str | None = None
    deletion_cost: int | None = None
    """``controller.kubernetes.io/pod-deletion-cost``, whoever set it."""
    malformed: tuple[str, ...] = ()
    """Annotations that could not be read."""
    devices: tuple[Device, ...] = ()
    """Of the worker's container; empty where kubelet does not tell."""

    @property
    def held(self) -> bool:
        """A remediation keeps it out of service; a swap does not."""
        return self.intent is not None and self.intent.action is not Stage.SWAP

    @property
    def kept_by_person(self) -> bool:
        """A person has cordoned it and has not asked for the end of that."""
        return self.user_cordon is not None and not self.user_cordon.lift


class Outcome(StrEnum):
    """What one rule found."""

    OK = "Ok"
    BREACH = "Breach"
    DWELL = "Dwell"
    """Beyond the threshold, but not yet for long enough."""
    DUE = "Due"
    """Healthy, and something that costs nothing is to be done."""
    IDLE = "Idle"
    """Nothing to judge by."""
    RESTING = "Resting"
    UNKNOWN = "Unknown"
    OFF = "Off"


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule's answer; the same words go to condition, Event, metric label and ``explain``."""

    rule: RuleName
    rule_class: RuleClass
    outcome: Outcome
    message: str
    value: float | None = None
    threshold: float | None = None
    sample_age: float | None = None
    dwell_left: float = 0.0
    signals: tuple[Signal, ...] = ()
    enforced: bool = True
    priority: int = 0


class Health(StrEnum):
    """Verdict about one worker at one tick. Only ``DEGRADED`` acts."""

    HEALTHY = "Healthy"
    DEGRADED = "Degraded"
    UNKNOWN = "Unknown"
    IDLE = "Idle"
    STARTING = "Starting"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Health with the findings that led to it."""

    health: Health
    findings: tuple[Finding, ...] = ()
    message: str = ""

    @property
    def breaches(self) -> tuple[Finding, ...]:
        """Enforced breaches, gravest first."""
        found = [f for f in self.findings if f.outcome is Outcome.BREACH and f.enforced]
        return tuple(sorted(found, key=lambda f: f.priority))

    @property
    def due(self) -> Finding | None:
        """What is to be done although nothing is wrong."""
        return next((f for f in self.findings if f.outcome is Outcome.DUE and f.enforced), None)

    def breach_of(self, rule_class: RuleClass) -> Finding | None:
        return next((f for f in self.breaches if f.rule_class is rule_class), None)


@dataclass(frozen=True, slots=True)
class CanaryResult:
    """Answer of a worker to a requested canary; ``passed`` is None when it could not run."""

    at: float
    passed: bool | None
    message: str = ""


@dataclass(frozen=True, slots=True)
class RecycleResult:
    """What a worker says of the recycle of its model process; without an outcome it is under way.

    ``phase``: how far it is. ``start_seconds``: what the latest start of a model process took there.
    """

    outcome: RecycleOutcome | None
    message: str = ""
    phase: SwapPhase | None = None
    start_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Eviction:
    """One eviction, kept in the resource's status so that chains without a recovery are seen."""

    uid: str
    pod: str
    node: str | None
    reason: str
    at: float
    replacement_uid: str | None = None
    settled: bool = False
    """The replacement is Ready, or its deadline has passed."""
    recovered: bool = False
    """The replacement stayed healthy past its youth; or nothing had to recover, a person had asked."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """Progress of the target Deployment."""

    generation: int
    observed_generation: int
    replicas: int
    updated: int

    @property
    def in_progress(self) -> bool:
        return self.observed_generation < self.generation or self.updated < self.replicas


@dataclass(frozen=True, slots=True)
class Worker:
    """A pod, its evidence and its verdict, with what this process itself did or learnt about it."""

    pod: Pod
    evidence: Evidence
    verdict: Verdict
    acknowledged: frozenset[Stage] = frozenset()
    """Acts of the current intent that the worker or the API server has confirmed to this process."""
    canary: CanaryResult | None = None
    degraded_since: float | None = None
    leased: bool = False
    """The worker has confirmed the operator's lease to this process."""
    drained: bool = False
    """The worker itself answered the renewed lease with no job in flight."""
    asked_at: float | None = None
    """When this process first asked the worker for the lease of the present intent."""
    cordon_confirmed: bool = False
    """The worker has confirmed a person's cordon to this process."""
    recycle: RecycleResult | None = None
    """How the swap or replacement of the present intent ended; None: not yet, or not heard."""
    progress: RecycleResult | None = None
    """The worker's latest word on the one that is under way."""

    suspect: Trial | None = None
    """What makes its device suspect, as the planner found it."""

    @property
    def device(self) -> str | None:
        """UUID of its device: its own word, else that of kubelet where there is one device."""
        if self.evidence.device is not None:
            return self.evidence.device
        found = {each.id.partition("::")[0] for each in self.pod.devices if each.id.startswith(UUIDS)}
        return found.pop() if len(found) == 1 else None

    @property
    def life(self) -> str | None:
        """The process that its output comes from."""
        return self.evidence.life_id or self.evidence.boot_id


@dataclass(frozen=True, slots=True)
class Trial:
    """What was tried on the workers of one device, kept in the resource's status: it outlives their pods."""

    uuid: str
    node: str | None
    pod: str
    rule: str
    at: float
    """Of the last act."""
    life: str
    """The process that the last act was about."""
    done_at: float | None = None
    """When another process was first seen on the device."""
    judged: bool = False
    """The act has failed, and was counted."""
    failures: int = 0
    """Acts one after another that did not help."""
    suspect_at: float | None = None


@dataclass(frozen=True, slots=True)
class Fleet:
    """All workers of one SN17Miner with what bounds the operator's actions."""

    workers: tuple[Worker, ...]
    expected: int
    rollout: Rollout | None = None
    paused: str | None = None
    short_circuit_at: float | None = None
    """Last time at which too many quality verdicts were seen."""
    evictions: tuple[Eviction, ...] = ()
    trials: tuple[Trial, ...] = ()
