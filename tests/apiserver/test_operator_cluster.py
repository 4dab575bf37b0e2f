"""The operator as a process, with the documented rights only, against a real API server and a real
Prometheus.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from sn17_chaos.operator_process import OperatorProcess, running
from sn17_chaos.real_fleet import Fleet, Prometheus
from sn17_chaos.waiting import wait_for
from sn17_cluster.client import Cluster
from sn17_cluster.controlplane import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

FAST = {
    "rules": {"memory": {"highForSeconds": 2, "clearForSeconds": 2}},
    "drain": {"timeoutSeconds": 10, "leaseSeconds": 30},
    "recycle": {"exitTimeoutSeconds": 10, "cooldownSeconds": 0, "youngSeconds": 0},
}


def test_leaking_worker_is_cordoned_and_restarted_in_place(fleet: Fleet, operator: OperatorProcess) -> None:
    fleet.deploy(2)
    fleet.miner(**FAST)
    with running(operator):
        fleet.wait_status("Healthy")
        name, sick = next(iter(fleet.workers.items()))
        boot = sick.boot_id
        sick.ratio = 0.85
        wait_for("the restart", lambda: sick.boot_id != boot)
        fleet.wait_status("Healthy")
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
        columns = fleet.cluster.kubectl("get", "snm", "-n", fleet.namespace, "--no-headers").split()
        assert columns[1:8] == ["2/2", "0", "0", "350k", "30%", "-", "Healthy"]

        # explain, over HTTP.
        explained = json.loads(urlopen(f"{operator.url}/v1/explain/{name}").read())
        high = next(rule for rule in explained["rules"] if rule["rule"] == "MemoryHigh")
        assert high["outcome"] == "Ok"
        assert high["queries"][0].startswith('sn17_memory_unreclaimable_bytes{pod_uid!=""}[')
        assert explained["budget"]["maxUnavailable"] == 1

        metrics = urlopen(f"{operator.url}/metrics").read().decode()
        assert 'sn17_actions_total{action="Exit",outcome="ok",reason="MemoryHigh"} 1.0' in metrics
        assert 'sn17_workers{state="Healthy"} 2.0' in metrics
        assert urlopen(f"{operator.url}/health").status == 200
        assert operator.stop() == 0
    # No finalizer anywhere: removing the resource never waits for an operator.
    fleet.cluster.kubectl("delete", "snm", "m", "-n", fleet.namespace, "--timeout=10s")


def test_operator_killed_between_cordon_and_recycle_goes_on(fleet: Fleet, operator: OperatorProcess) -> None:
    fleet.deploy(1)
    fleet.miner(**FAST)
    (worker,) = fleet.workers.values()
    (name,) = fleet.workers
    with running(operator):
        fleet.wait_status("Healthy")
        worker.jobs = 1
        worker.ratio = 0.85
        wait_for("the cordon", lambda: "operator" in worker.leases)
        assert json.loads(fleet.annotations(name)["sn17.io/intent"])["action"] == "Cordon"
        operator.kill()
        worker.jobs = 0
        operator.start()
        wait_for("the restart", lambda: worker.count("exit") == 1, 40)
        fleet.wait_status("Healthy")
        assert fleet.status()["recycles"] == 1
        assert worker.count("exit") == 1


def test_two_operators_never_act_both(fleet: Fleet, operator: OperatorProcess, tmp_path: Path) -> None:
    fleet.deploy(1)
    fleet.miner(**FAST)
    (worker,) = fleet.workers.values()
    second = OperatorProcess(fleet, tmp_path, identity="second")
    with running(operator):
        fleet.wait_status("Healthy")
        with running(second):
            wait_for("the wait", lambda: "another operator holds the Lease" in second.log.read_text())
            assert urlopen(f"{second.url}/health").status == 200
            operator.kill()
            wait_for(
                "the takeover",
                lambda: "holds the Lease" in second.log.read_text().split("another")[1][60:],
                30,
            )
            worker.ratio = 0.85
            wait_for("the restart", lambda: worker.count("exit") == 1)
            operator.start()
            wait_for("the other's wait", lambda: operator.log.read_text().count("another operator") == 1)


def test_api_server_dies_and_comes_back(
    fleet: Fleet, operator: OperatorProcess, control_plane: ControlPlane
) -> None:
    fleet.deploy(1)
    fleet.miner(**FAST)
    (worker,) = fleet.workers.values()
    with running(operator):
        fleet.wait_status("Healthy")
        control_plane.supervisor.restart("kube-apiserver", kill=True)
        control_plane.wait_ready()
        worker.ratio = 0.85
        # The Lease may be lost meanwhile: the process then leaves, and its Deployment starts another.
        if operator.process is not None and operator.process.poll() is not None:
            operator.start()

        def restarted() -> bool:
            if operator.process is not None and operator.process.poll() is not None:
                operator.start()
            return worker.count("exit") == 1

        wait_for("the restart", restarted, 60)
        wait_for("Healthy", lambda: restarted() and fleet.status().get("status") == "Healthy", 40)


def test_prometheus_gone_nothing_is_done_and_it_is_said(
    fleet: Fleet, operator: OperatorProcess, prometheus: Prometheus
) -> None:
    fleet.deploy(2)
    fleet.miner(**FAST)
    with running(operator):
        fleet.wait_status("Healthy")
        prometheus.stop()
        for worker in fleet.workers.values():
            worker.ratio = 0.95
        fleet.wait_status("MetricsUnavailable")
        condition = fleet.condition("MetricsAvailable")
        assert (condition["status"], condition["reason"]) == ("False", "QueryFailed")
        assert all(worker.calls == [] for worker in fleet.workers.values())
        assert "sn17_prometheus_errors_total" in urlopen(f"{operator.url}/metrics").read().decode()
        for worker in fleet.workers.values():
            worker.ratio = 0.3
        prometheus.start()
        fleet.wait_status("Healthy", 60)
        assert all(worker.calls == [] for worker in fleet.workers.values())


def test_eviction_waits_for_the_disruption_budget(fleet: Fleet, operator: OperatorProcess) -> None:
    fleet.deploy(2)
    fleet.cluster.apply(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "b"},
            "spec": {"minAvailable": 2, "selector": {"matchLabels": {"w": "workers"}}},
        },
        namespace=fleet.namespace,
    )
    pdb = lambda: fleet.cluster.get("pdb", "b", namespace=fleet.namespace)  # noqa: E731
    wait_for("the budget", lambda: pdb().get("status", {}).get("currentHealthy") == 2)
    fleet.miner(**{**FAST, "strategy": "EvictPod"})
    with running(operator):
        fleet.wait_status("Healthy")
        name, sick = next(iter(fleet.workers.items()))
        sick.ratio = 0.85
        wait_for("the wait", lambda: fleet.entry(name).get("heldBackBy") == "DisruptionBudget")
        assert name in {pod["metadata"]["name"] for pod in fleet.pods()}
        assert "operator" in sick.leases, "it takes no job while it waits"
        assert sick.count("exit") == 0
        fleet.cluster.kubectl("delete", "pdb", "b", "-n", fleet.namespace)
        wait_for("the eviction", lambda: name not in {pod["metadata"]["name"] for pod in fleet.pods()})
        wait_for("the replacement", lambda: len(fleet.pods()) == 2)
        fleet.adopt()
        status = fleet.wait_status("Healthy")
        assert status["evicted"] == 1
        (record,) = status["evictions"]
        new = next(pod for pod in fleet.pods() if pod["metadata"]["uid"] == record["replacementUID"])
        assert new["metadata"]["name"] != name


def test_small_objects_and_a_sick_worker_are_told_apart(fleet: Fleet, operator: OperatorProcess) -> None:
    fleet.deploy(4)
    fleet.miner(**FAST)
    with running(operator):
        fleet.wait_status("Healthy")
        small, sick, *rest = fleet.workers.values()
        small.gaussians = 90_000
        wait_for("the canary", lambda: small.count("canary") == 1)
        wait_for("the end of the cordon", lambda: "CanaryPassed" in fleet.events())
        assert small.count("exit") == 0
        sick.gaussians, sick.canary_passes = 50_000, False
        wait_for("the restart", lambda: sick.count("exit") == 1)
        fleet.wait_status("Healthy")
        assert all(worker.calls == [] for worker in rest)


def test_ambiguous_series_lead_to_nothing(
    fleet: Fleet, operator: OperatorProcess, prometheus: Prometheus
) -> None:
    fleet.deploy(2)
    fleet.miner(**FAST)
    with running(operator):
        fleet.wait_status("Healthy")
        (first, one), (_, two) = fleet.workers.items()
        # Two targets with one identity: nobody knows whose samples these are.
        uid = fleet.cluster.get("pod", first, namespace=fleet.namespace)["metadata"]["uid"]
        labels = {"pod_uid": uid, "pod": first, "node": "n1"}
        prometheus.scrape([(f"{w.address}:{w.port}", labels) for w in fleet.workers.values()])
        wait_for("Unknown", lambda: fleet.entry(first).get("state") == "Unknown")
        one.ratio = 0.95
        operator.wait_ticks(6)
        assert one.calls == []
        assert two.calls == []


def test_a_persons_wishes(fleet: Fleet, operator: OperatorProcess) -> None:
    fleet.deploy(2)
    fleet.miner(**FAST)
    with running(operator):
        fleet.wait_status("Healthy")
        name, worker = next(iter(fleet.workers.items()))
        fleet.annotate("pod", name, 'sn17.io/cordon={"by":"user","reason":"look"}')
        wait_for("the lease", lambda: "user" in worker.leases)
        worker.restart()
        wait_for("the lease again", lambda: "user" in worker.leases)
        worker.ratio = 0.95
        wait_for("the refusal", lambda: fleet.entry(name).get("heldBackBy") == "UserCordoned")
        worker.ratio = 0.3
        fleet.annotate("pod", name, 'sn17.io/cordon={"by":"user","lift":true}')
        wait_for("the end", lambda: "user" not in worker.leases)
        wait_for("no annotation", lambda: "sn17.io/cordon" not in fleet.annotations(name))
        fleet.annotate("pod", name, "sn17.io/recycle-requested=new driver")
        wait_for("the restart", lambda: worker.count("exit") == 1)
        fleet.wait_status("Healthy")
        fleet.annotate("snm", "m", "sn17.io/paused=upgrade")
        assert fleet.wait_status("Paused")["message"] == "paused: upgrade"
        assert fleet.condition("Paused")["status"] == "True"


def test_status_says_what_is_missing(fleet: Fleet, operator: OperatorProcess) -> None:
    fleet.miner(hotkeySecretName="my-hotkey")
    with running(operator):
        fleet.wait_status("TargetNotFound")
        fleet.cluster.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "workers"},
                "spec": {
                    "replicas": 1,
                    "selector": {"matchLabels": {"w": "workers"}},
                    "template": {
                        "metadata": {"labels": {"w": "workers", "app.kubernetes.io/part-of": "sn17"}},
                        "spec": {
                            "containers": [
                                {
                                    "name": "trellis",
                                    "image": "x",
                                    "resources": {"limits": {"nvidia.com/gpu": "1"}},
                                }
                            ]
                        },
                    },
                },
            },
            namespace=fleet.namespace,
        )
        status = fleet.wait_status("NoWorkers")
        wait_for("the scheduler's reason", lambda: "Unschedulable" in fleet.status()["message"], 40)
        assert status["ready"] == "0/1"
        assert status["gaussians"] == status["memory"] == status["success"] == "-"
        labels = {
            "app.kubernetes.io/part-of": "sn17",
            "app.kubernetes.io/instance": "t",
            "app.kubernetes.io/component": "miner",
        }
        fleet.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "miner-0", "labels": labels},
                "spec": {"containers": [{"name": "miner", "image": "x"}]},
            },
            namespace=fleet.namespace,
        )
        waiting = {"reason": "CreateContainerConfigError", "message": 'secret "my-hotkey" not found'}
        container = {
            "name": "miner",
            "image": "x",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"waiting": waiting},
        }
        fleet.cluster.kubectl(
            "patch", "pod", "miner-0", "-n", fleet.namespace, "--subresource=status", "--type=merge", "-p",
            json.dumps({"status": {"phase": "Pending", "containerStatuses": [container]}}),
        )  # fmt: skip
        message = fleet.wait_status("HotkeyMissing")["message"]
        assert f"--name my-hotkey | kubectl -n {fleet.namespace} apply" in message


def test_deployment_in_rollout_is_left_alone(
    fleet: Fleet, operator: OperatorProcess, api_with_crd: Cluster
) -> None:
    fleet.deploy(2)
    fleet.miner(**FAST)
    with running(operator):
        fleet.wait_status("Healthy")
        fleet.cluster.kubectl("set", "image", "deployment/workers", "trellis=other", "-n", fleet.namespace)
        fleet.wait_status("RolloutInProgress")
        for worker in fleet.workers.values():
            worker.ratio = 0.95
        wait_for(
            "the refusal", lambda: fleet.condition("RemediationAllowed")["reason"] == "RolloutInProgress"
        )
        assert all(worker.calls == [] for worker in fleet.workers.values())


def test_steering_from_the_command_line(fleet: Fleet, operator: OperatorProcess) -> None:
    fleet.deploy(2)
    fleet.miner(**FAST)

    def sn17(*arguments: str, fails: str = "") -> str:
        answer = subprocess.run(
            [sys.executable, "-m", "sn17", *arguments, "-n", fleet.namespace],
            capture_output=True,
            text=True,
            timeout=90,
            env=fleet.cluster.environment,
            check=False,
        )
        assert bool(answer.returncode) == bool(fails), answer.stderr
        assert fails in " ".join(answer.stderr.split())
        return answer.stdout

    with running(operator):
        fleet.wait_status("Healthy")
        name, worker = next(iter(fleet.workers.items()))
        assert sn17("cordon", name, "--reason", "new driver", "--wait", "0").startswith(
            f"{name} will be cordoned"
        )
        wait_for("the lease", lambda: worker.leases.get("user") == "cordoned by a person: new driver")
        assert sn17("uncordon", name) == f"{name} is back in service\n"
        assert "user" not in worker.leases
        sn17("uncordon", name, fails="is not cordoned by a person")
        assert sn17("recycle", name) == f"{name} has restarted\n"
        assert worker.count("exit") == 1
        assert "is paused: upgrade" in sn17("pause", "--reason", "upgrade")
        fleet.wait_status("Paused")
        assert "goes on" in sn17("resume")
        fleet.wait_status("Healthy")
        sn17("cordon", "nobody", fails="not found")
        sn17("explain", name, fails="there is no operator in this namespace")
