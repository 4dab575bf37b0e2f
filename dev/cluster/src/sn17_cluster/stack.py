"""sn17 as Helm installs it on a cluster, and what a test asks it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sn17_cluster.client import Cluster, CommandError
from sn17_cluster.requirements import REPOSITORY

CHART = REPOSITORY / "charts" / "sn17"
WITHOUT_REGISTRY = {"image": {"preloaded": True}, "grafana": {"enabled": False}}
"""Images are loaded into the nodes; that of Grafana is not among them."""
POLL_SECONDS = 0.5

Object = Mapping[str, Any]
T = TypeVar("T")


class TimeoutExpiredError(AssertionError):
    """Something did not happen in time; the message says what was seen last."""


def wait_until(what: str, look: Callable[[], T | None], *, timeout: float) -> T:
    """Look again and again until the answer is neither None nor false, and return it.

    A command that fails is looked at again: API servers restart and pods go.

    Raises:
        TimeoutExpiredError: `timeout` seconds passed.
    """
    deadline = time.monotonic() + timeout
    failure: CommandError | None = None
    while time.monotonic() < deadline:
        try:
            if answer := look():
                return answer
            failure = None
        except CommandError as error:
            failure = error
        time.sleep(POLL_SECONDS)
    raise TimeoutExpiredError(f"after {timeout:.0f} s still not: {what}{f' ({failure})' if failure else ''}")


class Recorder:
    """Everything that happens to the objects of one kind in a namespace, until `stop`.

    form: `json`, or another of kubectl's output forms for people to read.
    """

    def __init__(
        self, cluster: Cluster, kind: str, namespace: str, folder: Path, *, form: str = "json"
    ) -> None:
        self._path = folder / f"{namespace}.{kind}.{form}"
        argv = [cluster.tools["kubectl"], "get", kind, "-n", namespace, "--watch", "-o", form]
        with self._path.open("wb") as output:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *argv],
                stdout=output,
                stderr=subprocess.DEVNULL,
                env=cluster.environment,
            )

    def objects(self) -> Iterator[Any]:
        """Every version of every object that was seen, in order."""
        text, decoder, at = self._path.read_text(), json.JSONDecoder(), 0
        while (at := _skip_space(text, at)) < len(text):
            try:
                value, at = decoder.raw_decode(text, at)
            except json.JSONDecodeError:
                return
            yield value

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


@dataclass(frozen=True)
class Stack:
    """One release in a namespace of its own."""

    cluster: Cluster
    namespace: str
    release: str = "sn17"

    # --- Helm -----------------------------------------------------------------------------------------

    def install(self, values: Object, *, preset: str = "values-laptop.yaml", wait: bool = False) -> None:
        """`helm install` with a preset and `values` on top. Raises CommandError."""
        self._helm("install", values, preset, wait)

    def upgrade(self, values: Object, *, preset: str = "values-laptop.yaml", wait: bool = False) -> None:
        """`helm upgrade` with a preset and `values` on top. Raises CommandError."""
        self._helm("upgrade", values, preset, wait)

    def _helm(self, verb: str, values: Object, preset: str, wait: bool) -> None:
        path = self.cluster.kubeconfig.parent / f"values-{self.namespace}.json"
        path.write_text(json.dumps({**WITHOUT_REGISTRY, **values}))
        files = [f"--values={CHART / preset}", f"--values={path}"]
        waiting = ["--wait", "--timeout=180s"] if wait else []
        self.cluster.helm(verb, self.release, str(CHART), "-n", self.namespace, *files, *waiting)

    def uninstall(self, *, timeout: int) -> None:
        """`helm uninstall`, waiting until everything is gone. Raises CommandError."""
        self.cluster.helm("uninstall", self.release, "-n", self.namespace, "--wait", f"--timeout={timeout}s")

    # --- what Kubernetes shows ------------------------------------------------------------------------

    def miner(self) -> Any:
        """The SN17Miner."""
        return self.cluster.get("sn17miner", self.release, namespace=self.namespace)

    def status(self) -> str:
        """The STATUS column."""
        return str(self.miner().get("status", {}).get("status", ""))

    def condition(self, kind: str) -> Any:
        """The condition `kind` of the SN17Miner, or an empty mapping."""
        found = [each for each in self.miner()["status"]["conditions"] if each["type"] == kind]
        return found[0] if found else {}

    def columns(self, *flags: str) -> str:
        """What `kubectl get sn17miners` prints."""
        return self.cluster.kubectl("get", "sn17miners", "-n", self.namespace, *flags)

    def pods(self, component: str) -> list[Any]:
        """Pods of a component that are not being deleted."""
        selector = f"app.kubernetes.io/instance={self.release},app.kubernetes.io/component={component}"
        found = self.cluster.get("pods", namespace=self.namespace, selector=selector)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def is_ready(self, component: str, count: int = 1) -> bool:
        """Whether `count` pods of a component are Ready."""
        return sum(ready(pod) for pod in self.pods(component)) == count

    def scale(self, component: str, replicas: int) -> None:
        """Scale a Deployment and wait until it is so."""
        deployment = f"deploy/{self.release}-{component}"
        self.cluster.kubectl("scale", deployment, f"--replicas={replicas}", "-n", self.namespace)
        wait_until(
            f"{replicas} pods of {component}",
            lambda: len(self.pods(component)) == replicas and self.is_ready(component, replicas),
            timeout=90,
        )

    def events(self, reason: str = "") -> list[Any]:
        """Events of the namespace, the oldest first."""
        found = self.cluster.get("events", namespace=self.namespace)
        chosen = [event for event in found if not reason or event["reason"] == reason]
        return sorted(chosen, key=lambda event: event["metadata"]["creationTimestamp"])

    # --- what the services say ------------------------------------------------------------------------

    def _proxy(self, kind: str, name: str, port: int, path: str) -> str:
        prefix = f"/api/v1/namespaces/{self.namespace}/{kind}/{name}:{port}/proxy"
        return self.cluster.kubectl("get", "--raw", f"{prefix}{path}", timeout=20)

    def worker(self, pod: str) -> Any:
        """`GET /v1/worker` of a TRELLIS pod."""
        return json.loads(self._proxy("pods", pod, 10006, "/v1/worker"))

    def memory_ratio(self, pod: str) -> float:
        """Unreclaimable memory of a TRELLIS pod as a share of its limit."""
        memory = self.worker(pod)["memory"]
        return float(memory["unreclaimable_bytes"] / memory["limit_bytes"])

    def tasks(self) -> list[Any]:
        """Every task that the local validators handed out, with what became of it."""
        ledger = json.loads(self._proxy("services", f"{self.release}-validators", 8099, "/ledger"))
        return [task for validator in ledger["validators"] for task in validator["tasks"]]

    def accepted(self) -> int:
        """How many of them were accepted."""
        return sum(task["outcome"] == "accepted" for task in self.tasks())

    def query(self, promql: str) -> list[Any]:
        """The series of an instant query to the bundled Prometheus."""
        name = f"{self.release}-prometheus"
        answer = json.loads(self._proxy("services", name, 9090, f"/api/v1/query?query={quote(promql)}"))
        series: list[Any] = answer["data"]["result"]
        return series


def ready(pod: Object) -> bool:
    """Whether a pod is Ready."""
    conditions = pod["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def restarts(pod: Object) -> int:
    """How often the pod's containers were restarted."""
    return sum(status["restartCount"] for status in pod["status"].get("containerStatuses", []))


def terminations(pod: Object) -> Iterator[Any]:
    """The ends of containers that a version of a pod tells of."""
    for status in pod["status"].get("containerStatuses", []):
        for state in (status.get("state", {}), status.get("lastState", {})):
            if "terminated" in state:
                yield state["terminated"]


def out_of_memory_kills(pods: Recorder) -> set[str]:
    """Container ids that a recorder saw end as OOMKilled."""
    return {
        end["containerID"]
        for pod in pods.objects()
        for end in terminations(pod)
        if end.get("reason") == "OOMKilled"
    }
