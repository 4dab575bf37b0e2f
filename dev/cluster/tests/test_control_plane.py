"""The control plane does what tests of an operator rely on."""

from __future__ import annotations

import json
import os

import pytest
from sn17_cluster.client import Cluster, CommandError
from sn17_cluster.controlplane import ControlPlane, control_plane

pytestmark = pytest.mark.cluster

CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "marks.test.sn17.io"},
    "spec": {
        "group": "test.sn17.io",
        "scope": "Namespaced",
        "names": {"kind": "Mark", "plural": "marks", "singular": "mark"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {"low": {"type": "integer"}, "high": {"type": "integer"}},
                                "x-kubernetes-validations": [
                                    {"rule": "self.low < self.high", "message": "low must be below high"}
                                ],
                            }
                        },
                    }
                },
            }
        ],
    },
}


def mark(low: int, high: int) -> dict[str, object]:
    return {
        "apiVersion": "test.sn17.io/v1",
        "kind": "Mark",
        "metadata": {"name": "m"},
        "spec": {"low": low, "high": high},
    }


def test_reports_the_release_it_was_built_from(api: Cluster) -> None:
    version = json.loads(api.kubectl("version", "-o", "json"))
    server, client = (version[side]["gitVersion"] for side in ("serverVersion", "clientVersion"))
    assert server == client
    assert server.startswith(f"v{os.environ.get('SN17_KUBERNETES', '1.34')}.")


def test_enforces_the_rules_of_custom_resources(api: Cluster) -> None:
    api.apply(CRD)
    api.wait_established("marks.test.sn17.io")
    with api.namespace() as namespace:
        api.apply(mark(1, 2), namespace=namespace)
        with pytest.raises(CommandError, match="low must be below high"):
            api.apply(mark(2, 1), namespace=namespace)


def test_a_deployment_becomes_pods_and_eviction_honours_the_budget(api: Cluster) -> None:
    labels = {"app": "worker"}
    container = {"name": "worker", "image": "worker"}
    with api.namespace() as namespace:
        api.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "worker"},
                "spec": {
                    "replicas": 2,
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
                },
            },
            {
                "apiVersion": "policy/v1",
                "kind": "PodDisruptionBudget",
                "metadata": {"name": "worker"},
                "spec": {"minAvailable": 2, "selector": {"matchLabels": labels}},
            },
            namespace=namespace,
        )
        api.kubectl(
            "wait", "--for=jsonpath={.status.replicas}=2", "deploy/worker", "-n", namespace, "--timeout=30s"
        )
        pods = api.get("pods", namespace=namespace)
        ready = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
        for pod in pods:
            api.kubectl(
                *["patch", "pod", pod["metadata"]["name"], "-n", namespace],
                *["--subresource=status", "--type=merge", "-p", json.dumps(ready)],
            )
        api.kubectl(
            "wait",
            "--for=jsonpath={.status.currentHealthy}=2",
            "pdb/worker",
            "-n",
            namespace,
            "--timeout=30s",
        )
        name = pods[0]["metadata"]["name"]
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        with pytest.raises(CommandError, match="disruption budget"):
            api.kubectl(
                *["create", "--raw", f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", "-f", "-"],
                stdin=json.dumps(eviction),
            )


def test_keeps_its_objects_over_a_restart_of_the_api_server(control_plane: ControlPlane) -> None:
    api = control_plane.cluster
    with api.namespace() as namespace:
        control_plane.supervisor.restart("kube-apiserver", kill=True)
        control_plane.wait_ready()
        assert api.get("namespace", namespace)["status"]["phase"] == "Active"


def test_a_second_one_runs_beside_the_first(api: Cluster) -> None:
    with control_plane() as other, api.namespace() as namespace:
        with pytest.raises(CommandError, match="not found"):
            other.cluster.get("namespace", namespace)
        folder = other.folder
    assert not folder.exists()
