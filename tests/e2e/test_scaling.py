"""Workers come and go under load: from zero to work and back, scale-downs, and a node drained by kubectl.

The count is set as an autoscaler sets it, through the SN17Miner's scale subresource; no metrics adapter and
no KEDA run here. SN17_SCALE_DOWNS says how many scale-downs there are: few by default, 100 in the long form.
SN17_RESULTS names a folder for the figures.
"""

from __future__ import annotations

import contextlib
import json
import os
from datetime import datetime
from pathlib import Path

import pytest
from sn17_bench.stamp import stamp
from sn17_cluster.client import CommandError
from sn17_cluster.release import Install, Release, values
from sn17_cluster.stack import Stack, terminations, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(7_200)]

LOST = {"unvalidated", "skipped", "expired", "given_up", "dropped"}
FEW = 4


@pytest.fixture(scope="module")
def release(install: Install) -> Release:
    chosen = values(guard=True, operator=True, replicas=1, leak_mib=0)
    chosen["trellis"] |= {
        "autoscaling": {"kind": "hpa", "minReplicas": 1, "maxReplicas": 6},
        "terminationGracePeriodSeconds": 60,
        "settings": chosen["trellis"]["settings"] | {"SN17_PROCEDURAL_JOB_SECONDS": 3},
    }
    # The deadlines of a network in fast motion are shorter than a pod's start on a busy machine.
    chosen["miner"] |= {"settings": {"SN17_SCALE_AHEAD_SECONDS": 5, "SN17_TASK_DEADLINE_SECONDS": 600}}
    found = install("scaling", chosen)
    wait_until("a worker", lambda: found.stack.is_ready("trellis"), timeout=300)
    return found


def scale(stack: Stack, count: int) -> None:
    stack.cluster.kubectl("scale", f"sn17miner/{stack.release}", f"--replicas={count}", "-n", stack.namespace)
    wait_until(f"{count} workers", lambda: len(stack.pods("trellis")) == count, timeout=120)


def work(stack: Stack) -> float:
    """What an autoscaler would be told."""
    (found,) = stack.query("sum(sn17_work_tasks)") or [{"value": (0, "-1")}]
    return float(found["value"][1])


def lost(stack: Stack) -> list[object]:
    return [(t["scene"], t["outcome"], t["reason"]) for t in stack.tasks() if t["outcome"] in LOST]


def interrupted(release: Release) -> list[object]:
    """Workers that did not end by themselves, and generations that were cut off.

    A worker may end between the miner's last look at it and the task it was chosen for; the miner then finds
    nobody there and moves the task, which interrupts no job.
    """
    killed, ends = set(), set()
    for pod in release.pods.objects():
        if pod["metadata"]["labels"].get("app.kubernetes.io/component") != "trellis":
            continue
        for end in terminations(pod):
            ends.add((pod["status"].get("podIP", ""), datetime.fromisoformat(end["finishedAt"]).timestamp()))
            if end["exitCode"] != 0:
                killed.add((pod["metadata"]["name"], end["exitCode"], end["reason"]))
    log = release.stack.cluster.kubectl("logs", "sn17-miner-0", "-n", release.stack.namespace)
    pulled: dict[int, float] = {}
    cut = []
    for line in log.splitlines():
        if '"task"' not in line:
            continue
        said = json.loads(line)
        at = datetime.fromisoformat(said["time"]).timestamp()
        if said["message"] == "task pulled":
            pulled[said["task"]] = at
        elif said["message"].startswith("generation failed"):
            since = pulled[said["task"]]
            if any(ip and ip in said["worker"] and since < end + 1 <= at for ip, end in ends):
                cut.append(said["message"])
    return [*killed, *cut]


def all_ended(stack: Stack, before: int) -> bool:
    """The first tasks have all come to their end."""
    first = sorted(stack.tasks(), key=lambda task: task["assigned_at"])[:before]
    return all(task["outcome"] != "open" for task in first)


def test_from_zero_to_work_and_back(release: Release) -> None:
    stack = release.stack
    scale(stack, 0)
    wait_until("ScaledToZero", lambda: stack.status() == "ScaledToZero", timeout=60)
    # Nothing is pulled without a worker, and still there is work to be seen.
    wait_until("work to be seen", lambda: work(stack) >= 1, timeout=120)
    before = stack.accepted()
    scale(stack, 2)
    wait_until("accepted tasks", lambda: stack.accepted() >= before + 3, timeout=300)
    scale(stack, 0)
    wait_until("ScaledToZero", lambda: stack.status() == "ScaledToZero", timeout=120)
    scale(stack, 1)
    wait_until("all tasks to end", lambda: all_ended(stack, len(stack.tasks())), timeout=300)
    assert lost(stack) == []
    assert interrupted(release) == []


def test_scale_downs_under_load_interrupt_no_job_and_lose_no_task(release: Release) -> None:
    stack = release.stack
    wanted = int(os.environ.get("SN17_SCALE_DOWNS", FEW))
    most = 3 if wanted <= FEW else 6
    downs, busy = 0, 0
    while downs < wanted:
        scale(stack, most)
        wait_until("all in service", lambda: stack.is_ready("trellis", most), timeout=300)
        wait_until("load", lambda: len(_busy(stack)) >= 2, timeout=120)
        for less in range(most - 1, 0, -1):
            before = _busy(stack)
            scale(stack, less)
            left = {pod["metadata"]["name"] for pod in stack.pods("trellis")}
            busy += len(before - left)
            downs += 1
    wait_until("all tasks to end", lambda: all_ended(stack, len(stack.tasks())), timeout=300)
    found = {
        "schema": "sn17.scale-downs/v1",
        **stamp(),
        "scale_downs": downs,
        "of_workers_with_a_job": busy,
        "tasks": len(stack.tasks()),
        "lost": len(lost(stack)),
        "interrupted": len(interrupted(release)),
    }
    print(json.dumps(found, indent=1))
    if folder := os.environ.get("SN17_RESULTS"):
        (Path(folder) / "scale-downs.json").write_text(json.dumps(found, indent=1) + "\n")
    assert lost(stack) == []
    assert interrupted(release) == []


def test_a_node_drain_waits_for_the_jobs_and_loses_no_task(release: Release) -> None:
    stack = release.stack
    scale(stack, 2)
    wait_until("two in service", lambda: stack.is_ready("trellis", 2), timeout=300)
    wait_until("load", lambda: len(_busy(stack)) >= 1, timeout=120)
    (node, *_) = stack.cluster.get("nodes")
    name = node["metadata"]["name"]
    selector = "app.kubernetes.io/component=trellis"
    before = {pod["metadata"]["name"] for pod in stack.pods("trellis")}
    try:
        # By eviction: the disruption budget lets one worker go, and the other waits for its replacement,
        # which finds no other node here.
        stack.cluster.kubectl("cordon", name)
        drain = ["drain", name, f"--pod-selector={selector},app.kubernetes.io/instance={stack.release}"]
        with contextlib.suppress(CommandError):
            stack.cluster.kubectl(*drain, "--delete-emptydir-data", "--timeout=20s")
    finally:
        stack.cluster.kubectl("uncordon", name)
    wait_until("two in service", lambda: stack.is_ready("trellis", 2), timeout=300)
    assert before != {pod["metadata"]["name"] for pod in stack.pods("trellis")}
    wait_until("all tasks to end", lambda: all_ended(stack, len(stack.tasks())), timeout=300)
    assert lost(stack) == []
    assert interrupted(release) == []


def _busy(stack: Stack) -> set[str]:
    """Workers with a job."""
    names = [pod["metadata"]["name"] for pod in stack.pods("trellis")]
    return {name for name in names if stack.worker(name)["job"] is not None}
