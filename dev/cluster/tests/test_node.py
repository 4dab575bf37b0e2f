"""Pods on a node of our own: what the end-to-end tests rely on, tried with one static binary as the image."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sn17_cluster.client import Cluster
from sn17_cluster.images import NOBODY, write_archive

pytestmark = [pytest.mark.cluster, pytest.mark.node]

IMAGE = "docker.io/sn17/kubectl-test:1"


@pytest.fixture(scope="module")
def image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    if cluster.load is None:
        pytest.skip("this cluster takes no image archives: set SN17_IMAGE_LOADER")
    archive = tmp_path_factory.mktemp("image") / "kubectl.tar"
    kubectl = {"/kubectl": Path(cluster.tools["kubectl"])}
    cluster.load(write_archive(archive, IMAGE, kubectl, entrypoint=["/kubectl"], folders=["/tmp"]))
    return IMAGE


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    with cluster.namespace(labels={"pod-security.kubernetes.io/enforce": "restricted"}) as name:
        yield name


def pod(name: str, image: str, *args: str, **container: Any) -> dict[str, Any]:
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "imagePullPolicy": "Never",
                    "args": [*args],
                    "securityContext": security,
                    **container,
                }
            ],
        },
    }


def wait_phase(cluster: Cluster, namespace: str, name: str, phase: str) -> None:
    cluster.kubectl(
        "wait", f"--for=jsonpath={{.status.phase}}={phase}", f"pod/{name}", "-n", namespace, "--timeout=60s"
    )


def test_a_pod_reaches_the_api_server_by_its_name(cluster: Cluster, namespace: str, image: str) -> None:
    secrets = "/var/run/secrets/kubernetes.io/serviceaccount"
    server = {"server": "https://kubernetes.default.svc", "certificate-authority": f"{secrets}/ca.crt"}
    config = {
        "clusters": [{"name": "c", "cluster": server}],
        "users": [{"name": "u", "user": {"tokenFile": f"{secrets}/token"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    files = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"}}
    mount = [{"name": "config", "mountPath": "/config"}]
    who = pod("who", image, "auth", "whoami", "-o", "json", "--kubeconfig=/config/config", volumeMounts=mount)
    who["spec"]["volumes"] = [{"name": "config", "configMap": {"name": "config"}}]
    cluster.apply({**files, "data": {"config": json.dumps(config)}}, who, namespace=namespace)
    wait_phase(cluster, namespace, "who", "Succeeded")
    answer = json.loads(cluster.kubectl("logs", "who", "-n", namespace))
    assert answer["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:default"


def test_a_pod_over_its_memory_limit_is_killed(cluster: Cluster, namespace: str, image: str) -> None:
    limits = {"limits": {"memory": "8Mi", "cpu": "1"}}
    cluster.apply(pod("small", image, "version", "--client", resources=limits), namespace=namespace)
    wait_phase(cluster, namespace, "small", "Failed")
    state = cluster.get("pod", "small", namespace=namespace)["status"]["containerStatuses"][0]["state"]
    assert (state["terminated"]["reason"], state["terminated"]["exitCode"]) == ("OOMKilled", 137)


def test_services_lead_to_ready_pods_and_ports_are_forwarded(
    cluster: Cluster, namespace: str, image: str
) -> None:
    proxy = pod("proxy", image, "proxy", "--address=0.0.0.0", "--port=8001", "--accept-hosts=.*")
    proxy["spec"]["containers"][0]["readinessProbe"] = {
        "tcpSocket": {"port": 8001},
        "periodSeconds": 1,
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "proxy"},
        "spec": {"selector": {"app": "proxy"}, "ports": [{"port": 80, "targetPort": 8001}]},
    }
    cluster.apply(proxy, service, namespace=namespace)
    cluster.kubectl("wait", "--for=condition=Ready", "pod/proxy", "-n", namespace, "--timeout=60s")
    # The service account may not list anything, so the server's version is what it can be asked for.
    ask = pod("ask", image, "get", "--raw=/version", f"--server=http://proxy.{namespace}.svc.cluster.local")
    # kube-proxy learns of the ready pod a moment after the API server does.
    ask["spec"]["restartPolicy"] = "OnFailure"
    cluster.apply(ask, namespace=namespace)
    wait_phase(cluster, namespace, "ask", "Succeeded")
    asked = os.environ.get("SN17_KUBERNETES", "1.34")
    assert f'"gitVersion": "v{asked}.' in cluster.kubectl("logs", "ask", "-n", namespace)
    with cluster.forward("pod/proxy", 8001, namespace=namespace) as port:
        answer = cluster.run(
            [cluster.tools["kubectl"], "get", "--raw=/version", f"-s=http://127.0.0.1:{port}"]
        )
        assert "gitVersion" in answer.stdout


def test_a_claim_gets_a_volume_that_the_pod_may_write(cluster: Cluster, namespace: str, image: str) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    writer = pod(
        "writer",
        image,
        *["config", "set-context", "written", "--kubeconfig=/data/config"],
        volumeMounts=[{"name": "data", "mountPath": "/data"}],
    )
    writer["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    writer["spec"]["securityContext"] = {"runAsUser": NOBODY, "fsGroup": NOBODY}
    cluster.apply(claim, writer, namespace=namespace)
    wait_phase(cluster, namespace, "writer", "Succeeded")


def test_an_advertised_resource_is_counted_by_the_scheduler(
    cluster: Cluster, namespace: str, image: str
) -> None:
    node = cluster.get("nodes")[0]["metadata"]["name"]
    cluster.advertise("nvidia.com/gpu", 1, node=node)
    one_gpu = {"limits": {"nvidia.com/gpu": "1"}}
    serve = ["proxy", "--port=0"]
    cluster.apply(pod("first", image, *serve, resources=one_gpu), namespace=namespace)
    wait_phase(cluster, namespace, "first", "Running")
    cluster.apply(pod("second", image, *serve, resources=one_gpu), namespace=namespace)
    cluster.kubectl(
        "wait", "--for=condition=PodScheduled=false", "pod/second", "-n", namespace, "--timeout=30s"
    )
    conditions = cluster.get("pod", "second", namespace=namespace)["status"]["conditions"]
    assert any("Insufficient nvidia.com/gpu" in each.get("message", "") for each in conditions)
