"""What a person does from the command line, against workers that really run: explain, cordon, uncordon,
recycle, pause, resume and replay, as `sn17 ...` and as `kubectl sn17 ...`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sn17_cluster.release import Install, values
from sn17_cluster.stack import Stack, restarts, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1_800)]


@pytest.fixture(scope="module")
def stack(install: Install) -> Stack:
    found = install("steering", values(guard=True, operator=True, replicas=2, leak_mib=0)).stack
    wait_until("two workers in service", lambda: found.status() == "Healthy", timeout=300)
    return found


def sn17(stack: Stack, *arguments: str, plugin: bool = False) -> str:
    """What `sn17 arguments` prints; as a plug-in of kubectl if wanted."""
    own = Path(sys.executable).parent
    argv = [stack.cluster.tools["kubectl"], "sn17"] if plugin else [str(own / "sn17")]
    environment = stack.cluster.environment
    environment["PATH"] = os.pathsep.join([str(own), environment.get("PATH", os.defpath)])
    answer = subprocess.run(
        [*argv, *arguments], capture_output=True, text=True, env=environment, timeout=400, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_explain_by_way_of_the_api_server(stack: Stack) -> None:
    name = stack.pods("trellis")[0]["metadata"]["name"]
    for plugin in (False, True):
        found = json.loads(sn17(stack, "explain", name, "-n", stack.namespace, "--json", plugin=plugin))
        assert found["pod"] == name
        rules = {rule["rule"]: rule for rule in found["rules"]}
        assert rules["MemoryHigh"]["outcome"] == "Ok"
        assert 0 < rules["MemoryHigh"]["value"] < rules["MemoryHigh"]["threshold"]
        assert rules["MemoryHigh"]["sampleAgeSeconds"] < 60
        assert found["budget"]["expected"] == 2
    assert "next: nothing" in sn17(stack, "explain", name, "-n", stack.namespace)


def test_cordon_holds_and_uncordon_ends_it(stack: Stack) -> None:
    name = stack.pods("trellis")[0]["metadata"]["name"]
    where = ("-n", stack.namespace)
    assert sn17(stack, "cordon", name, "--reason", "new driver", *where) == f"{name} is cordoned\n"
    worker = stack.worker(name)
    assert (worker["state"], worker["job"]) == ("draining", None)
    assert "new driver" in worker["reason"]
    # kubelet's probe may see the drain before the tick that asked for it has written its status.
    wait_until("the column", lambda: stack.miner()["status"]["cordoned"] == 1, timeout=60)
    assert sn17(stack, "uncordon", name, *where) == f"{name} is back in service\n"
    wait_until("service", lambda: stack.status() == "Healthy", timeout=60)
    assert stack.worker(name)["state"] in ("ready", "busy")


def test_recycle_restarts_in_place(stack: Stack) -> None:
    pod = stack.pods("trellis")[0]
    name = pod["metadata"]["name"]
    boot = stack.worker(name)["boot_id"]
    assert sn17(stack, "recycle", name, "-n", stack.namespace, plugin=True) == f"{name} has restarted\n"
    wait_until("service", lambda: stack.status() == "Healthy", timeout=120)
    (after,) = (p for p in stack.pods("trellis") if p["metadata"]["name"] == name)
    assert after["metadata"]["uid"] == pod["metadata"]["uid"]
    assert restarts(after) == restarts(pod) + 1
    assert stack.worker(name)["boot_id"] != boot
    assert stack.miner()["status"]["recycles"] == 1


def test_pause_and_resume(stack: Stack) -> None:
    assert sn17(stack, "pause", "--reason", "upgrade", "-n", stack.namespace) == "sn17 is paused: upgrade\n"
    wait_until("the word", lambda: stack.status() == "Paused", timeout=60)
    assert stack.condition("Paused")["status"] == "True"
    assert sn17(stack, "resume", "-n", stack.namespace) == "sn17 goes on\n"
    wait_until("the word", lambda: stack.status() == "Healthy", timeout=60)


def test_replay_of_what_the_bundled_prometheus_has_seen(stack: Stack, tmp_path: Path) -> None:
    record = tmp_path / "recording.json.gz"
    settings = ["--miner", stack.miner()["metadata"]["name"], "-n", stack.namespace]
    with stack.cluster.forward("svc/sn17-prometheus", 9090, namespace=stack.namespace) as port:
        arguments = ["--prometheus", f"http://127.0.0.1:{port}", "--since", "10m", "--scrape-interval", "2"]
        arguments += ["--record", str(record), *settings]
        (report,) = json.loads(sn17(stack, "replay", *arguments, "--json"))["reports"]
    assert report["workers"] == 2
    assert report["actions"] == [], "healthy workers, and one that a person had restarted"
    assert sum(report["verdicts"].values()) > 0
    answer = json.loads(sn17(stack, "replay", "--file", str(record), *settings, "--json"))
    (again,) = answer["reports"]
    assert again["verdicts"] == report["verdicts"]
