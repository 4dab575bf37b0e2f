"""The SN17Miner resource: what a person may set, with defaults and constraints.

The CustomResourceDefinition is generated from these models (``crd``), so field, default and range live here
once. Cross-field constraints are CEL rules in ``json_schema_extra`` and are checked by the API server.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel
from sn17_contract.http import OPS_PORT, TRELLIS_PORT

Seconds = Annotated[int, Field(ge=1, le=86_400)]
Percent = Annotated[int, Field(ge=1, le=100)]
Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")]

Share = Annotated[
    int | str,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            # Both branches of one field: a number of workers, or a share of spec.replicas.
            "x-kubernetes-validations": [
                {
                    "rule": "type(self) == int ? self >= 1 && self <= 100000 : "
                    "self.matches('^(100|[1-9][0-9]?)%$')",
                    "message": "must be a number of workers from 1, or a share from 1% to 100%",
                }
            ],
        }
    ),
]


class Model(BaseModel):
    """Frozen, camelCase on the wire. Unknown fields are the API server's to prune or refuse."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")


class Mode(StrEnum):
    """How far the operator may go."""

    RECYCLE = "Recycle"
    CORDON = "Cordon"
    OBSERVE = "Observe"


class Strategy(StrEnum):
    """How a worker is recycled first; what comes after it is the escalation of what changed nothing.

    Swap: a fresh model process takes over beside the old one; RestartContainer: in place; EvictPod: the pod.
    """

    SWAP = "Swap"
    RESTART_CONTAINER = "RestartContainer"
    EVICT_POD = "EvictPod"


class RuleAction(StrEnum):
    """What a breach of one rule leads to."""

    ENFORCE = "Enforce"
    OBSERVE = "Observe"
    OFF = "Off"


def _cel(rule: str, message: str) -> dict[str, Any]:
    return {"x-kubernetes-validations": [{"rule": rule, "message": message}]}


class ReplicasOwner(StrEnum):
    """Whose count of workers holds; the other one follows."""

    DEPLOYMENT = "Deployment"
    SN17MINER = "SN17Miner"


class TargetReference(Model):
    """The Deployment of workers, in the same namespace."""

    model_config = ConfigDict(
        json_schema_extra=_cel(
            "self == oldSelf", "targetRef may not change: create another SN17Miner instead"
        )
    )
    name: Name


class MemoryRule(Model):
    """Unreclaimable memory as a share of the limit."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "self.clearPercent < self.highPercent",
                    "message": "clearPercent must be below highPercent",
                },
                {
                    "rule": "self.highPercent < self.emergencyPercent",
                    "message": "highPercent must be below emergencyPercent",
                },
            ]
        }
    )
    action: RuleAction = RuleAction.ENFORCE
    high_percent: Percent = 80
    high_for_seconds: Annotated[int, Field(ge=0, le=600)] = 30
    clear_percent: Percent = 70
    clear_for_seconds: Annotated[int, Field(ge=0, le=600)] = 60
    emergency_percent: Percent = 90
    swap_seconds: Annotated[int, Field(ge=30, le=3_600)] = 180
    """The rule rests while two model processes live, so long at most; a swap that takes longer has failed."""


class GaussiansRule(Model):
    """Mean gaussians of the incarnation's recent task generations."""

    action: RuleAction = RuleAction.ENFORCE
    minimum_mean: Annotated[int, Field(ge=1, le=10_000_000)] = 150_000
    minimum_generations: Annotated[int, Field(ge=1, le=10_000)] = 8
    window_seconds: Annotated[int, Field(ge=60, le=86_400)] = 1_800


class CanaryRule(Model):
    """The worker's fixed-seed canary against its first one."""

    action: RuleAction = RuleAction.ENFORCE
    drift_percent: Percent = 20


class SlowRule(Model):
    """Median seconds of the incarnation's recent task generations."""

    action: RuleAction = RuleAction.ENFORCE
    p50_seconds: Seconds = 35
    minimum_generations: Annotated[int, Field(ge=1, le=10_000)] = 8


class StalledRule(Model):
    """A job in flight that makes no progress."""

    action: RuleAction = RuleAction.ENFORCE
    after_seconds: Annotated[int, Field(ge=10, le=3_600)] = 120


class UnreachableRule(Model):
    """A running worker that cannot be scraped while others can."""

    action: RuleAction = RuleAction.ENFORCE
    after_seconds: Annotated[int, Field(ge=30, le=600)] = 120


class GpuErrorsRule(Model):
    """Fatal device errors counted by the worker itself."""

    action: RuleAction = RuleAction.ENFORCE
    maximum: Annotated[int, Field(ge=0, le=1_000)] = 0


class DeviceRule(Model):
    """What kubelet and the driver say of the worker's device; acting means another pod."""

    action: RuleAction = RuleAction.OBSERVE


class ModelFailingRule(Model):
    """Starts of the model process that failed in a row, in a worker that had one."""

    action: RuleAction = RuleAction.ENFORCE
    minimum_starts: Annotated[int, Field(ge=1, le=100)] = 5


class Rules(Model):
    """Every rule by which a worker is judged."""

    memory: MemoryRule = MemoryRule()
    gaussians: GaussiansRule = GaussiansRule()
    canary: CanaryRule = CanaryRule()
    slow: SlowRule = SlowRule()
    stalled: StalledRule = StalledRule()
    unreachable: UnreachableRule = UnreachableRule()
    gpu_errors: GpuErrorsRule = GpuErrorsRule()
    device: DeviceRule = DeviceRule()
    model_failing: ModelFailingRule = ModelFailingRule()


class Drain(Model):
    """How a worker is taken out of service."""

    timeout_seconds: Annotated[int, Field(ge=1, le=3_600)] = 120
    lease_seconds: Annotated[int, Field(ge=30, le=3_600)] = 60
    """At least two ticks, so that one that is late does not end it."""


class Recycle(Model):
    """How a worker is restarted, and when that is not enough."""

    exit_timeout_seconds: Annotated[int, Field(ge=10, le=3_600)] = 60
    replacement_timeout_seconds: Annotated[int, Field(ge=30, le=86_400)] = 600
    cooldown_seconds: Annotated[int, Field(ge=0, le=86_400)] = 600
    storm_cooldown_seconds: Annotated[int, Field(ge=0, le=86_400)] = 600
    young_seconds: Annotated[int, Field(ge=0, le=86_400)] = 600
    leftover_percent: Percent = 25
    maximum_evictions: Annotated[int, Field(ge=1, le=100)] = 2
    eviction_window_seconds: Annotated[int, Field(ge=60, le=604_800)] = 21_600


class Workers(Model):
    """Where a worker's process is found in its pod."""

    container: Annotated[
        str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    ] = "trellis"
    ops_port: Annotated[int, Field(ge=1, le=65_535)] = OPS_PORT
    port: Annotated[int, Field(ge=1, le=65_535)] = TRELLIS_PORT


class NodeSuspect(Model):
    """When unhealthy workers point at their node."""

    minimum_workers: Annotated[int, Field(ge=2, le=1_000)] = 2


class Scale(Model):
    """Who decides how many workers there are, and who goes first where there are to be fewer."""

    owner: ReplicasOwner = ReplicasOwner.DEPLOYMENT
    """SN17Miner: spec.replicas holds, which kubectl scale and autoscalers write, and is copied to the
    Deployment; while it is unset the Deployment's own count is taken over.
    """
    deletion_cost: bool = False
    """Degraded workers, then cordoned ones, then idle ones are told to Kubernetes as the first to go."""


class Spec(Model):
    """What an SN17Miner asks for. Only the target is required."""

    target_ref: TargetReference
    replicas: Annotated[int, Field(ge=0, le=100_000)] | None = None
    scale: Scale = Scale()
    hotkey_secret_name: Name | None = None
    mode: Mode = Mode.RECYCLE
    strategy: Strategy = Strategy.SWAP
    max_unavailable: Share = "25%"
    max_unhealthy: Share = "50%"
    workers: Workers = Workers()
    rules: Rules = Rules()
    drain: Drain = Drain()
    recycle: Recycle = Recycle()
    node_suspect: NodeSuspect = NodeSuspect()


def scaled(share: int | str, expected: int) -> int:
    """Workers that a number or share stands for: ``max(1, floor(share x expected))``."""
    if isinstance(share, int):
        return max(1, share)
    return max(1, int(share.removesuffix("%")) * expected // 100)
