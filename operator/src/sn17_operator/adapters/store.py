"""Pods and SN17Miners as last seen, fed by watches, by our own writes and by a full list now and then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .objects import trim


class Store:
    """Objects by uid. An older version never replaces a newer one, whichever way it comes.

    A full list repairs what a watch can miss: objects deleted while it was being started anew.
    """

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.miners: dict[str, dict[str, Any]] = {}

    def pod_seen(self, raw: Mapping[str, Any]) -> bool:
        """Keep a pod; false when it is not newer than what is known."""
        return _keep(self.pods, trim(raw))

    def pod_gone(self, uid: str) -> None:
        self.pods.pop(uid, None)

    def miner_seen(self, raw: Mapping[str, Any]) -> bool:
        return _keep(self.miners, dict(raw))

    def miner_gone(self, uid: str) -> None:
        self.miners.pop(uid, None)

    def replace_pods(self, listed: Iterable[Mapping[str, Any]]) -> None:
        self.pods = _replaced(self.pods, [trim(raw) for raw in listed])

    def replace_miners(self, listed: Iterable[Mapping[str, Any]]) -> None:
        self.miners = _replaced(self.miners, [dict(raw) for raw in listed])


def _version(raw: Mapping[str, Any]) -> int:
    try:
        return int(raw["metadata"].get("resourceVersion") or 0)
    except ValueError:
        return 0


def _keep(known: dict[str, dict[str, Any]], raw: dict[str, Any]) -> bool:
    uid = raw["metadata"]["uid"]
    old = known.get(uid)
    if old is not None and 0 < _version(raw) <= _version(old):
        return False
    known[uid] = raw
    return True


def _replaced(known: dict[str, dict[str, Any]], listed: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    fresh: dict[str, dict[str, Any]] = {}
    for raw in listed:
        old = known.get(raw["metadata"]["uid"])
        newer = old is not None and _version(old) > _version(raw)
        fresh[raw["metadata"]["uid"]] = old if newer and old is not None else raw
    return fresh
