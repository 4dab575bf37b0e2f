"""Ways to live with the same leak on a cluster, and how work was broken off under each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import httpx2
from prometheus_client.parser import text_string_to_metric_families
from sn17_cluster.stack import terminations
from sn17_contract.kubernetes import EXIT_CODE_RECYCLE
from sn17_contract.metrics import Metric

SEEN_SECONDS: Final = 3.0
"""A look is that old at most, to say what a container was at when it ended."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way: the worker's own guard, the operator, a process manager's threshold, the worker's own end.

    ``self_exit``: its model process ends after the job in which it passed the threshold, and the parent with
    the imports makes another one; nothing is lost by it. ``model_process``: the model is one of its own.
    """

    name: str
    guard: bool = False
    operator: bool = False
    threshold: bool = False
    self_exit: bool = False
    leaks: bool = True

    @property
    def model_process(self) -> bool:
        return self.guard or self.operator or self.self_exit


ARMS: Final = (
    Arm("no leak", guard=True, operator=True, leaks=False),
    Arm("restart when killed (OOM)"),
    Arm("restart at a threshold (PM2)", threshold=True),
    Arm("self-exit after a job", self_exit=True),
    Arm("guard with swaps, no operator", guard=True),
    Arm("sn17", guard=True, operator=True),
)
"""A Deployment's containers are always started again, so there is no arm in which nobody does anything."""


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    busy: bool


@dataclass(slots=True)
class Ends:
    """Jobs that were broken off, from how containers and model processes end: the same count in every arm."""

    _looks: dict[str, list[_Look]] = field(default_factory=dict)
    _reruns: dict[str, float] = field(default_factory=dict)
    swaps: dict[str, dict[str, float]] = field(default_factory=dict)
    """Ends of recycles of model processes by service, and by act and outcome."""

    def look(self, pod: Mapping[str, Any], said: Mapping[str, Any], now: float) -> None:
        """What a worker says of itself."""
        looks = self._looks.setdefault(str(pod["metadata"]["uid"]), [])
        looks.append(_Look(now, said["job"] is not None))

    def read(self, boot_id: str, text: str) -> None:
        """A worker's metrics: counters of one service, which never fall."""
        total = 0.0
        for family in text_string_to_metric_families(text):
            if family.name == Metric.JOBS_RERUN:
                total += sum(s.value for s in family.samples if s.name.endswith("_total"))
            elif family.name == Metric.SWAPS:
                self.swaps[boot_id] = {
                    " ".join(sorted(s.labels.values())): s.value
                    for s in family.samples
                    if s.name.endswith("_total") and s.value
                }
        self._reruns[boot_id] = max(total, self._reruns.get(boot_id, 0.0))

    def recycles(self) -> dict[str, int]:
        """Recycles of model processes by act and outcome."""
        found: dict[str, int] = {}
        for counts in self.swaps.values():
            for name, count in counts.items():
                found[name] = found.get(name, 0) + int(count)
        return found

    def killed_at_work(self, pods: Iterable[Mapping[str, Any]]) -> int:
        """Jobs begun a second time, and containers that ended at work without having finished it."""
        return int(sum(self._reruns.values())) + len(set(self._ended_at_work(pods)))

    def _ended_at_work(self, pods: Iterable[Mapping[str, Any]]) -> Iterable[str]:
        for pod in pods:
            looks = self._looks.get(str(pod["metadata"]["uid"]), [])
            for end in terminations(pod):
                if end["exitCode"] == EXIT_CODE_RECYCLE:
                    continue
                ended = datetime.fromisoformat(str(end["finishedAt"])).timestamp()
                # kubelet's times are whole seconds, cut off.
                near = [look for look in looks if ended - SEEN_SECONDS <= look.at <= ended + 1.0]
                if near and near[-1].busy:
                    yield str(end["containerID"])


def metrics_text(request: Any, address: str) -> str | None:
    """A worker's metrics; None where it does not answer."""
    with contextlib.suppress(httpx2.HTTPError):
        answer = request("GET", f"http://{address}/metrics", timeout=1.0)
        return str(answer.text) if answer.status_code == 200 else None
    return None
