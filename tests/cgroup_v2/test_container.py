"""Containers of a node with cgroup v2: what kubelet makes of a memory limit, and the worker under it.

The containers see the machine's own files instead of an image. `make test-node-v2` runs it in a guest kernel.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sn17_cluster.client import Cluster
from sn17_cluster.node import PAUSE_IMAGE
from sn17_cluster.requirements import REPOSITORY

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.node,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        not Path("/sys/fs/cgroup/cgroup.controllers").exists(), reason="cgroup v1: run `make test-node-v2`"
    ),
]

FOLDERS = ["/bin", "/lib", "/lib64", "/usr", sys.base_prefix, str(REPOSITORY)]
HOG = f"{sys.executable} -c 'b\"x\" * (300 << 20)'; echo survived; sleep 1000"
LOAD = """\
import json, os, time, urllib.request
while not os.path.exists("/tmp/ready"):
    time.sleep(0.1)
url = "http://127.0.0.1:%d/generate" % json.load(open("/tmp/ready"))["port"]
end = time.monotonic() + 300
while time.monotonic() < end:
    try:
        urllib.request.urlopen(url, b"prompt=a+red+cube").read()
    except OSError as error:
        if getattr(error, "code", 0) != 503 or json.load(error)["code"] == "memory_refused":
            break
        time.sleep(0.1)
"""
WORKER = f"{sys.executable} -m sn17_trellis serve & {sys.executable} -c '{LOAD}'; wait $!"


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    with cluster.namespace() as name:
        yield name


def ended(cluster: Cluster, namespace: str, script: str, limit: str, **environment: str) -> Any:
    """How a container that runs `script` ends, and what it wrote."""
    mounts = [{"name": f"m{i}", "mountPath": path, "readOnly": True} for i, path in enumerate(FOLDERS)]
    volumes: list[dict[str, Any]] = [
        {"name": f"m{i}", "hostPath": {"path": str(Path(path).resolve())}} for i, path in enumerate(FOLDERS)
    ]
    container = {
        "name": "main",
        "image": PAUSE_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", script],
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "resources": {"limits": {"memory": limit}},
        "securityContext": {"runAsUser": 0},
        "volumeMounts": [*mounts, {"name": "tmp", "mountPath": "/tmp"}],
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [*volumes, {"name": "tmp", "emptyDir": {}}],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "it"}, "spec": spec}
    cluster.apply(pod, namespace=namespace)
    failed = ["wait", "--for=jsonpath={.status.phase}=Failed", "pod/it", "-n", namespace]
    cluster.kubectl(*failed, "--timeout=600s", timeout=620)
    status = cluster.get("pod", "it", namespace=namespace)["status"]["containerStatuses"][0]
    return status["state"]["terminated"], cluster.kubectl("logs", "it", "-n", namespace)


def test_the_oom_killer_ends_the_whole_container(cluster: Cluster, namespace: str) -> None:
    """kubelet sets `memory.oom.group`: on cgroup v1 the shell would go on."""
    end, log = ended(cluster, namespace, HOG, "64Mi")
    assert (end["reason"], end["exitCode"]) == ("OOMKilled", 137)
    assert "survived" not in log


def test_the_guard_sees_the_containers_limit_and_ends_the_worker_before_it(
    cluster: Cluster, namespace: str
) -> None:
    settings = {
        "SN17_PORT": "0",
        "SN17_READY_FILE": "/tmp/ready",
        "SN17_SPOOL_DIR": "/tmp/spool",
        "SN17_MEMORY_SOURCE": "cgroup",
        "SN17_MODEL_PROCESS": "off",
        "SN17_LOG_FORMAT": "json",
        "SN17_PROCEDURAL_MAX_GAUSSIANS": "8000",
        "SN17_FAULTS": json.dumps({"leak_mib_per_generation": 40}),
        "SN17_GUARD_CLEANUP_RATIO": "0.5",
        "SN17_GUARD_REFUSE_RATIO": "0.65",
        "SN17_SELF_RECYCLE_AFTER_SECONDS": "0.2",
    }
    end, log = ended(cluster, namespace, WORKER, "400Mi", **settings)
    assert (end["reason"], end["exitCode"]) == ("Error", 75), log
    lines = [json.loads(line) for line in log.splitlines()]
    (listening,) = (line for line in lines if line["message"] == "listening")
    assert (listening["memory"], listening["memory_level"]) == ("cgroup v2", "/sys/fs/cgroup")
    assert listening["memory_limit_bytes"] == 400 << 20
    assert any(line["message"] == "refuses work" for line in lines)
