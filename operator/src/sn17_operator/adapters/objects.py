"""Kubernetes objects, as plain JSON, turned into the core's values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from sn17_contract.kubernetes import ANNOTATION_DELETION_COST, ANNOTATION_PAUSED, GROUP, LABEL_INSTANCE

from sn17_operator.adapters.annotations import read, wish
from sn17_operator.api import Spec, Workers
from sn17_operator.core.model import Device, DeviceHealth, Phase, Pod, Rollout, Termination
from sn17_operator.ports import Miner
from sn17_operator.status.codec import parse_time
from sn17_operator.status.resource import Status, Summary
from sn17_operator.status.view import Missing

Json = Mapping[str, Any]
DEVICES = "allocatedResourcesStatus"
CONTAINER = ("name", "containerID", "restartCount", "state", "lastState", "ready", DEVICES)
HEALTHS = frozenset(DeviceHealth)


def eviction(namespace: str, name: str, uid: str) -> dict[str, Any]:
    """The body that asks a pod to leave; another pod of the same name is left alone."""
    return {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
        "deleteOptions": {"preconditions": {"uid": uid}},
    }


def trim(raw: Json) -> dict[str, Any]:
    """The parts of a pod that are looked at: a fleet's full pods would be many megabytes."""
    meta, spec, status = raw.get("metadata") or {}, raw.get("spec") or {}, raw.get("status") or {}
    annotations = meta.get("annotations") or {}
    return {
        "metadata": {
            **{
                key: meta[key]
                for key in (
                    "name",
                    "namespace",
                    "uid",
                    "resourceVersion",
                    "creationTimestamp",
                    "deletionTimestamp",
                    "labels",
                )
                if key in meta
            },
            "annotations": {
                k: v
                for k, v in annotations.items()
                if k.startswith(f"{GROUP}/") or k == ANNOTATION_DELETION_COST
            },
        },
        "spec": {"nodeName": spec.get("nodeName")},
        "status": {
            "phase": status.get("phase"),
            "podIP": status.get("podIP"),
            "reason": status.get("reason"),
            "message": status.get("message"),
            "conditions": [
                c for c in status.get("conditions") or () if c.get("type") in ("Ready", "PodScheduled")
            ],
            "containerStatuses": [
                {k: c.get(k) for k in CONTAINER if k in c} for c in status.get("containerStatuses") or ()
            ],
        },
    }


def pod(raw: Json, workers: Workers) -> Pod:
    """A worker from its (trimmed) pod. ``ready`` is the pod's condition, so readiness gates count too."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    statuses = {c["name"]: c for c in status.get("containerStatuses") or ()}
    own = statuses.get(workers.container) or (next(iter(statuses.values())) if len(statuses) == 1 else {})
    phase, reason, message, started_at = _phase(status, conditions, own)
    notes = read(meta.get("annotations") or {})
    address = status.get("podIP")
    return Pod(
        uid=meta["uid"],
        name=meta["name"],
        namespace=meta.get("namespace", ""),
        created_at=parse_time(meta.get("creationTimestamp")) or 0.0,
        resource_version=meta.get("resourceVersion", ""),
        node=spec.get("nodeName"),
        address=f"http://{_host(address)}:{workers.ops_port}" if address else None,
        data_address=f"http://{_host(address)}:{workers.port}" if address else None,
        phase=phase,
        phase_reason=reason,
        phase_message=message,
        container_id=own.get("containerID") or "",
        started_at=started_at,
        restarts=int(own.get("restartCount") or 0),
        ready=conditions.get("Ready", {}).get("status") == "True",
        deleting=meta.get("deletionTimestamp") is not None,
        last_termination=_termination(own),
        intent=notes.intent,
        history=notes.history,
        user_cordon=notes.user_cordon,
        recycle_requested=notes.recycle_requested,
        skip=notes.skip,
        deletion_cost=_cost((meta.get("annotations") or {}).get(ANNOTATION_DELETION_COST)),
        malformed=notes.malformed,
        devices=_devices(own),
    )


def _devices(own: Json) -> tuple[Device, ...]:
    """Devices that kubelet has given to the container, where it tells (KEP-4680). A health that this version
    does not know is unknown.
    """
    return tuple(
        Device(
            str(each.get("resourceID") or ""),
            DeviceHealth(said) if (said := each.get("health")) in HEALTHS else DeviceHealth.UNKNOWN,
        )
        for resource in own.get(DEVICES) or ()
        for each in resource.get("resources") or ()
    )


def _cost(text: str | None) -> int | None:
    """What cannot be read counts as Kubernetes counts it: as 0."""
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        return 0


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _phase(status: Json, conditions: Json, own: Json) -> tuple[Phase, str, str, float | None]:
    state = own.get("state") or {}
    if (running := state.get("running")) is not None:
        return Phase.RUNNING, "", "", parse_time(running.get("startedAt"))
    if (waiting := state.get("waiting")) is not None:
        return Phase.WAITING, waiting.get("reason") or "Waiting", (waiting.get("message") or "")[:300], None
    if (ended := state.get("terminated")) is not None:
        return Phase.TERMINATED, ended.get("reason") or "Terminated", (ended.get("message") or "")[:300], None
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return (
            Phase.PENDING,
            scheduled.get("reason") or "Unscheduled",
            (scheduled.get("message") or "")[:300],
            None,
        )
    return (
        Phase.PENDING,
        status.get("reason") or status.get("phase") or "Pending",
        status.get("message") or "",
        None,
    )


def _termination(own: Json) -> Termination | None:
    for state in (own.get("state") or {}, own.get("lastState") or {}):
        ended = state.get("terminated")
        if ended:
            at = parse_time(ended.get("finishedAt")) or 0.0
            return Termination(
                ended.get("reason") or "",
                int(ended.get("exitCode") or 0),
                at,
                (ended.get("message") or "")[:300],
            )
    return None


def miner(raw: Json) -> Miner:
    """An SN17Miner.

    Raises:
        ValueError: its spec does not have the form that the CustomResourceDefinition demands.
    """
    meta = raw["metadata"]
    try:
        spec = Spec.model_validate(raw.get("spec") or {})
    except ValidationError as error:
        where = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False)
        )
        raise ValueError(f"spec: {where}") from error
    return Miner(
        uid=meta["uid"],
        name=meta["name"],
        namespace=meta.get("namespace", ""),
        spec=spec,
        resource_version=meta.get("resourceVersion", ""),
        generation=int(meta.get("generation") or 0),
        paused=wish((meta.get("annotations") or {}).get(ANNOTATION_PAUSED)),
        status=Status.read(raw.get("status") or {}),
        instance=(meta.get("labels") or {}).get(LABEL_INSTANCE),
    )


def rollout(deployment: Json) -> Rollout:
    spec, status = deployment.get("spec") or {}, deployment.get("status") or {}
    return Rollout(
        generation=int((deployment.get("metadata") or {}).get("generation") or 0),
        observed_generation=int(status.get("observedGeneration") or 0),
        replicas=int(spec.get("replicas", 1)),
        updated=int(status.get("updatedReplicas") or 0),
    )


def selector_text(selector: Json) -> str:
    """A label selector as one string, as the ``scale`` subresource wants it."""
    found = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for expression in selector.get("matchExpressions") or ():
        key, values = expression["key"], ",".join(expression.get("values") or ())
        forms = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }
        found.append(forms[expression["operator"]])
    return ",".join(found)


def matches(selector: Json, labels: Mapping[str, str]) -> bool:
    """A label selector with ``matchLabels`` and ``matchExpressions``."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for expression in selector.get("matchExpressions") or ():
        key, operator, values = expression["key"], expression["operator"], expression.get("values") or ()
        held = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not held.get(operator, False):
            return False
    return True


WORDS = (Summary.HOTKEY_MISSING, Summary.MODEL_MISSING)


def missing_in_status(raw: Json) -> Missing | None:
    """What a container of a pod said, when it ended, that a person must supply."""
    for container in (raw.get("status") or {}).get("containerStatuses") or ():
        for state in (container.get("state") or {}, container.get("lastState") or {}):
            message = str((state.get("terminated") or {}).get("message") or "").strip()
            for word in WORDS:
                if message.startswith(f"{word}:"):
                    return Missing(word, message.removeprefix(f"{word}:").strip()[:500])
    return None


def waits_for_configuration(raw: Json) -> str | None:
    """kubelet's own words when a container cannot be made without a Secret or ConfigMap."""
    for container in (raw.get("status") or {}).get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") == "CreateContainerConfigError":
            return str(waiting.get("message") or "")
    return None
