"""Two nodes side by side: both Ready, and a pod of the second reaches a Service whose pod is on the first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sn17_cluster.client import Cluster
from sn17_cluster.images import write_archive
from sn17_cluster.local import LocalCluster, local_cluster
from sn17_cluster.plugin import unavailable
from sn17_cluster.requirements import MissingError

pytestmark = [pytest.mark.cluster, pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(240)]

IMAGE = "docker.io/sn17/kubectl-test:1"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    try:
        context = local_cluster(nodes=2)
        running = context.__enter__()
    except MissingError as missing:
        unavailable(missing)
    try:
        archive = tmp_path_factory.mktemp("image") / "kubectl.tar"
        kubectl = {"/kubectl": Path(running.tools["kubectl"])}
        running.load(write_archive(archive, IMAGE, kubectl, entrypoint=["/kubectl"]))
        yield running
    finally:
        context.__exit__(None, None, None)


def pod(name: str, node: str, *args: str) -> dict[str, Any]:
    container = {"name": "main", "image": IMAGE, "imagePullPolicy": "Never", "args": [*args]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "restartPolicy": "OnFailure", "containers": [container]},
    }


def test_a_service_is_reached_from_the_other_node(local: LocalCluster) -> None:
    cluster = local.cluster
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "proxy"},
        "spec": {"selector": {"app": "proxy"}, "ports": [{"port": 80, "targetPort": 8001}]},
    }
    serve = ["proxy", "--address=0.0.0.0", "--accept-hosts=.*"]
    with cluster.namespace() as namespace:
        cluster.apply(pod("proxy", "node-0", *serve), service, namespace=namespace)
        cluster.apply(
            pod(
                "ask",
                "node-1",
                "get",
                "--raw=/version",
                f"--server=http://proxy.{namespace}.svc.cluster.local",
            ),
            namespace=namespace,
        )
        _wait_succeeded(cluster, namespace, "ask")
        assert "gitVersion" in cluster.kubectl("logs", "ask", "-n", namespace)


def test_a_node_whose_kubelet_is_gone_is_noticed_and_comes_back(local: LocalCluster) -> None:
    kubelet = local.nodes[1].process("kubelet")
    local.supervisor.stop(kubelet, kill=True)
    local.cluster.kubectl("wait", "--for=condition=Ready=Unknown", "node/node-1", "--timeout=90s")
    local.supervisor.resume(kubelet)
    local.cluster.kubectl("wait", "--for=condition=Ready", "node/node-1", "--timeout=60s")


def _wait_succeeded(cluster: Cluster, namespace: str, name: str) -> None:
    done = "--for=jsonpath={.status.phase}=Succeeded"
    cluster.kubectl("wait", done, f"pod/{name}", "-n", namespace, "--timeout=60s")
