"""One API server and one Prometheus for all tests here; a namespace and a fleet for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from sn17_chaos.operator_process import OperatorProcess
from sn17_chaos.real_fleet import CRD, Fleet, Prometheus
from sn17_chaos.waiting import free_port, wait_for
from sn17_cluster.client import Cluster

_nets = itertools.count(10)


@pytest.fixture(scope="session")
def api_with_crd(api: Cluster) -> Cluster:
    api.apply(CRD.read_text())

    def established() -> bool:
        # Right after its creation it has no conditions at all, which `kubectl wait` takes for an error.
        conditions = api.get("crd", "sn17miners.sn17.io").get("status", {}).get("conditions") or ()
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    wait_for("the definition", established)
    return api


@pytest.fixture
def prometheus(api: Cluster, tmp_path: Path) -> Iterator[Prometheus]:
    server = Prometheus(api.tools["prometheus"], tmp_path, free_port())
    server.scrape([])
    server.start()
    yield server
    server.stop()


@pytest.fixture
def fleet(api_with_crd: Cluster, prometheus: Prometheus) -> Iterator[Fleet]:
    with api_with_crd.namespace("op") as namespace:
        made = Fleet(api_with_crd, namespace, prometheus, free_port(), next(_nets))
        yield made
        made.close()


@pytest.fixture
def operator(fleet: Fleet, tmp_path: Path) -> Iterator[OperatorProcess]:
    """Not started yet."""
    process = OperatorProcess(fleet, tmp_path)
    yield process
    process.kill()
    print(process.log.read_text() if process.log.exists() else "")
