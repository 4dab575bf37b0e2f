"""How a test talks to a cluster, whoever provides it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Manifest = Mapping[str, Any]
SUMMARY_LINES = 30


class CommandError(Exception):
    """kubectl or helm did not exit with 0; the message holds the command and what it said."""

    def __init__(self, argv: Sequence[str], answer: subprocess.CompletedProcess[str]) -> None:
        super().__init__(
            f"{' '.join(argv)} exited with {answer.returncode}:\n{answer.stdout}{answer.stderr}".rstrip()
        )
        self.stdout = answer.stdout
        self.stderr = answer.stderr
        self.returncode = answer.returncode


@dataclass(frozen=True)
class Cluster:
    """A reachable API server and the tools to use it.

    kubeconfig: works from this process's own network namespace, whatever the cluster's.
    tools: paths of command-line tools by name (`kubectl`, `helm`, `promtool`, ...).
    runs_pods: False for a bare control plane, where pods stay Pending.
    network: the command prefix that enters the node's network namespace; empty where there is none.
    load: imports an image archive into every node; None where pods take their images from elsewhere.
    namespaces: those that `namespace()` has made and not deleted yet.
    """

    kubeconfig: Path
    tools: Mapping[str, str]
    runs_pods: bool = False
    network: Sequence[str] = field(default=())
    load: Callable[[Path], None] | None = None
    namespaces: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Environment for programs that read KUBECONFIG (helm, kopf, the Python client)."""
        home = self.kubeconfig.parent / "home"
        return {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "HELM_CACHE_HOME": str(home / "helm-cache"),
            "HELM_CONFIG_HOME": str(home / "helm-config"),
            "HELM_DATA_HOME": str(home / "helm-data"),
            "KUBECACHEDIR": str(home / "kube-cache"),
        }

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a program with the cluster's environment.

        Raises:
            CommandError: it exited with another code than 0, and `check` is set.
            subprocess.TimeoutExpired: it took more than `timeout` seconds.
        """
        answer = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environment,
            check=False,
        )
        if check and answer.returncode:
            raise CommandError([Path(argv[0]).name, *argv[1:]], answer)
        return answer

    def kubectl(self, *args: str, stdin: str | None = None, timeout: float = 120) -> str:
        """What `kubectl args` prints. Raises CommandError."""
        return self.run([self.tools["kubectl"], *args], stdin=stdin, timeout=timeout).stdout

    def helm(self, *args: str, tool: str = "helm", timeout: float = 600) -> str:
        """What `helm args` prints; `tool="helm3"` for version 3. Raises CommandError."""
        return self.run([self.tools[tool], *args], timeout=timeout).stdout

    def get(self, kind: str, name: str = "", *, namespace: str = "", selector: str = "") -> Any:
        """An object, or without a name the list of objects, as parsed JSON. Raises CommandError."""
        args = ["get", kind, "-o", "json"]
        if name:
            args.append(name)
        args += ["-n", namespace] if namespace else []
        args += ["-l", selector] if selector else []
        parsed = json.loads(self.kubectl(*args))
        return parsed if name else parsed["items"]

    def apply(self, *manifests: Manifest | str, namespace: str = "") -> None:
        """Apply objects (mappings, or YAML text) on the server's side. Raises CommandError."""
        text = "\n---\n".join(m if isinstance(m, str) else json.dumps(m) for m in manifests)
        scope = ["-n", namespace] if namespace else []
        self.kubectl(
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=test",
            *scope,
            "-f",
            "-",
            stdin=text,
        )

    def wait_established(self, *definitions: str, timeout: float = 60) -> None:
        """Wait until the API server serves these custom resource definitions.

        Not `kubectl wait --for=condition=Established`, which fails at once while there are no conditions yet.

        Raises:
            TimeoutError: it does not within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        for name in definitions:
            while not self._established(name):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{name} is not established after {timeout:.0f} s")
                time.sleep(0.2)

    def _established(self, name: str) -> bool:
        conditions = self.get("crd", name).get("status", {}).get("conditions") or []
        return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)

    def advertise(self, resource: str, count: int, *, node: str) -> None:
        """Pretend that `node` has `count` of an extended resource, such as `nvidia.com/gpu`.

        A kubelet that starts anew forgets it. Raises CommandError.
        """
        patch = {"status": {"capacity": {resource: str(count)}}}
        self.kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", json.dumps(patch))
        escaped = resource.replace(".", "\\.")
        self.kubectl(
            "wait",
            f"--for=jsonpath={{.status.allocatable.{escaped}}}={count}",
            f"node/{node}",
            "--timeout=30s",
        )

    @contextlib.contextmanager
    def namespace(self, prefix: str = "test", labels: Mapping[str, str] | None = None) -> Iterator[str]:
        """A namespace with a name of its own, deleted afterwards (without waiting for it)."""
        name = f"{prefix}-{secrets.token_hex(3)}"
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name, "labels": dict(labels or {})},
            }
        )
        # A pod made before its service account exists is refused.
        self.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=30s")
        self.namespaces.append(name)
        try:
            yield name
        finally:
            self.namespaces.remove(name)
            self.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")

    @contextlib.contextmanager
    def forward(self, target: str, port: int, *, namespace: str) -> Iterator[int]:
        """A free loopback port that leads to `port` of `target` (`pod/x`, `svc/y`, `deploy/z`)."""
        argv = [
            self.tools["kubectl"],
            "port-forward",
            "-n",
            namespace,
            target,
            f":{port}",
            "--address=127.0.0.1",
        ]
        with subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
        ) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if (found := re.search(r"127\.0\.0\.1:(\d+) ->", line)) is None:
                    process.kill()
                    raise CommandError(
                        argv,
                        subprocess.CompletedProcess(argv, process.wait(), line + process.stdout.read(), ""),
                    )
                yield int(found[1])
            finally:
                process.kill()

    def summary(self, namespace: str) -> str:
        """What a person would ask first about a failure: the pods, the last Events, the ends of the logs."""
        kubectl = [self.tools["kubectl"], "-n", namespace]
        pods = self.run([*kubectl, "get", "pods", "-o", "wide"], check=False).stdout
        events = self.run([*kubectl, "get", "events", "--sort-by=.lastTimestamp"], check=False).stdout
        parts = [pods, *events.splitlines()[-SUMMARY_LINES:]]
        for pod in self.get("pods", namespace=namespace):
            name = pod["metadata"]["name"]
            flags = ["--all-containers", "--prefix", f"--tail={SUMMARY_LINES}"]
            parts.append(self.run([*kubectl, "logs", name, *flags], check=False).stdout)
        return "\n".join(part.rstrip() for part in parts if part)

    def dump(self, folder: Path, namespace: str) -> Path:
        """Write what a person would look at first: objects, descriptions, Events and logs of a namespace."""
        folder.mkdir(parents=True, exist_ok=True)
        listings = {
            "objects.txt": ["get", "all,configmaps,pvc,endpointslices", "-o", "wide"],
            "pods.txt": ["describe", "pods"],
            "events.txt": ["get", "events", "--sort-by=.lastTimestamp"],
        }
        for name, args in listings.items():
            answer = self.run([self.tools["kubectl"], *args, "-n", namespace], check=False)
            (folder / name).write_text(answer.stdout + answer.stderr)
        for pod in self.get("pods", namespace=namespace):
            for container in pod["spec"]["containers"]:
                self._dump_logs(folder, namespace, pod["metadata"]["name"], container["name"])
        return folder

    def _dump_logs(self, folder: Path, namespace: str, pod: str, container: str) -> None:
        for suffix, flags in {"": [], ".previous": ["--previous"]}.items():
            argv = [self.tools["kubectl"], "logs", "-n", namespace, pod, "-c", container, *flags]
            answer = self.run(argv, check=False)
            if answer.returncode == 0:
                (folder / f"{pod}.{container}{suffix}.log").write_text(answer.stdout)
