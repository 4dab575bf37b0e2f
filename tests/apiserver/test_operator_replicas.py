"""``scale`` on a real API server: kubectl scales an SN17Miner, the operator its Deployment."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sn17_chaos.operator_process import OperatorProcess, running
from sn17_chaos.real_fleet import Fleet
from sn17_chaos.waiting import wait_for
from sn17_contract.kubernetes import ANNOTATION_DELETION_COST

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


def grant(fleet: Fleet) -> None:
    """What trellis.autoscaling adds to the operator's rights, on top of those in its README."""
    name = {"name": "sn17-operator-scale"}
    patch = {"verbs": ["patch"]}
    subject = {"kind": "ServiceAccount", "name": "sn17-operator", "namespace": fleet.namespace}
    fleet.cluster.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": name,
            "rules": [
                {"apiGroups": ["sn17.io"], "resources": ["sn17miners"], "resourceNames": ["m"], **patch},
                {
                    "apiGroups": ["apps"],
                    "resources": ["deployments/scale"],
                    "resourceNames": ["workers"],
                    **patch,
                },
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": name,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", **name},
            "subjects": [subject],
        },
        namespace=fleet.namespace,
    )


def replicas(fleet: Fleet, kind: str, name: str) -> Any:
    return fleet.cluster.get(kind, name, namespace=fleet.namespace)["spec"].get("replicas")


def scale(fleet: Fleet, count: int) -> None:
    fleet.cluster.kubectl("scale", "sn17miner", "m", f"--replicas={count}", "-n", fleet.namespace)


def test_kubectl_scales_the_miner_and_the_degraded_worker_goes_first(
    fleet: Fleet, operator: OperatorProcess
) -> None:
    fleet.deploy(3)
    fleet.miner(mode="Observe")
    grant(fleet)
    with running(operator):
        fleet.wait_status("ObserveOnly")
        scale(fleet, 2)
        wait_for("the word that it does nothing", lambda: "ReplicasIgnored" in fleet.events())
        assert replicas(fleet, "deployment", "workers") == 3
        owned = {"spec": {"replicas": None, "scale": {"owner": "SN17Miner", "deletionCost": True}}}
        patch = ("--type=merge", "-p", json.dumps(owned))
        fleet.cluster.kubectl("patch", "sn17miner", "m", "-n", fleet.namespace, *patch)
        wait_for("the Deployment's count", lambda: replicas(fleet, "sn17miner", "m") == 3)
        name, sick = sorted(fleet.workers.items())[1]
        sick.ratio = 0.95
        wait_for("its cost", lambda: fleet.annotations(name).get(ANNOTATION_DELETION_COST) == "-100")
        scale(fleet, 2)
        wait_for("two workers", lambda: len(fleet.pods()) == 2)
        assert name not in {pod["metadata"]["name"] for pod in fleet.pods()}
        assert replicas(fleet, "deployment", "workers") == 2
        path = f"/apis/sn17.io/v1alpha1/namespaces/{fleet.namespace}/sn17miners/m/scale"

        def told() -> bool:
            status = json.loads(fleet.cluster.kubectl("get", "--raw", path))["status"]
            return bool(status == {"replicas": 2, "selector": "w=workers"})

        wait_for("what autoscalers read", told)
        # Somebody scales the Deployment: its owner's count comes back.
        fleet.cluster.kubectl("scale", "deploy/workers", "--replicas=5", "-n", fleet.namespace)
        wait_for("the owner's count", lambda: replicas(fleet, "deployment", "workers") == 2)
        scale(fleet, 0)
        fleet.wait_status("ScaledToZero")
        scale(fleet, 1)
        wait_for("one worker", lambda: len(fleet.pods()) == 1)
        assert "Scaled" in fleet.events()


def test_without_the_right_to_scale_it_is_said_and_the_rest_goes_on(
    fleet: Fleet, operator: OperatorProcess
) -> None:
    fleet.deploy(1)
    fleet.miner(scale={"owner": "SN17Miner"}, replicas=2)
    with running(operator):
        fleet.wait_status("Healthy")
        wait_for("the refusal", lambda: "Scale did not work" in operator.log.read_text())
        assert replicas(fleet, "deployment", "workers") == 1
