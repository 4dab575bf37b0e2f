"""Reaches a release in a cluster through ``kubectl port-forward``, one forward per pod."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sn17_contract.http import FIXER_PORT, OPS_PORT, TRELLIS_PORT
from sn17_contract.kubernetes import LABEL_COMPONENT, LABEL_INSTANCE

from sn17 import interrupts
from sn17.cluster.access import Access, ClusterError


@dataclass(frozen=True, slots=True)
class Release:
    """A Helm release of this chart."""

    name: str
    access: Access = field(default_factory=Access)
    kubectl: str = "kubectl"

    @property
    def namespace(self) -> str:
        """Where it is. Raises ClusterError."""
        return self.access.chosen_namespace()

    def pods(self, component: str) -> list[str]:
        """Names of a component's running pods. Raises ClusterError when there are none."""
        found = self._of("pods", component, "--field-selector=status.phase=Running")
        names = sorted(str(pod["metadata"]["name"]) for pod in found)
        if not names:
            raise ClusterError(
                f"release {self.name} in namespace {self.namespace} has no running {component} pod: "
                "`kubectl get sn17miners` says why"
            )
        return names

    def admin_token(self) -> str:
        """The token of the miner's admin routes, wherever the release keeps it. Raises ClusterError."""
        miner = self._one("statefulsets", "miner")
        volumes = {volume["name"]: volume for volume in miner["spec"]["template"]["spec"]["volumes"]}
        secret = self._json("get", "secret", volumes["admin-token"]["secret"]["secretName"])
        return base64.b64decode(secret["data"]["token"]).decode()

    def acceptance(self) -> dict[str, Any]:
        """Policy and thresholds of the release's values. Raises ClusterError."""
        criteria: dict[str, Any] = json.loads(self._one("configmaps", "smoke")["data"]["acceptance.json"])
        return criteria

    def targets(self) -> str | None:
        """The shares of accepted tasks that the release's values name, as JSON. Raises ClusterError."""
        data: dict[str, str] = self._one("configmaps", "smoke")["data"]
        return data.get("targets.json")

    def _of(self, kind: str, component: str, *flags: str) -> list[Any]:
        selector = f"{LABEL_INSTANCE}={self.name},{LABEL_COMPONENT}={component}"
        items: list[Any] = self._json("get", kind, "-l", selector, *flags)["items"]
        return items

    def _one(self, kind: str, component: str) -> Any:
        found = self._of(kind, component)
        if not found:
            raise ClusterError(
                f"there is no release {self.name} with a {component} in namespace {self.namespace}: "
                "`helm list -A` shows where it is"
            )
        return found[0]

    @contextlib.contextmanager
    def workers_and_fixer(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Base URLs of every running worker and of one fixer."""
        with contextlib.ExitStack() as stack:
            workers = tuple(
                stack.enter_context(self.forward(pod, TRELLIS_PORT)) for pod in self.pods("trellis")
            )
            fixer = stack.enter_context(self.forward(self.pods("fixer")[0], FIXER_PORT))
            yield workers, fixer

    @contextlib.contextmanager
    def miner(self) -> Iterator[str]:
        """Base URL of the miner's ops port."""
        with self.forward(self.pods("miner")[0], OPS_PORT) as url:
            yield url

    @contextlib.contextmanager
    def forward(self, pod: str, port: int) -> Iterator[str]:
        """Base URL on this machine of a pod's port, while it is held. Raises ClusterError."""
        argv = [self.kubectl, "port-forward", *self.access.kubectl_flags(), f"pod/{pod}", f":{port}"]
        argv.append("--address=127.0.0.1")
        with _started(argv) as process, interrupts.at_once(process.kill):
            assert process.stdout is not None
            try:
                line = process.stdout.readline()
                found = re.search(r"127\.0\.0\.1:(\d+) ->", line)
                if found is None:
                    raise ClusterError(f"kubectl port-forward to {pod} failed: {line.strip() or 'no output'}")
                yield f"http://127.0.0.1:{found[1]}"
            finally:
                process.kill()

    def _json(self, *args: str) -> Any:
        argv = [self.kubectl, *args, *self.access.kubectl_flags(), "-o", "json"]
        try:
            answer = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ClusterError(f"{self.kubectl} does not work: {error}") from error
        if answer.returncode:
            raise ClusterError(f"kubectl {' '.join(args)}: {answer.stderr.strip()}")
        try:
            return json.loads(answer.stdout)
        except ValueError as error:
            raise ClusterError(f"kubectl {' '.join(args)}: the answer is no JSON") from error


def _started(argv: list[str]) -> subprocess.Popen[str]:
    try:
        # In a group of its own: Ctrl-C in a terminal must not end it before what goes through it.
        return subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
        )
    except OSError as error:
        raise ClusterError(f"{argv[0]} does not work: {error}") from error
