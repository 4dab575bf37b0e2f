"""The operator as a process against a real API server and a real Prometheus."""

from __future__ import annotations

import pytest

from .fleet import Fleet, OperatorProcess, running, wait_for

pytestmark = pytest.mark.cluster

FAST = {
    "rules": {"memory": {"highForSeconds": 2, "clearForSeconds": 2}},
    "drain": {"timeoutSeconds": 10, "leaseSeconds": 30},
    "recycle": {"exitTimeoutSeconds": 10, "cooldownSeconds": 0},
}


def test_leaking_worker_is_cordoned_and_restarted_in_place(fleet: Fleet, operator: OperatorProcess) -> None:
    fleet.deploy(2)
    fleet.miner(**FAST)
    with running(operator):
        wait_for("Healthy", lambda: fleet.status().get("status") == "Healthy")
        name, sick = next(iter(fleet.workers.items()))
        boot = sick.boot_id
        sick.ratio = 0.85
        wait_for("the restart", lambda: sick.boot_id != boot)
        wait_for("Healthy again", lambda: fleet.status().get("status") == "Healthy")
        status = fleet.status()
        assert status["recycles"] == 1
        assert [sick.count(verb) for verb in ("cleanup", "exit")] == [1, 1]
        (other,) = [w for n, w in fleet.workers.items() if n != name]
        assert other.calls == []
        reasons = fleet.events()
        for reason in (
            "WorkerCordoned",
            "CleanupRequested",
            "RecycleRequested",
            "WorkerRecycled",
            "WorkerHealed",
        ):
            assert reason in reasons
        assert operator.stop() == 0
