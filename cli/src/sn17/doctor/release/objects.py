"""What a release consists of, read from the API server's objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sn17_contract.kubernetes import LABEL_COMPONENT, MODEL_MISSING

from sn17.doctor.release.images import Answer, Image
from sn17.doctor.release.scraping import Worker

Manifest = Mapping[str, Any]
PULL_REASONS: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})


@dataclass(frozen=True, slots=True)
class ReleaseObjects:
    """Deployments and StatefulSets of a release, and its pods."""

    workloads: Sequence[Manifest]
    pods: Sequence[Manifest]

    def components(self) -> dict[str, Mapping[str, str]]:
        """Labels of the pods of each component."""
        found = (workload["spec"]["template"]["metadata"]["labels"] for workload in self.workloads)
        return {labels[LABEL_COMPONENT]: labels for labels in found if LABEL_COMPONENT in labels}

    def template(self, component: str) -> Manifest | None:
        """The pod's spec of a component's workload."""
        for workload in self.workloads:
            template = workload["spec"]["template"]
            if (template["metadata"].get("labels") or {}).get(LABEL_COMPONENT) == component:
                spec: Manifest = template["spec"]
                return spec
        return None

    def environment(self, component: str) -> dict[str, str]:
        """Settings of a component's first container that are given as plain values."""
        spec = self.template(component)
        env = spec["containers"][0].get("env") or () if spec else ()
        return {entry["name"]: entry["value"] for entry in env if "value" in entry}

    def secret(self, component: str, volume: str) -> str | None:
        """Name of the Secret behind a volume of a component."""
        for each in (self.template(component) or {}).get("volumes") or ():
            if each["name"] == volume and "secret" in each:
                return str(each["secret"]["secretName"])
        return None

    def workers(self) -> list[Manifest]:
        """Pods of the workers that are not on their way out."""
        return [
            pod
            for pod in self.pods
            if pod["metadata"]["labels"].get(LABEL_COMPONENT) == "trellis"
            and not pod["metadata"].get("deletionTimestamp")
        ]

    def pull_secrets(self) -> set[str]:
        """Names of the pull secrets of all components."""
        specs = (workload["spec"]["template"]["spec"] for workload in self.workloads)
        return {entry["name"] for spec in specs for entry in spec.get("imagePullSecrets") or ()}

    def images(self) -> list[str]:
        """References of all containers, each once."""
        specs = [workload["spec"]["template"]["spec"] for workload in self.workloads]
        containers = (each for spec in specs for each in _containers(spec))
        return sorted({str(container["image"]) for container in containers})

    def seen_by_nodes(self) -> dict[str, Image]:
        """What nodes say of images: that they run them, or cannot pull them."""
        found: dict[str, Image] = {}
        for pod in self.pods:
            by_name = {container["name"]: container["image"] for container in _containers(pod["spec"])}
            for status in _statuses(pod):
                image = _seen(str(by_name.get(status["name"], "")), status)
                # One node that cannot pull it counts for more than another that has it.
                if image and (image.reference not in found or image.answer is Answer.PULL_FAILED):
                    found[image.reference] = image
        return found


def scraped_workers(pods: Iterable[Manifest]) -> list[Worker]:
    """Workers whose container runs."""
    return [
        Worker(pod["metadata"]["name"], pod["metadata"]["uid"], (pod.get("status") or {}).get("podIP", ""))
        for pod in pods
        if (pod.get("status") or {}).get("phase") == "Running"
    ]


def unscheduled(pods: Iterable[Manifest]) -> list[tuple[str, str]]:
    """Pods that no node takes, each with the scheduler's words."""
    return [
        (
            pod["metadata"]["name"],
            str(condition.get("message") or condition.get("reason") or "no reason given"),
        )
        for pod in pods
        for condition in (pod.get("status") or {}).get("conditions") or ()
        if condition["type"] == "PodScheduled" and condition["status"] == "False"
    ]


def models_missing(pods: Iterable[Manifest]) -> list[tuple[str, str]]:
    """Workers that ended because nobody gave them weights, or damaged ones, each with its last words. One
    that is ready has found them since, whatever it said before its restart.
    """
    found = []
    for pod in (pod for pod in pods if not ready(pod)):
        for status in _statuses(pod):
            for state in ("state", "lastState"):
                words = ((status.get(state) or {}).get("terminated") or {}).get("message") or ""
                if words.startswith(f"{MODEL_MISSING}:"):
                    found.append((pod["metadata"]["name"], words.partition(":")[2].strip()))
    return found


def ready(pod: Manifest) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _containers(spec: Manifest) -> Iterator[Manifest]:
    yield from spec.get("initContainers") or ()
    yield from spec["containers"]


def _statuses(pod: Manifest) -> Iterator[Manifest]:
    status = pod.get("status") or {}
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _seen(reference: str, status: Manifest) -> Image | None:
    state = status.get("state") or {}
    waiting = state.get("waiting") or {}
    if waiting.get("reason") in PULL_REASONS:
        return Image(reference, Answer.PULL_FAILED, str(waiting.get("message") or waiting["reason"]))
    if state.get("running") or state.get("terminated") or status.get("lastState"):
        return Image(reference, Answer.RUNNING)
    return None
