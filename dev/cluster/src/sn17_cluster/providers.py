"""Whose cluster it is: one of our own, one that `make cluster-up` left running, or any that the user has."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from sn17_cluster.client import Cluster
from sn17_cluster.requirements import MissingError, require_tools
from sn17_cluster.standing import attach

CLIENT_TOOLS = ("kubernetes", "helm4")


@contextlib.contextmanager
def provide() -> Iterator[Cluster]:
    """The cluster that the environment asks for.

    SN17_KUBECONFIG=FILE: that cluster. SN17_IMAGE_LOADER is then a command that gives its nodes an image
    archive, `{}` standing for the file, such as `kind load image-archive {}`.
    SN17_CLUSTER=up: the one that `make cluster-up` started.
    Neither: a new one of SN17_CLUSTER_NODES nodes (1), for as long as the block lasts.

    Raises:
        MissingError: it cannot be had here.
    """
    if kubeconfig := os.environ.get("SN17_KUBECONFIG"):
        yield existing(Path(kubeconfig), os.environ.get("SN17_IMAGE_LOADER", ""))
    elif os.environ.get("SN17_CLUSTER") == "up":
        yield attach()
    else:
        from sn17_cluster.local import local_cluster

        with local_cluster(nodes=int(os.environ.get("SN17_CLUSTER_NODES", "1"))) as local:
            yield local.cluster


def existing(kubeconfig: Path, loader: str) -> Cluster:
    """Access to a cluster of the user's. Raises MissingError when it does not answer."""
    cluster = Cluster(
        kubeconfig.absolute(),
        require_tools(CLIENT_TOOLS),
        runs_pods=True,
        load=(lambda archive: _load(loader, archive)) if loader else None,
    )
    answer = cluster.run([cluster.tools["kubectl"], "version"], check=False, timeout=30)
    if answer.returncode:
        raise MissingError(f"the cluster in SN17_KUBECONFIG does not answer: {answer.stderr.strip()}")
    return cluster


def _load(loader: str, archive: Path) -> None:
    argv = [str(archive) if word == "{}" else word for word in shlex.split(loader)]
    subprocess.run(argv, check=True)
