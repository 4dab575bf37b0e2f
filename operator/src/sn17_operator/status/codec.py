"""A status on its way to the API server and back: times, evictions, what is worth writing, what turned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sn17_operator.core.model import Eviction

NUMBERS = ("gaussians", "memory", "success", "yield", "success4h", "yield4h")


def worth_writing(
    new: Mapping[str, Any], old: Mapping[str, Any], seconds_since: float, every: float = 30.0
) -> bool:
    """True when something happened, or when only figures moved and the last write is long enough ago."""

    def happened(status: Mapping[str, Any]) -> dict[str, Any]:
        kept = {
            k: v for k, v in status.items() if k not in (*NUMBERS, "message", "conditions", "lastStormTime")
        }
        kept["conditions"] = [
            {k: c.get(k) for k in ("type", "status", "reason", "observedGeneration")}
            for c in status.get("conditions") or ()
        ]
        return kept

    if dict(new) == dict(old):
        return False
    return happened(new) != happened(old) or seconds_since >= every


def flips(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Conditions that turned, as (reason, message, bad news); by the written status, so told once."""
    good = {"Ready": "True", "MetricsAvailable": "True", "RemediationAllowed": "True"}
    known = {c.get("type"): (c.get("status"), c.get("reason")) for c in old.get("conditions") or ()}
    told = []
    for condition in new.get("conditions") or ():
        kind, status, reason = condition["type"], condition["status"], condition["reason"]
        bad = status != good.get(kind, "False")
        before = known.get(kind)
        turned = before is None or before[0] != status or (bad and before[1] != reason)
        if kind == "Ready" or not turned or (before is None and not bad) or status == "Unknown":
            continue
        text = (
            f"{kind} is {status}: {condition['message']}" if condition["message"] else f"{kind} is {status}"
        )
        told.append((reason, text, bad))
    return told


def rfc3339(at: float) -> str:
    """Whole seconds, as the API writes times."""
    return datetime.fromtimestamp(at, tz=UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def parse_time(text: Any) -> float | None:
    """Unix seconds of an RFC 3339 time, None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def eviction_to_dict(eviction: Eviction) -> dict[str, Any]:
    found: dict[str, Any] = {
        "uid": eviction.uid,
        "pod": eviction.pod,
        "reason": eviction.reason[:256],
        "time": rfc3339(eviction.at),
        "settled": eviction.settled,
    }
    if eviction.cured:
        found["cured"] = True
    if eviction.node:
        found["node"] = eviction.node
    if eviction.replacement_uid:
        found["replacementUID"] = eviction.replacement_uid
    return found


def evictions_from(status: Mapping[str, Any]) -> tuple[Eviction, ...]:
    """The evictions that a written status holds; unreadable entries are left out."""
    found = []
    for item in status.get("evictions") or ():
        at = parse_time(item.get("time"))
        if at is None or not item.get("uid"):
            continue
        record = Eviction(item["uid"], item.get("pod", ""), item.get("node"), item.get("reason", ""), at)
        found.append(
            replace(
                record,
                replacement_uid=item.get("replacementUID"),
                settled=bool(item.get("settled", False)),
                cured=bool(item.get("cured", False)),
            )
        )
    return tuple(found)
