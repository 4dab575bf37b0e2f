"""The laptop preset alive without a node: pods of a real API server, backed by the services as processes.

Each pod of the release gets a process with the environment that the chart renders for it (files and
addresses aside), on a loopback address of its own, as pods have; a real Prometheus scrapes them with the
labels that the chart's relabelling gives; the real operator watches both. What is played is kubelet's part:
starting the process again after it ended, and saying so in the pod's status.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml
from sn17_cluster.client import Cluster

OPS_PORT = 9090
SCRAPE_SECONDS = 1
NET = 88
MODULES = {
    "trellis": ("sn17_trellis", "serve"),
    "fixer": ("sn17_fixer",),
    "miner": ("sn17_miner",),
    "operator": ("sn17_operator",),
    "validators": ("sn17_devnet",),
    "gateway": ("sn17_gateway",),
}


def wait_for(what: str, found: Callable[[], Any], seconds: float) -> Any:
    """The first true answer of ``found`` within a deadline."""
    end = time.monotonic() + seconds
    while not (answer := _quietly(found)):
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.2)
    return answer


def _quietly(found: Callable[[], Any]) -> Any:
    with contextlib.suppress(OSError):
        return found()
    return None


@dataclass
class LivePod:
    """One pod and its process, started again whenever it ends, as ``restartPolicy: Always`` has it."""

    cluster: Cluster
    namespace: str
    pod: Mapping[str, Any]
    address: str
    environment: Mapping[str, str]
    folder: Path
    restarts: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        return str(self.pod["metadata"]["name"])

    @property
    def component(self) -> str:
        return str(self.pod["metadata"]["labels"]["app.kubernetes.io/component"])

    @property
    def ready_file(self) -> Path:
        return self.folder / f"{self.name}.ready"

    def start(self, seconds: float = 180) -> None:
        threading.Thread(target=self._supervise, name=self.name, daemon=True).start()
        wait_for(f"{self.name} listens", self.ready_file.exists, seconds)

    def stop(self) -> None:
        self._stopping.set()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def replace(self) -> None:
        """End the process as a replaced pod's ends, and wait for the next one."""
        assert self._process is not None
        self.ready_file.unlink()
        self._process.terminate()
        wait_for(f"{self.name} listens again", self.ready_file.exists, 180)

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            with (self.folder / f"{self.name}.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", *MODULES[self.component]],
                    env={**os.environ, **self.environment, "SN17_READY_FILE": str(self.ready_file)},
                    stdout=log,
                    stderr=log,
                )
            self._report(None)
            code = self._process.wait()
            if not self._stopping.is_set():
                self.restarts += 1
                self._report(code)

    def _report(self, exit_code: int | None) -> None:
        """What kubelet writes about the container."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        ended = {"exitCode": exit_code, "reason": "Error", "finishedAt": now, "startedAt": now}
        container = {
            "name": self.component,
            "image": "none",
            "imageID": "none",
            "ready": True,
            "started": True,
            "restartCount": self.restarts,
            "containerID": f"containerd://{self.name}-{self.restarts}",
            "state": {"running": {"startedAt": now}},
            "lastState": {"terminated": ended} if exit_code is not None else {},
        }
        status = {
            "phase": "Running",
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "startTime": now,
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": now}
                for kind in ("Ready", "ContainersReady", "PodScheduled", "Initialized")
            ],
            "containerStatuses": [container],
        }
        self.cluster.kubectl(
            "patch", "pod", self.name, "-n", self.namespace, "--subresource=status", "--type=merge",
            "-p", json.dumps({"status": status}),
        )  # fmt: skip


class LiveRelease:
    """A release of the laptop preset whose pods live. Use as a context manager."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path, settings: Mapping[str, Any]) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.folder = folder
        self.settings = settings
        self.pods: dict[str, list[LivePod]] = {}
        self.url = ""
        self.began = time.time()
        self._prometheus: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LiveRelease:
        try:
            for component in ("validators", "fixer", "trellis", "gateway", "miner"):
                self._start(component)
            self._start_prometheus()
            self._start("operator")
            self._write_scrape_config()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for component in ("operator", "miner", "gateway", "trellis", "fixer", "validators"):
            for pod in self.pods.get(component, []):
                pod.stop()
        if self._prometheus is not None:
            self._prometheus.kill()
            self._prometheus.wait()

    @property
    def journal(self) -> Path:
        return self.folder / self.pods["miner"][0].name / "sn17_state_dir" / "journal.sqlite"

    def address(self, component: str, index: int = 0) -> str:
        return f"127.{NET}.{list(MODULES).index(component)}.{index + 2}"

    def _start(self, component: str) -> None:
        selector = f"app.kubernetes.io/component={component}"
        found = wait_for(
            f"{component} pods",
            lambda: self.cluster.get("pods", namespace=self.namespace, selector=selector),
            30,
        )
        pods = [
            LivePod(
                self.cluster,
                self.namespace,
                pod,
                self.address(component, index),
                self._environment(component, pod, index),
                self.folder,
            )
            for index, pod in enumerate(sorted(found, key=lambda p: str(p["metadata"]["name"])))
        ]
        self.pods[component] = pods
        for pod in pods:
            pod.start()

    def _environment(self, component: str, pod: Mapping[str, Any], index: int) -> dict[str, str]:
        """As rendered, with files in the test's folder and loopback addresses in place of the cluster's."""
        address = self.address(component, index)
        fields = {"metadata.name": pod["metadata"]["name"], "status.podIP": address}
        rendered = {
            e["name"]: e.get("value") or self._value_from(e["valueFrom"], fields)
            for e in pod["spec"]["containers"][0]["env"]
        }
        here = self.folder / pod["metadata"]["name"]
        here.mkdir(exist_ok=True)
        local = {
            "SN17_HOST": address,
            "SN17_DIE_WITH_PARENT": "true",
            "SN17_MEMORY_SOURCE": "process",
            "SN17_TERMINATION_LOG": str(here / "termination-log"),
            **{
                name: str(here / name.lower())
                for name in ("SN17_SPOOL_DIR", "SN17_STATE_DIR", "SN17_DATA_DIR")
                if name in rendered
            },
        }
        local |= self._files(pod["spec"], rendered)
        if component == "gateway":
            local["SN17_MINER_URL"] = f"http://{self.address('miner')}:{OPS_PORT}"
        if component == "miner":
            local["SN17_CHAIN__URL"] = f"http://{self.address('validators')}:8099/snapshot"
            local["SN17_FIXER_URL"] = f"http://{self.address('fixer')}:8080"
            (own,) = json.loads(rendered["SN17_GATEWAYS"])
            own["url"] = f"http://{self.address('gateway')}:8404"
            local["SN17_GATEWAYS"] = json.dumps([own])
            workers = [f"http://{p.address}:10006" for p in self.pods["trellis"]]
            local["SN17_WORKERS"] = ",".join(workers)
            rendered.pop("SN17_WORKERS_DNS")
        if component == "operator":
            local["SN17_PROMETHEUS__URL"] = self.url
            local["SN17_PROMETHEUS__SCRAPE_INTERVAL_SECONDS"] = str(SCRAPE_SECONDS)
            local["KUBECONFIG"] = str(self.cluster.kubeconfig)
        chosen = dict(self.settings.get(component, {}))
        if component == "trellis":
            chosen.update(self.settings.get(f"trellis-{index}", {}))
        return {**rendered, **local, **{name: str(value) for name, value in chosen.items()}}

    def _files(self, spec: Mapping[str, Any], rendered: Mapping[str, str]) -> dict[str, str]:
        """Settings that name a file of a Secret's volume, with a copy of it here."""
        secrets = {v["name"]: v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v}
        mounted = {
            mount["mountPath"]: secrets[mount["name"]]
            for mount in spec["containers"][0]["volumeMounts"]
            if mount["name"] in secrets
        }
        return {
            name: self._secret(mounted[folder], key)
            for name, value in rendered.items()
            for folder, _, key in [value.rpartition("/")]
            if folder in mounted
        }

    def _value_from(self, source: Mapping[str, Any], fields: Mapping[str, str]) -> str:
        if reference := source.get("secretKeyRef"):
            return Path(self._secret(reference["name"], reference["key"])).read_text()
        return fields[source["fieldRef"]["fieldPath"]]

    def _secret(self, name: str, key: str) -> str:
        path = self.folder / f"{name}.{key}"
        secret = self.cluster.get("secret", name, namespace=self.namespace)
        path.write_bytes(base64.b64decode(secret["data"][key]))
        path.chmod(0o600)
        return str(path)

    def _start_prometheus(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.began = time.time()
        self._write_scrape_config()
        with (self.folder / "prometheus.log").open("ab") as log:
            self._prometheus = subprocess.Popen(
                [
                    self.cluster.tools["prometheus"],
                    f"--config.file={self.folder}/prometheus.yml",
                    f"--storage.tsdb.path={self.folder}/data",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--web.enable-lifecycle",
                    "--log.level=warn",
                ],
                stdout=log,
                stderr=log,
            )
        wait_for("Prometheus", lambda: urlopen(f"{self.url}/-/ready").status == 200, 30)

    def _write_scrape_config(self) -> None:
        targets = [
            {
                "targets": [f"{pod.address}:{OPS_PORT}"],
                "labels": {
                    "job": component,
                    "pod": pod.name,
                    "pod_uid": str(pod.pod["metadata"]["uid"]),
                    "node": "n1",
                    "namespace": self.namespace,
                    "release": "sn17",
                },
            }
            for component, pods in self.pods.items()
            for pod in pods
        ]
        config = {
            "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "scrape_timeout": f"{SCRAPE_SECONDS}s"},
            "scrape_configs": [{"job_name": "sn17", "static_configs": targets}],
        }
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        if self._prometheus is not None:
            urlopen(f"{self.url}/-/reload", data=b"").close()

    def query(self, expr: str) -> Sequence[Any]:
        """Result of an instant query."""
        from urllib.parse import quote

        with urlopen(f"{self.url}/api/v1/query?query={quote(expr)}") as answer:
            result: Sequence[Any] = json.loads(answer.read())["data"]["result"]
        return result

    def logs(self) -> Iterator[str]:
        """The end of each service's log, for a failing test."""
        for path in sorted(self.folder.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-15:]
            yield f"--- {path.name}\n" + "\n".join(lines)
