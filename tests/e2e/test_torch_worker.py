"""The real engine with its small checkpoint, as `docs/chart.md` has it run on a laptop.

Left out unless SN17_E2E_TORCH is set: the image is gigabytes, and a generation takes its time on a processor.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from sn17_cluster.client import Cluster
from sn17_cluster.release import PROMETHEUS, PROMETHEUS_TAG, Install
from sn17_cluster.requirements import REPOSITORY
from sn17_cluster.stack import restarts, wait_until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not os.environ.get("SN17_E2E_TORCH"), reason="SN17_E2E_TORCH is not set"),
]

LITTLE: dict[str, Any] = {"resources": {"requests": {"cpu": "10m"}}}
VALUES: dict[str, Any] = {
    "trellis": {"backend": "torch", "replicas": 1, "cpu": {"request": "10m"}},
    "localValidators": {"count": 2, **LITTLE},
    "prometheus": {"image": {"repository": PROMETHEUS, "tag": PROMETHEUS_TAG}, **LITTLE},
    "operator": LITTLE,
    "fixer": LITTLE,
    "miner": LITTLE,
}


@pytest.fixture(scope="module")
def torch_image(loaded: Cluster) -> Cluster:
    """The cluster with the worker's image that has torch in it."""
    assert loaded.load is not None
    builder = REPOSITORY / "dev" / "tools" / "images.py"
    answer = subprocess.run(
        [sys.executable, str(builder), "--archives", "--tag=release", "trellis-torch"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    for line in answer.stdout.splitlines():
        if line.startswith("/"):
            loaded.load(REPOSITORY / line)
    return loaded


def test_what_the_engine_makes_is_accepted(torch_image: Cluster, install: Install) -> None:
    stack = install("torch", VALUES).stack
    wait_until("the engine is warm", lambda: stack.is_ready("trellis"), timeout=600)
    wait_until("two accepted tasks", lambda: stack.accepted() >= 2, timeout=600)
    wait_until("its gaussians in the column", lambda: stack.miner()["status"].get("gaussians"), timeout=60)
    (pod,) = stack.pods("trellis")
    assert restarts(pod) == 0
    print(stack.columns("-o", "wide"))
    print(stack.worker(pod["metadata"]["name"]))
