"""One cluster for all, with the images on its nodes; releases of sn17 in namespaces of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sn17_cluster.client import Cluster
from sn17_cluster.images import write_archive
from sn17_cluster.plugin import unavailable
from sn17_cluster.release import PROMETHEUS, PROMETHEUS_TAG, Install, Release
from sn17_cluster.requirements import REPOSITORY
from sn17_cluster.stack import Recorder, Stack


@pytest.fixture(scope="session")
def output() -> Path:
    """Where records of the run stay: watches, Events, logs of failures."""
    folder = Path(os.environ.get("SN17_E2E_OUT") or REPOSITORY / ".sn17" / "e2e")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def loaded(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The cluster, with our images on its nodes where it takes archives.

    SN17_E2E_IMAGES=present leaves them as they are: for one run after another on a cluster that stays up.
    """
    if cluster.load is None or os.environ.get("SN17_E2E_IMAGES") == "present":
        return cluster
    builder = REPOSITORY / "dev" / "tools" / "images.py"
    answer = subprocess.run(
        [sys.executable, str(builder), "--archives", "--tag=release"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if answer.returncode:
        unavailable("the images could not be built; the reason stands above (see `make images`)")
    for line in answer.stdout.splitlines():
        if line.startswith("/"):
            cluster.load(Path(line))
    if "prometheus" in cluster.tools:
        archive = tmp_path_factory.mktemp("images") / "prometheus.tar"
        binary = {"/bin/prometheus": Path(cluster.tools["prometheus"])}
        name = f"{PROMETHEUS}:{PROMETHEUS_TAG}"
        cluster.load(write_archive(archive, name, binary, entrypoint=["/bin/prometheus"], folders=["/tmp"]))
    return cluster


@pytest.fixture(scope="session")
def kubectl_image(loaded: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with kubectl, for the hook that upgrades the custom resource."""
    name = "docker.io/sn17/kubectl:built"
    if loaded.load is not None:
        archive = tmp_path_factory.mktemp("images") / "kubectl.tar"
        binary = {"/bin/kubectl": Path(loaded.tools["kubectl"])}
        entrypoint = ["/bin/kubectl"]
        loaded.load(write_archive(archive, name, binary, entrypoint=entrypoint, folders=["/tmp"]))
    return name


@pytest.fixture(scope="session")
def install(loaded: Cluster, output: Path) -> Iterator[Install]:
    """Installs releases by name, each in a namespace; those that are left are removed in the end."""
    with contextlib.ExitStack() as stack:

        def installer(name: str, chosen: Mapping[str, Any]) -> Release:
            namespace = stack.enter_context(loaded.namespace(prefix=name))
            recorder = Recorder(loaded, "pods", namespace, output)
            stack.callback(recorder.stop)
            release = Stack(loaded, namespace)
            stack.callback(lambda: loaded.dump(output / name, namespace))
            release.install(chosen)
            return Release(release, recorder)

        yield installer
