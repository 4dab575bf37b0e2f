"""The status of an SN17Miner, as it is written to the API server and read back.

The CustomResourceDefinition is generated from these models (``crd``), as it is from those of the spec. Times
are Unix seconds here and whole seconds of RFC 3339 there. Whatever is not known is not written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

from sn17_operator.core.devices import KEPT_TRIALS
from sn17_operator.core.model import Eviction, Stage, Trial
from sn17_operator.core.plan import Reason

LISTED_WORKERS = 100
KEPT_EVICTIONS = 64
KEPT_CONDITIONS = 16
UNKNOWN = "-"


def rfc3339(at: float) -> str:
    """Whole seconds, as the API writes times."""
    return datetime.fromtimestamp(at, tz=UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        return datetime.fromisoformat(value).timestamp()
    return float(math.floor(value)) if isinstance(value, float) else value


def _plain(**more: Any) -> WithJsonSchema:
    """Closed sets are the operator's to keep: a stored status of another version must stay readable."""
    return WithJsonSchema({"type": "string", **more})


Time = Annotated[float, BeforeValidator(_seconds), PlainSerializer(rfc3339), _plain(format="date-time")]


class Summary(StrEnum):
    """STATUS: the most useful word about all workers."""

    HEALTHY = "Healthy"
    DEGRADED = "Degraded"
    STARTING = "Starting"
    RECYCLING = "Recycling"
    SCALED_TO_ZERO = "ScaledToZero"
    NO_WORKERS = "NoWorkers"
    PAUSED = "Paused"
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    REMEDIATION_FAILED = "RemediationFailed"
    TOO_MANY_UNHEALTHY = "TooManyUnhealthy"
    ROLLOUT_IN_PROGRESS = "RolloutInProgress"
    OBSERVE_ONLY = "ObserveOnly"
    TARGET_NOT_FOUND = "TargetNotFound"
    HOTKEY_MISSING = "HotkeyMissing"
    MODEL_MISSING = "ModelMissing"


class State(StrEnum):
    """One word about one worker, also the ``state`` label of the workers gauge."""

    HEALTHY = "Healthy"
    DEGRADED = "Degraded"
    UNKNOWN = "Unknown"
    IDLE = "Idle"
    STARTING = "Starting"
    CORDONED = "Cordoned"
    RECYCLING = "Recycling"


class ConditionStatus(StrEnum):
    """``status`` of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionType(StrEnum):
    """Every condition that an SN17Miner has."""

    READY = "Ready"
    METRICS_AVAILABLE = "MetricsAvailable"
    REMEDIATION_ALLOWED = "RemediationAllowed"
    DEGRADED = "Degraded"
    PAUSED = "Paused"
    NODE_SUSPECT = "NodeSuspect"
    DEVICE_SUSPECT = "DeviceSuspect"

    @property
    def good(self) -> ConditionStatus:
        """The status that is good news."""
        positive = (self.READY, self.METRICS_AVAILABLE, self.REMEDIATION_ALLOWED)
        return ConditionStatus.TRUE if self in positive else ConditionStatus.FALSE


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")


class Condition(_Model):
    """A condition as the API conventions have it."""

    type: Annotated[ConditionType, _plain(maxLength=316)]
    status: ConditionStatus
    reason: Annotated[
        str, Field(min_length=1, max_length=1024, pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    ]
    message: Annotated[str, Field(max_length=32768)] = ""
    observed_generation: int = 0
    last_transition_time: Time

    @property
    def bad(self) -> bool:
        """It is not as it should be."""
        return self.status is not self.type.good


class WorkerEntry(_Model):
    """A worker about which there is something to say."""

    name: str
    node: str | None = None
    state: Annotated[State, _plain()]
    reasons: tuple[str, ...] = ()
    stage: Annotated[Stage, _plain()] | None = None
    since: Time | None = None
    message: str | None = None
    held_back_by: Annotated[Reason, _plain()] | None = None


class EvictionRecord(_Model):
    """An eviction, kept so that evictions that change nothing are recognised."""

    uid: str
    pod: str = ""
    node: str | None = None
    reason: str = ""
    time: Time
    settled: bool = False
    cured: bool | None = None
    replacement_uid: Annotated[str | None, Field(alias="replacementUID")] = None

    @classmethod
    def of(cls, eviction: Eviction) -> Self:
        """The record of an eviction."""
        return cls(
            uid=eviction.uid,
            pod=eviction.pod,
            node=eviction.node or None,
            reason=eviction.reason[:256],
            time=eviction.at,
            settled=eviction.settled,
            cured=eviction.recovered or None,
            replacement_uid=eviction.replacement_uid or None,
        )

    def eviction(self) -> Eviction:
        """The eviction that the record is of."""
        return Eviction(
            self.uid,
            self.pod,
            self.node,
            self.reason,
            self.time,
            self.replacement_uid,
            self.settled,
            bool(self.cured),
        )


class DeviceEntry(_Model):
    """What was tried on the workers of one device, and whether it is suspect."""

    uuid: str
    node: str | None = None
    pod: str = ""
    rule: str = ""
    time: Time
    life: str = ""
    done_time: Time | None = None
    judged: bool = False
    failures: int = 0
    suspect_time: Time | None = None

    @classmethod
    def of(cls, trial: Trial) -> Self:
        """The entry of a trial."""
        return cls(
            uuid=trial.uuid,
            node=trial.node,
            pod=trial.pod,
            rule=trial.rule,
            time=trial.at,
            life=trial.life,
            done_time=trial.done_at,
            judged=trial.judged,
            failures=trial.failures,
            suspect_time=trial.suspect_at,
        )

    def trial(self) -> Trial:
        """The trial that the entry is of."""
        return Trial(
            self.uuid,
            self.node,
            self.pod,
            self.rule,
            self.time,
            self.life,
            self.done_time,
            self.judged,
            self.failures,
            self.suspect_time,
        )


def _map(*keys: str) -> dict[str, Any]:
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


class Status(_Model):
    """What the operator sees and does; text columns hold - where nothing is known."""

    observed_generation: int | None = None
    status: Annotated[Summary, _plain()] | None = None
    message: str | None = None
    ready: str | None = None
    replicas: int | None = None
    selector: Annotated[str, Field(max_length=4096)] | None = None
    cordoned: int | None = None
    recycling: int | None = None
    gaussians: str | None = None
    memory: str | None = None
    success: str | None = None
    yielded: Annotated[str | None, Field(alias="yield")] = None
    success_4h: Annotated[str | None, Field(alias="success4h")] = None
    yielded_4h: Annotated[str | None, Field(alias="yield4h")] = None
    budget: int | None = None
    unavailable: int | None = None
    oom_kills: int | None = None
    last_oom_time: Annotated[Time | None, Field(alias="lastOOMTime")] = None
    recycles: int | None = None
    evicted: int | None = None
    last_recycle_time: Time | None = None
    swaps: int | None = None
    last_swap_time: Time | None = None
    last_storm_time: Time | None = None
    workers: (
        Annotated[tuple[WorkerEntry, ...], Field(max_length=LISTED_WORKERS, json_schema_extra=_map("name"))]
        | None
    ) = None
    workers_omitted: int | None = None
    evictions: (
        Annotated[tuple[EvictionRecord, ...], Field(max_length=KEPT_EVICTIONS, json_schema_extra=_map("uid"))]
        | None
    ) = None
    devices: (
        Annotated[tuple[DeviceEntry, ...], Field(max_length=KEPT_TRIALS, json_schema_extra=_map("uuid"))]
        | None
    ) = None
    conditions: (
        Annotated[tuple[Condition, ...], Field(max_length=KEPT_CONDITIONS, json_schema_extra=_map("type"))]
        | None
    ) = None

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Self:
        """A stored status. What another version wrote and this one does not know is left out, so that it
        never stops a tick.
        """
        found: dict[str, Any] = {
            key: list(value) if isinstance(value, list | tuple) else value for key, value in raw.items()
        }
        while True:
            try:
                return cls.model_validate(found)
            except ValidationError as error:
                _leave_out(found, {tuple(each["loc"][:2]) for each in error.errors(include_url=False)})

    def written(self) -> dict[str, Any]:
        """As it goes to the API server: what is not known is not there."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def condition(self, kind: ConditionType) -> Condition | None:
        """The condition of a type, if it has been written."""
        return next((c for c in self.conditions or () if c.type is kind), None)


def _leave_out(found: dict[str, Any], places: set[tuple[int | str, ...]]) -> None:
    """Remove the fields, or items of lists, at the given places."""
    items: dict[str, set[int]] = {}
    for key, *rest in places:
        if rest and isinstance(rest[0], int) and isinstance(found.get(str(key)), list):
            items.setdefault(str(key), set()).add(rest[0])
        else:
            found.pop(str(key), None)
    for key, bad in items.items():
        if key in found:
            found[key] = [item for index, item in enumerate(found[key]) if index not in bad]
