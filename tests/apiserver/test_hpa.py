"""The chart's HorizontalPodAutoscaler at work: Kubernetes' own controller, the real operator, and a metrics
adapter that answers what the test says.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml
from sn17_chaos.operator_process import OperatorProcess, running
from sn17_chaos.real_fleet import Fleet
from sn17_chaos.waiting import wait_for
from sn17_cluster.controlplane import ControlPlane
from sn17_cluster.requirements import REPOSITORY, require_tools
from test_operator_replicas import grant, replicas

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

API = "external.metrics.k8s.io"
METRIC = "sn17_work_tasks"


class Adapter:
    """A metrics adapter: ``value`` is what it answers, None an empty list."""

    def __init__(self, plane: ControlPlane) -> None:
        self.value: int | None = None
        self.asked: list[str] = []
        adapter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(adapter.answer(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        pair = plane.authority.issue("metrics-adapter", hosts=["localhost"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> dict[str, Any]:
        if METRIC not in path:
            found = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{API}/v1beta1"}
            return {**found, "resources": []}
        self.asked.append(path)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        item = {"metricName": METRIC, "metricLabels": {}, "timestamp": now, "value": str(self.value)}
        items = [] if self.value is None else [item]
        return {
            "kind": "ExternalMetricValueList",
            "apiVersion": f"{API}/v1beta1",
            "metadata": {},
            "items": items,
        }


@pytest.fixture
def adapter(control_plane: ControlPlane, fleet: Fleet) -> Iterator[Adapter]:
    made = Adapter(control_plane)
    service = {"name": "adapter", "namespace": fleet.namespace, "port": made.server.server_address[1]}
    fleet.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "adapter", "namespace": fleet.namespace},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"v1beta1.{API}"},
            "spec": {
                "group": API,
                "version": "v1beta1",
                "service": service,
                "insecureSkipTLSVerify": True,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
            },
        },
    )
    yield made
    fleet.cluster.kubectl("delete", "apiservice", f"v1beta1.{API}")
    made.server.shutdown()


def test_it_scales_the_miner_up_and_down_and_stays_without_data(
    fleet: Fleet, operator: OperatorProcess, adapter: Adapter
) -> None:
    version = json.loads(fleet.cluster.kubectl("version", "-o", "json"))["serverVersion"]
    least = 0 if int(version["minor"]) >= 37 else 1
    tools = require_tools(["helm4"])
    chosen = f"kind=hpa,trellis.autoscaling.minReplicas={least},trellis.autoscaling.stabilizationSeconds=0"
    text = fleet.cluster.run(
        [
            *(tools["helm"], "template", "m", str(REPOSITORY / "charts/sn17"), "-n", fleet.namespace),
            *("-s", "templates/trellis/autoscaling.yaml", f"--kube-version={version['gitVersion']}"),
            *("--set", f"image.preloaded=true,trellis.autoscaling.{chosen}"),
        ]
    ).stdout
    fleet.deploy(1)
    grant(fleet)
    fleet.miner(scale={"owner": "SN17Miner", "deletionCost": True})
    with running(operator):
        wait_for("the first count", lambda: replicas(fleet, "sn17miner", "m") == 1)
        adapter.value = 3
        fleet.cluster.apply(yaml.safe_load(text), namespace=fleet.namespace)
        wait_for("three", lambda: replicas(fleet, "deployment", "workers") == 3, 240)
        assert "labelSelector=release%3Dm" in adapter.asked[-1]
        adapter.value = None
        count = len(adapter.asked)
        wait_for("questions without an answer", lambda: len(adapter.asked) >= count + 3, 240)
        assert replicas(fleet, "deployment", "workers") == 3, "no data is no lack of work"
        adapter.value = 0
        wait_for("the least", lambda: replicas(fleet, "deployment", "workers") == least, 240)
        adapter.value = 2
        wait_for("work again", lambda: replicas(fleet, "deployment", "workers") == 2, 240)
