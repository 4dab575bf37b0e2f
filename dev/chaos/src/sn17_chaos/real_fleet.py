"""A fleet for the real API server: workers that leak on demand, the part of kubelet that matters here, and a
real Prometheus that scrapes them. Workers listen on loopback addresses of their own, as pods do."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml
from sn17_cluster.client import Cluster
from sn17_contract.admin import AdminState, Canary, Cleanup, LeaseStatus, Lifted
from sn17_contract.http import LeaseOwner

from sn17_chaos.api_proxy import Gate
from sn17_chaos.waiting import wait_for

CRD = Path(__file__).resolve().parents[4] / "charts/sn17/crds/sn17miners.sn17.io.yaml"

TOKEN = "a-token-for-tests"
RELEASE_LABELS = {"part-of": "sn17", "instance": "t", "component": "trellis"}
LIMIT = 12 * 1024**3
SCRAPE_SECONDS = 1.0


@dataclass
class Worker:
    """One worker's process and container, as seen from outside. ``ratio`` is its memory, ``after_cleanup``
    what a clean-up brings it to; ``exits`` False makes it ignore the request to exit."""

    address: str
    port: int
    ratio: float = 0.3
    after_cleanup: float | None = None
    gaussians: float = 350_000.0
    generations: int = 10
    jobs: int = 0
    canary_passes: bool = True
    drift: float = 0.01
    exits: bool = True
    gpu_errors: int = 0
    device: str = ""
    fault: str = ""
    says: str = ""
    """Why it does not trust itself."""
    answers: bool = True
    boot_id: str = field(default_factory=lambda: secrets.token_hex(4))
    leases: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    on_exit: Callable[[], None] = lambda: None
    gate: Gate | None = None
    _server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        worker = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if worker.answers and self.path == "/metrics":
                    self._send(200, worker.metrics(), "text/plain; version=0.0.4")
                else:
                    self._send(503, "{}", "application/json")

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length) or b"null") or {}
                if self.headers.get("authorization") != f"Bearer {TOKEN}":
                    self._send(401, json.dumps({"code": "unauthorized", "detail": "no"}), "application/json")
                    return
                if worker.gate is not None and not worker.gate.enter():
                    return
                status, answer = worker.admin(self.path.rsplit("/", 1)[-1], body)
                if worker.gate is not None:
                    worker.gate.leave()
                self._send(status, json.dumps(answer), "application/json")

            def _send(self, status: int, text: str, kind: str) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer((self.address, self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def admin(self, verb: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.calls.append((verb, body))
        if verb == "drain":
            self.leases[body["by"]] = body["reason"]
        elif verb == "resume":
            self.leases.pop(body["by"], None)
        elif verb == "cleanup" and self.after_cleanup is not None:
            self.ratio = self.after_cleanup
        elif verb == "exit":
            if body["boot_id"] != self.boot_id:
                return 409, {"code": "boot_id_mismatch", "detail": "another incarnation"}
            if self.exits:
                self.restart()
        return 200, self.state() | self._results().get(verb, {})

    def state(self) -> dict[str, Any]:
        """What every admin answer holds."""
        leases = tuple(
            LeaseStatus(by=LeaseOwner(by), reason=reason, expires_in_seconds=None)
            for by, reason in self.leases.items()
        )
        state = AdminState(
            boot_id=self.boot_id,
            life_id=self.boot_id,
            draining=bool(leases),
            leases=leases,
            jobs_in_flight=self.jobs,
        )
        return state.model_dump(mode="json")

    def _results(self) -> dict[str, dict[str, Any]]:
        canary = Canary(
            ran=True,
            passed=self.canary_passes,
            reason=None,
            drift=self.drift,
            first=False,
            same_bytes=self.canary_passes,
            gaussians=round(self.gaussians),
            findings=(),
        )
        return {
            "resume": {"result": Lifted(lifted=True).model_dump()},
            "cleanup": {"result": Cleanup(before=None, after=None).model_dump()},
            "canary": {"result": canary.model_dump(mode="json")},
        }

    def restart(self) -> None:
        """A new process: another boot id, no leases, a heap that is small again."""
        self.boot_id = secrets.token_hex(4)
        self.leases.clear()
        self.ratio, self.gaussians, self.generations, self.gpu_errors, self.jobs = 0.2, 350_000.0, 10, 0, 0
        self.on_exit()

    def count(self, verb: str) -> int:
        return sum(1 for called, _ in self.calls if called == verb)

    def metrics(self) -> str:
        lines = [
            f'sn17_boot_info{{boot_id="{self.boot_id}",service="trellis",version="0"}} 1',
            f"sn17_memory_unreclaimable_bytes {self.ratio * LIMIT}",
            f"sn17_memory_limit_bytes {LIMIT}",
            f"sn17_recent_gaussians_mean {self.gaussians}",
            f"sn17_recent_generations {self.generations}",
            "sn17_recent_generation_seconds_p50 12",
            f"sn17_jobs_in_flight {self.jobs}",
            f"sn17_last_progress_timestamp_seconds {time.time()}",
            f"sn17_canary_drift_ratio {self.drift}",
            f'sn17_gpu_errors_total{{kind="illegal_access"}} {self.gpu_errors}',
            'sn17_gpu_errors_total{kind="ecc"} 0',
            *(f'sn17_draining{{by="{by}"}} {int(by in self.leases)}' for by in ("user", "operator")),
            *([f'sn17_degraded{{reason="{self.says}"}} 1'] if self.says else []),
            *([f'sn17_device_info{{uuid="{self.device}"}} 1'] if self.device else []),
            *([f'sn17_device_fault{{uuid="{self.device}",reason="{self.fault}"}} 1'] if self.fault else []),
        ]
        return "\n".join(lines) + "\n"


class Prometheus:
    """A real one, scraping what it is told; give up and come back with ``stop`` and ``start``."""

    def __init__(
        self, binary: str, folder: Path, port: int, *, scrape_seconds: float = SCRAPE_SECONDS
    ) -> None:
        self._scrape_seconds = scrape_seconds
        self._binary = binary
        self._folder = folder
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._targets: list[tuple[str, Mapping[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def scrape(self, targets: list[tuple[str, Mapping[str, str]]]) -> None:
        self._targets = targets
        config = {
            "global": {
                "scrape_interval": f"{self._scrape_seconds:.0f}s",
                "scrape_timeout": f"{self._scrape_seconds:.0f}s",
            },
            "scrape_configs": [
                {"job_name": "prometheus", "static_configs": [{"targets": [f"127.0.0.1:{self.port}"]}]},
                {
                    "job_name": "sn17",
                    "static_configs": [
                        {"targets": [target], "labels": dict(labels)} for target, labels in targets
                    ],
                },
            ],
        }
        (self._folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                self._binary,
                f"--config.file={self._folder}/prometheus.yml",
                f"--storage.tsdb.path={self._folder}/data",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--log.level=warn",
            ],
            stdout=subprocess.DEVNULL,
            stderr=(self._folder / "prometheus.log").open("ab"),
        )
        wait_for("Prometheus", lambda: urlopen(f"{self.url}/-/ready").status == 200)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Fleet:
    """Pods of one Deployment, each backed by a worker of this process; plays kubelet for them."""

    def __init__(self, cluster: Cluster, namespace: str, prometheus: Prometheus, port: int, net: int) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.prometheus = prometheus
        self.port = port
        self._net = net
        self.workers: dict[str, Worker] = {}
        self._restarts: dict[str, int] = {}
        self._uids: dict[str, str] = {}

    def deploy(self, replicas: int, *, name: str = "workers") -> None:
        labels = {f"app.kubernetes.io/{key}": value for key, value in RELEASE_LABELS.items()} | {"w": name}
        container = {"name": "trellis", "image": "none"}
        self.cluster.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name},
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": {"w": name}},
                    "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
                },
            },
            namespace=self.namespace,
        )
        wait_for("pods", lambda: len(self.pods()) >= replicas)
        self.adopt()
        wait_for("the rollout", lambda: self._rolled_out(name, replicas))

    def _rolled_out(self, name: str, replicas: int) -> bool:
        status = self.cluster.get("deployment", name, namespace=self.namespace).get("status") or {}
        return bool(
            status.get("updatedReplicas", 0) >= replicas and status.get("availableReplicas", 0) >= replicas
        )

    def pods(self) -> list[dict[str, Any]]:
        found = self.cluster.get("pods", namespace=self.namespace, selector="w")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def adopt(self) -> None:
        """Start a worker for every pod that has none, and have it scraped."""
        for pod in self.pods():
            name = pod["metadata"]["name"]
            if name in self.workers:
                continue
            worker = Worker(f"127.{self._net}.0.{len(self.workers) + 2}", self.port)
            worker.on_exit = lambda name=name: self.restarted(name)  # type: ignore[misc]
            worker.start()
            self.workers[name] = worker
            self._uids[name] = pod["metadata"]["uid"]
            self._restarts[name] = 0
            self.report(name)
        self.prometheus.scrape(
            [
                (f"{w.address}:{w.port}", {"pod_uid": self._uids[n], "pod": n, "node": "n1"})
                for n, w in self.workers.items()
            ]
        )

    def restarted(self, name: str) -> None:
        self._restarts[name] += 1
        threading.Thread(target=self.report, args=(name,), daemon=True).start()

    def restarts(self, name: str) -> int:
        return self._restarts[name]

    def report(
        self, name: str, *, ready: bool = True, reason: str = "Completed", exit_code: int = 75
    ) -> None:
        """What kubelet would write about the container now."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        restarts = self._restarts[name]
        last = {"terminated": {"reason": reason, "exitCode": exit_code, "finishedAt": now, "startedAt": now}}
        status = {
            "phase": "Running",
            "podIP": self.workers[name].address,
            "podIPs": [{"ip": self.workers[name].address}],
            "startTime": now,
            "conditions": [{"type": "Ready", "status": str(ready), "lastTransitionTime": now}],
            "containerStatuses": [
                {
                    "name": "trellis",
                    "image": "none",
                    "imageID": "none",
                    "ready": ready,
                    "restartCount": restarts,
                    "containerID": f"containerd://{name}-{restarts}",
                    "state": {"running": {"startedAt": now}},
                    "lastState": last if restarts else {},
                }
            ],
        }
        self.write_status(name, {"status": status})

    def write_status(self, name: str, patch: Mapping[str, Any]) -> None:
        """Merge a pod's status."""
        self.cluster.kubectl(
            "patch", "pod", name, "-n", self.namespace, "--subresource=status", "--type=merge",
            "-p", json.dumps(patch),
        )  # fmt: skip

    def miner(self, **spec: Any) -> None:
        self.cluster.apply(
            {
                "apiVersion": "sn17.io/v1alpha1",
                "kind": "SN17Miner",
                "metadata": {"name": "m", "labels": {"app.kubernetes.io/instance": "t"}},
                "spec": {"targetRef": {"name": "workers"}, "workers": {"opsPort": self.port}, **spec},
            },
            namespace=self.namespace,
        )

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = (
            self.cluster.get("sn17miner", "m", namespace=self.namespace).get("status") or {}
        )
        return found

    def events(self) -> list[str]:
        return [event["reason"] for event in self.cluster.get("events", namespace=self.namespace)]

    def annotate(self, kind: str, name: str, text: str) -> None:
        self.cluster.kubectl("annotate", kind, name, "-n", self.namespace, "--overwrite", text)

    def annotations(self, name: str) -> dict[str, str]:
        found: dict[str, str] = self.cluster.get("pod", name, namespace=self.namespace)["metadata"].get(
            "annotations", {}
        )
        return found

    def wait_status(self, word: str, seconds: float = 30.0) -> dict[str, Any]:
        """The status once it has this word."""
        wait_for(word, lambda: self.status().get("status") == word, seconds)
        return self.status()

    def condition(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = {c["type"]: c for c in self.status()["conditions"]}[kind]
        return found

    def entry(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = {w["name"]: w for w in self.status().get("workers", [])}.get(name, {})
        return found

    def close(self) -> None:
        for worker in self.workers.values():
            worker.stop()
