"""Does Prometheus scrape every worker with the labels that the operator reads?"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sn17.doctor.model import Finding, failed, not_used, ok

NEEDED_LABELS: Final = ("pod_uid", "pod", "namespace", "release")
"""The operator finds a worker by ``pod_uid`` and its release by ``namespace`` and ``release``."""
SOURCES: Final = {
    "pod_uid": "__meta_kubernetes_pod_uid",
    "pod": "__meta_kubernetes_pod_name",
    "namespace": "__meta_kubernetes_namespace",
    "release": "__meta_kubernetes_pod_label_app_kubernetes_io_instance",
}


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker's pod that should be scraped."""

    pod: str
    uid: str
    address: str


@dataclass(frozen=True, slots=True)
class Target:
    """A series of the worker's metrics, or of ``up``; ``up`` is False where the last scrape failed."""

    labels: Mapping[str, str]
    up: bool


@dataclass(frozen=True, slots=True)
class Scraping:
    """``targets``: what Prometheus holds of workers, whatever their labels."""

    prometheus: str
    release: str
    namespace: str
    workers: Sequence[Worker]
    targets: Sequence[Target]


def judge_scraping(found: Scraping) -> Finding:
    if not found.workers:
        return not_used("no worker's pod runs, so nothing is to be scraped")
    unlabelled = [target for target in found.targets if _missing(target, found)]
    by_uid = {target.labels.get("pod_uid"): target for target in found.targets if not _missing(target, found)}
    unseen = [worker for worker in found.workers if worker.uid not in by_uid]
    if unseen and unlabelled:
        missing = sorted({label for target in unlabelled for label in _missing(target, found)})
        return failed(
            f"{found.prometheus} scrapes workers, but without what the operator needs: {', '.join(missing)}",
            "use the chart's PodMonitor, or add to the scrape job: relabel_configs: "
            f"[{', '.join(_rule(label) for label in missing)}]",
            _upgrade(found),
        )
    if unseen:
        return failed(
            f"{found.prometheus} does not scrape {', '.join(worker.pod for worker in unseen)}",
            "let it select the chart's PodMonitor (monitoring.podMonitor.additionalLabels) and let it in "
            "(networkPolicy.metricsFrom)",
            _upgrade(found),
        )
    down = [worker.pod for worker in found.workers if not by_uid[worker.uid].up]
    if down:
        return failed(
            f"{found.prometheus} knows {', '.join(down)}, but gets no answer from port 9090",
            "the worker's log and networkPolicy.metricsFrom say why",
            f"kubectl logs -n {shlex.quote(found.namespace)} {shlex.quote(down[0])} --tail=20",
        )
    return ok(f"{found.prometheus} scrapes {len(found.workers)} workers with {', '.join(NEEDED_LABELS)}")


def _missing(target: Target, found: Scraping) -> list[str]:
    """Labels that are absent; of a worker of this release also those that say something else."""
    own = any(worker.uid == target.labels.get("pod_uid") for worker in found.workers)
    right = {"release": found.release, "namespace": found.namespace} if own else {}
    return [
        label
        for label in NEEDED_LABELS
        if not target.labels.get(label) or target.labels[label] != right.get(label, target.labels[label])
    ]


def _rule(label: str) -> str:
    return f"{{source_labels: [{SOURCES[label]}], target_label: {label}}}"


def _upgrade(found: Scraping) -> str:
    return (
        f"helm upgrade {shlex.quote(found.release)} charts/sn17 -n {shlex.quote(found.namespace)} "
        "--reuse-values --set monitoring.podMonitor.enabled=true"
    )
