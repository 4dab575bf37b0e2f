"""What the controller needs from outside: three small protocols, each with a cluster and a local form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sn17_contract.admin import Owner
from sn17_contract.worker import RecycleHow

from sn17_operator.api import Rules, Spec
from sn17_operator.core.evidence import Raw
from sn17_operator.core.model import CanaryResult, Pod, RecycleResult, Rollout
from sn17_operator.core.plan import Step
from sn17_operator.core.readings import Monitoring
from sn17_operator.status.resource import Status
from sn17_operator.status.view import Missing, Ratios


class Refused(Exception):  # noqa: N818
    """An act was refused or failed; the message is for people, ``outcome`` is the metric label."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class Conflict(Refused):
    """The pod has changed or is another one: look again at the next tick."""

    def __init__(self, message: str) -> None:
        super().__init__("conflict", message)


class Disrupted(Refused):
    """A PodDisruptionBudget does not allow the eviction now."""

    def __init__(self, message: str) -> None:
        super().__init__("disruption_budget", message)


class OtherIncarnation(Refused):
    """The worker is another incarnation than the one meant: it has restarted already."""

    def __init__(self, message: str) -> None:
        super().__init__("boot_id_mismatch", message)


class NoRoom(Refused):
    """Two model processes do not fit into the worker now."""

    def __init__(self, message: str) -> None:
        super().__init__("no_room", message)


@dataclass(frozen=True, slots=True)
class Miner:
    """One SN17Miner as the cluster has it."""

    uid: str
    name: str
    namespace: str
    spec: Spec
    generation: int = 0
    paused: str | None = None
    status: Status = field(default_factory=Status)
    instance: str | None = None
    resource_version: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """The workload of one SN17Miner: its pods and how many are wanted. ``expected`` is None without a
    target.
    """

    pods: tuple[Pod, ...]
    expected: int | None
    rollout: Rollout | None = None
    missing: Missing | None = None
    miner_pods: tuple[str, ...] = ()
    made: int | None = None
    """Pods that the workload has, where the cluster counts them."""
    selector: str | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """Everything metrics say at one tick; workers by pod uid, ratios by miner pod and window."""

    monitoring: Monitoring
    workers: Mapping[str, Raw]
    ratios: Mapping[tuple[str, str], Ratios] = field(default_factory=dict)


class Metrics(Protocol):
    """Where evidence comes from."""

    async def measure(self, now: float, rules: Sequence[Rules]) -> Measurement: ...


class Cluster(Protocol):
    """Where workers run and where the operator's notes are kept."""

    def may_act(self) -> bool:
        """False as soon as another operator may be acting."""
        ...

    async def miners(self) -> Sequence[Miner]: ...

    async def target(self, miner: Miner, now: float) -> Target: ...

    async def annotate(self, miner: Miner, pod: Pod, step: Step) -> Pod:
        """Write intent and history of ``step`` to the pod that was seen, and to no other.

        Raises:
            Conflict: the pod has changed since, or is gone.
        """
        ...

    async def evict(self, miner: Miner, pod: Pod) -> None:
        """Ask for the eviction of exactly this pod.

        Raises:
            Disrupted: not now.
            Conflict: another pod has that name, or none has.
        """
        ...

    async def announce(self, miner: Miner, pod: Pod | None, step: Announcement) -> None: ...

    async def write_status(self, miner: Miner, status: Status) -> None:
        """Write a status. One without conditions is a part: what it does not name stays."""
        ...


class Scaler(Protocol):
    """Where counts and deletion costs are written. Every method raises ``Refused`` when it did not work."""

    async def set_cost(self, miner: Miner, pod: Pod, cost: int | None) -> None:
        """Say how early the pod goes when its ReplicaSet shrinks; None takes that back.

        Raises:
            Conflict: the pod is gone.
        """
        ...

    async def adopt(self, miner: Miner, replicas: int) -> None:
        """Write a count to the SN17Miner that was seen, unless it has changed since."""
        ...

    async def set_replicas(self, miner: Miner, replicas: int) -> None:
        """Write a count to its Deployment."""
        ...


@dataclass(frozen=True, slots=True)
class Announcement:
    """An Event."""

    reason: str
    message: str
    warning: bool = False


class Admin(Protocol):
    """The workers' admin endpoints. Every method raises ``Refused`` when it did not work."""

    async def drain(self, pod: Pod, by: Owner, reason: str, ttl_seconds: float | None) -> bool:
        """Take or renew a lease; true when the worker says that no job is in flight."""
        ...

    async def resume(self, pod: Pod, by: Owner) -> None: ...

    async def cleanup(self, pod: Pod) -> None: ...

    async def canary(self, pod: Pod) -> CanaryResult: ...

    async def exit(self, pod: Pod, boot_id: str, reason: str) -> None:
        """Ask the service process ``boot_id`` to finish and exit.

        Raises:
            OtherIncarnation: it is gone already.
        """
        ...

    async def recycle(self, pod: Pod, life_id: str, how: RecycleHow, reason: str, *, verify: bool) -> None:
        """Ask for a swap or replacement of the model process ``life_id``; returns once it is under way.

        Raises:
            OtherIncarnation: that process is gone already.
            NoRoom: a second process does not fit; nothing is done.
        """
        ...

    async def recycled(self, pod: Pod, life_id: str, how: RecycleHow, since: float) -> RecycleResult | None:
        """The recycle of ``life_id`` that goes on or has ended since a time; None: there is none."""
        ...
