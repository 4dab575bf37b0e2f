"""A fleet of workers for a control plane without a kubelet."""

from __future__ import annotations

import contextlib
import itertools
import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
from sn17_cluster.controlplane import ControlPlane
from sn17_http import own_client

from sn17_chaos.real_fleet import Fleet, Prometheus, Worker
from sn17_chaos.waiting import free_port

OPERATOR = {
    "SN17_PROMETHEUS__TIMEOUT_SECONDS": "2",
    "SN17_LEASE__DURATION_SECONDS": "8",
    "SN17_LEASE__DEADLINE_SECONDS": "6",
    "SN17_LEASE__RETRY_SECONDS": "1",
}
"""The operator's settings: twice as quick as the defaults; a machine under load is no lost Lease."""
BUDGET = 1
SPEC = {
    "maxUnavailable": BUDGET,
    "rules": {"memory": {"highForSeconds": 1, "clearForSeconds": 1}},
    "drain": {"timeoutSeconds": 10, "leaseSeconds": 30},
    "recycle": {
        "exitTimeoutSeconds": 10,
        "cooldownSeconds": 0,
        "youngSeconds": 0,
        "stormCooldownSeconds": 0,
        "replacementTimeoutSeconds": 60,
        # Faults come every minute here: an eviction of the last minute did not help, an older one did.
        "evictionWindowSeconds": 60,
    },
}


class QuickFleet(Fleet):
    """A fleet that talks to the API server over one connection, and tries again as kubelet does."""

    def __init__(
        self,
        plane: ControlPlane,
        namespace: str,
        prometheus: Prometheus,
        net: int,
        *,
        name: str = "workers",
        rescrape: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(plane.cluster, namespace, prometheus, free_port(), net)
        self.name = name
        self._rescrape = rescrape or (lambda: prometheus.scrape(self.targets()))
        admin = plane._admin
        trust = ssl.create_default_context(cafile=str(plane.authority.certificate))
        trust.load_cert_chain(admin.certificate, admin.key)
        self._hosts = itertools.count(2)
        self._reporting: dict[str, threading.Thread] = {}
        self.http = own_client(
            base_url=f"https://127.0.0.1:{plane.ports.api}",
            verify=trust,
            timeout=10.0,
        )

    def read(self, path: str, **query: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(path, params=query).raise_for_status().json()
        return found

    def pods(self) -> list[dict[str, Any]]:
        found = self.read(f"/api/v1/namespaces/{self.namespace}/pods", labelSelector=f"w={self.name}")[
            "items"
        ]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def adopt(self) -> None:
        for pod in self.pods():
            name = pod["metadata"]["name"]
            if name not in self.workers:
                host = next(self._hosts)
                worker = Worker(f"127.{self._net}.{host // 250}.{host % 250 + 2}", self.port)
                worker.on_exit = lambda name=name: self.restarted(name)  # type: ignore[misc]
                worker.start()
                self.workers[name] = worker
                self._uids[name] = pod["metadata"]["uid"]
                self._restarts[name] = 0
                self.report(name)
        self._rescrape()

    def restarted(self, name: str) -> None:
        self._restarts[name] += 1
        self._reporting[name] = threading.Thread(target=self.report, args=(name,), daemon=True)
        self._reporting[name].start()

    def report(self, name: str, **state: Any) -> None:
        # After what is still being written of a restart; and a silent worker that restarts is not Ready.
        before = self._reporting.get(name)
        if before is not None and before is not threading.current_thread():
            before.join()
        super().report(name, **{"ready": self.workers[name].answers, **state})

    def targets(self) -> list[tuple[str, Mapping[str, str]]]:
        """What Prometheus has to scrape."""
        return [
            (f"{w.address}:{w.port}", {"pod_uid": self._uids[n], "pod": n, "node": "n1"})
            for n, w in self.workers.items()
        ]

    def status(self) -> dict[str, Any]:
        path = f"/apis/sn17.io/v1alpha1/namespaces/{self.namespace}/sn17miners/{self.name}"
        return self.read(path).get("status") or {}

    def miner(self, **spec: Any) -> None:
        self.cluster.apply(
            {
                "apiVersion": "sn17.io/v1alpha1",
                "kind": "SN17Miner",
                "metadata": {"name": self.name, "labels": {"app.kubernetes.io/instance": self.name}},
                "spec": {"targetRef": {"name": self.name}, "workers": {"opsPort": self.port}, **spec},
            },
            namespace=self.namespace,
        )

    def write_status(self, name: str, patch: Mapping[str, Any]) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}/status"
        headers = {"Content-Type": "application/merge-patch+json"}
        for _ in range(100):
            with contextlib.suppress(httpx2.HTTPError):
                answer = self.http.patch(path, content=json.dumps(patch), headers=headers)
                if answer.is_success or answer.status_code == httpx2.codes.NOT_FOUND:
                    return
            time.sleep(0.3)
