"""Pods and SN17Miners as last seen, fed by watches, by our own writes and by a full list now and then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sn17_operator.adapters.objects import trim


class Store:
    """Objects by uid. An older version never replaces a newer one, whichever way it comes.

    A full list repairs what a watch can miss: objects deleted while it was being started anew. What was
    seen, or seen to go, while the list was on its way is newer than the list.
    """

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.miners: dict[str, dict[str, Any]] = {}
        self._gone: set[str] = set()

    def pod_seen(self, raw: Mapping[str, Any]) -> bool:
        """Keep a pod; false when it is not newer than what is known, or tells nothing else."""
        return _keep(self.pods, trim(raw))

    def pod_gone(self, uid: str) -> None:
        self.pods.pop(uid, None)
        self._gone.add(uid)

    def miner_seen(self, raw: Mapping[str, Any]) -> bool:
        return _keep(self.miners, dict(raw))

    def miner_gone(self, uid: str) -> None:
        self.miners.pop(uid, None)
        self._gone.add(uid)

    def begin_list(self) -> None:
        """Call before a list is asked for."""
        self._gone.clear()

    def replace_pods(self, answer: Mapping[str, Any]) -> None:
        self.pods = self._replaced(self.pods, answer, trim)

    def replace_miners(self, answer: Mapping[str, Any]) -> None:
        self.miners = self._replaced(self.miners, answer, dict)

    def _replaced(
        self,
        known: dict[str, dict[str, Any]],
        answer: Mapping[str, Any],
        cut: Callable[[Mapping[str, Any]], dict[str, Any]],
    ) -> dict[str, dict[str, Any]]:
        taken = _version(answer)
        fresh = {uid: raw for uid, raw in known.items() if _version(raw) > taken > 0}
        for raw in answer.get("items") or ():
            if raw["metadata"]["uid"] not in self._gone:
                _keep(fresh, cut(raw))
        return fresh


def _version(raw: Mapping[str, Any]) -> int:
    """Versions of one kind are ordered numbers; anything else counts as unknown."""
    try:
        return int((raw.get("metadata") or {}).get("resourceVersion") or 0)
    except ValueError:
        return 0


def _keep(known: dict[str, dict[str, Any]], raw: dict[str, Any]) -> bool:
    uid = raw["metadata"]["uid"]
    old = known.get(uid)
    if old is not None and 0 < _version(raw) <= _version(old):
        return False
    known[uid] = raw
    return old is None or _told(old) != _told(raw)


def _told(raw: Mapping[str, Any]) -> dict[str, Any]:
    """All but the version, which grows with every heartbeat of somebody else's condition."""
    return {**raw, "metadata": {k: v for k, v in raw["metadata"].items() if k != "resourceVersion"}}
