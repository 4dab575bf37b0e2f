"""The most telling faults of the cluster tier; `sn17_bench.chaos --tier cluster` has all."""

from __future__ import annotations

import time
from random import Random

import pytest
from sn17_chaos.cluster import RECOVERY_SECONDS, wide_trial
from sn17_chaos.cluster_faults import RELEASE
from sn17_chaos.cluster_levers import scale
from sn17_chaos.cluster_wide import WIDE
from sn17_chaos.cluster_world import ClusterWorld
from sn17_chaos.invariants import check
from sn17_chaos.runner import trial

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.node,
    pytest.mark.slow,
    pytest.mark.timeout(600),
]

OWN = [
    "operator killed in mid-remediation",
    "worker killed in mid-generation",
    "miner's pod deleted",
    "Prometheus gone",
    "disk full under journal",
]
SLOW_LEAK = {"leak_mib_per_generation": 40}
"""From the cordon threshold to the limit of 1Gi in ten generations."""


@pytest.mark.parametrize("name", OWN)
def test_a_fault_in_a_release_costs_nothing(world: ClusterWorld, name: str) -> None:
    found = trial(world, [RELEASE[name]], Random(name), deadline=RECOVERY_SECONDS)
    assert found.breaches == []
    assert found.tasks > 0


def test_an_api_server_that_restarts_costs_nothing(world: ClusterWorld) -> None:
    (found,) = wide_trial([world], WIDE["API server restarted"], Random(17))
    assert found.breaches == []


def test_a_worker_that_nobody_guards_is_killed_in_plain_sight(world: ClusterWorld) -> None:
    """The control: without an operator, and with the worker's own guard off, the same eyes see the kill."""

    def guard(setting: str) -> None:
        deployment = ("deploy/sn17-trellis", "-n", world.stack.namespace)
        world.bed.cluster.kubectl("set", "env", *deployment, f"SN17_GUARD={setting}")

    position = world.position()
    scale(world, "operator", 0)
    world.set_faults(SLOW_LEAK)
    guard("off")
    try:
        world.wait("a kill", lambda: world.memory.kills[position.oom_kills :], 240.0)
        found = check(world.history(position, time.time(), ""))
    finally:
        world.set_faults({})
        guard("on")
        scale(world, "operator", 1)
    assert "killed_in_sight" in {breach.invariant for breach in found}
    assert world.recover(time.time(), RECOVERY_SECONDS) == ""
