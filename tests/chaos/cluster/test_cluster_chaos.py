"""The most telling faults of the cluster tier, one after another; `bench/chaos.py --tier cluster` has all."""

from __future__ import annotations

from random import Random

import pytest
from sn17_chaos.cluster import RECOVERY_SECONDS, wide_trial
from sn17_chaos.cluster_faults import RELEASE
from sn17_chaos.cluster_wide import WIDE
from sn17_chaos.cluster_world import ClusterWorld
from sn17_chaos.runner import trial

pytestmark = [pytest.mark.cluster, pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(600)]

OWN = [
    "operator killed in mid-remediation",
    "worker killed in mid-generation",
    "miner's pod deleted",
    "Prometheus gone",
    "disk full under journal",
]


@pytest.mark.parametrize("name", OWN)
def test_a_fault_in_a_release_costs_nothing(world: ClusterWorld, name: str) -> None:
    found = trial(world, [RELEASE[name]], Random(name), deadline=RECOVERY_SECONDS)
    assert found.breaches == []
    assert found.tasks > 0


def test_an_api_server_that_restarts_costs_nothing(world: ClusterWorld) -> None:
    (found,) = wide_trial([world], WIDE["API server restarted"], Random(17))
    assert found.breaches == []
