"""The same leak in four arms: worker's guard off or on, operator off or on; and two that leak in lockstep.

All releases run side by side on one node, each in a namespace of its own, and the tests below look at
them one after another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sn17_cluster.release import LEAK_MIB, Install, Release, values
from sn17_cluster.stack import Recorder, out_of_memory_kills, restarts, terminations, wait_until
from sn17_contract.kubernetes import ANNOTATION_INTENT, EXIT_CODE_RECYCLE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

LEAK_TIMEOUT = 400.0
TASK_TIMEOUT = 90.0
EXPECTED_COLUMNS = ["READY", "CORDONED", "RECYCLING", "GAUSSIANS", "MEMORY", "SUCCESS", "STATUS", "AGE"]
EXPECTED_WIDE = ["OOMS", "SWAPS", "LAST-RECYCLE", "PAUSED", "PROMETHEUS"]
ENDED_WELL = {"accepted", "rejected"}
LOST = {"unvalidated", "skipped", "expired", "given_up", "dropped"}


@pytest.fixture(scope="module")
def control(install: Install) -> Release:
    return install("control", values(guard=False, operator=False))


@pytest.fixture(scope="module")
def guarded(install: Install, control: Release) -> Release:
    return install("guarded", values(guard=True, operator=False, self_recycle_after=10))


@pytest.fixture(scope="module")
def operated(install: Install, guarded: Release) -> Release:
    return install("operated", values(guard=False, operator=True))


@pytest.fixture(scope="module")
def both(install: Install, operated: Release, output: Path) -> Iterator[Release]:
    again = {"cooldownSeconds": 10, "youngSeconds": 0}
    release = install("both", values(guard=True, operator=True, recycle=again))
    watch = Recorder(release.stack.cluster, "sn17miners", release.stack.namespace, output, form="wide")
    yield release
    watch.stop()


@pytest.fixture(scope="module")
def pair(install: Install, both: Release) -> Release:
    return install("pair", values(guard=True, operator=True, replicas=2, leak_mib=2 * LEAK_MIB))


@pytest.fixture(scope="module")
def fading(install: Install, pair: Release) -> Release:
    """A worker whose gaussians fall to an eighth while its memory is still far from any mark."""
    faults = {"gaussian_decay": True, "gaussian_decay_from": 0.1, "gaussian_decay_to": 0.25}
    rules = {"gaussians": {"minimumMean": 12_000}, "canary": {"action": "Off"}}
    # A refused result costs a long wait, and the worker would get no more work to be judged by.
    lenient = {"SN17_QUALITY_THRESHOLD": 0}
    chosen = values(guard=True, operator=True, faults=faults, rules=rules, validators=lenient)
    return install("fading", chosen)


@pytest.fixture(scope="module")
def swapped(install: Install, fading: Release) -> Release:
    """Its model is a process of its own; the worker's guard is off, so that the operator alone acts."""
    return install("swapped", values(guard=False, operator=True, strategy="Swap"))


@pytest.fixture(autouse=True)
def _all(
    control: Release,
    guarded: Release,
    operated: Release,
    both: Release,
    pair: Release,
    fading: Release,
    swapped: Release,
) -> None:
    """Install all of them before the first test: they leak while others are looked at."""


def intents(release: Release) -> list[dict[str, Any]]:
    """What the operator noted on the workers, in order, without repetitions."""
    found: list[dict[str, Any]] = []
    for pod in release.pods.objects():
        text = pod["metadata"].get("annotations", {}).get(ANNOTATION_INTENT)
        note = {"pod": pod["metadata"]["name"], **json.loads(text)} if text else None
        if note and note not in found:
            found.append(note)
    return found


def recycles(release: Release) -> dict[str, int]:
    """By pod: how often its container ended with the exit code of a recycle."""
    ends: dict[str, set[str]] = {}
    for pod in release.pods.objects():
        for end in terminations(pod):
            if end["exitCode"] == EXIT_CODE_RECYCLE:
                ends.setdefault(pod["metadata"]["name"], set()).add(end["containerID"])
    return {name: len(containers) for name, containers in ends.items()}


def first_recycle(release: Release) -> Any:
    """The first end of a container with the exit code of a recycle, or None."""
    ends = (end for pod in release.pods.objects() for end in terminations(pod))
    return next((end for end in ends if end["exitCode"] == EXIT_CODE_RECYCLE), None)


def ended(release: Release, count: int) -> bool:
    """Whether the first `count` tasks have ended; fails when one ended without a result that was looked at.

    Tasks from before the first accepted one are left out: workers that start beside five other releases are
    so slow that the miner gives old tasks back, as it should.
    """
    tasks = sorted(release.stack.tasks(), key=lambda task: task["assigned_at"])[:count]
    start = min(task["closed_at"] for task in tasks if task["outcome"] == "accepted")
    counted = [task for task in tasks if task["assigned_at"] >= start]
    lost = [(task["scene"], task["outcome"], task["reason"]) for task in counted if task["outcome"] in LOST]
    assert lost == []
    return all(task["outcome"] in ENDED_WELL for task in counted)


def assert_no_task_lost(release: Release) -> None:
    """All tasks handed out so far end with a submission that the validators looked at."""
    count = len(release.stack.tasks())
    assert count > 0
    wait_until("the end of every task", lambda: ended(release, count), timeout=TASK_TIMEOUT)


def most_at_once(release: Release) -> int:
    """How many workers the operator had in hand at the same time, at most."""
    held: dict[str, bool] = {}
    most = 0
    for pod in release.pods.objects():
        annotations = pod["metadata"].get("annotations", {})
        held[pod["metadata"]["name"]] = ANNOTATION_INTENT in annotations
        most = max(most, sum(held.values()))
    return most


def _has_intent(release: Release) -> bool:
    return any(
        ANNOTATION_INTENT in pod["metadata"].get("annotations", {}) for pod in release.stack.pods("trellis")
    )


def _uninstall(release: Release) -> None:
    stack = release.stack
    stack.uninstall(timeout=90)
    assert stack.cluster.get("sn17miners", namespace=stack.namespace) == []
    stack.cluster.kubectl("delete", "namespace", stack.namespace, "--timeout=150s")


def test_an_operator_killed_between_cordon_and_recycle_goes_on_and_recycles_once(operated: Release) -> None:
    stack = operated.stack
    wait_until("a cordon", lambda: intents(operated), timeout=LEAK_TIMEOUT)
    operator = stack.pods("operator")[0]["metadata"]["name"]
    stack.cluster.kubectl(
        "delete", "pod", operator, "-n", stack.namespace, "--grace-period=0", "--force", timeout=60
    )
    before = {pod["metadata"]["name"]: restarts(pod) for pod in stack.pods("trellis")}
    assert set(before.values()) == {0}, "the operator was killed too late to prove anything"
    wait_until("the recycle", lambda: first_recycle(operated), timeout=120)
    wait_until("a healthy release", lambda: stack.status() == "Healthy", timeout=180)
    wait_until("the end of the intent", lambda: not _has_intent(operated), timeout=120)
    assert recycles(operated) == dict.fromkeys(before, 1)
    assert out_of_memory_kills(operated.pods) == set()
    assert_no_task_lost(operated)


def test_tasks_are_accepted_and_the_columns_are_as_documented(both: Release) -> None:
    stack = both.stack
    wait_until("accepted tasks", lambda: stack.accepted() >= 3, timeout=180)
    wait_until("a success ratio", lambda: stack.miner()["status"]["success"] != "-", timeout=90)
    header, row = stack.columns().splitlines()
    assert header.split()[1:] == EXPECTED_COLUMNS
    assert len(row.split()) == len(EXPECTED_COLUMNS) + 1
    assert row.split()[1].endswith("/1")
    assert stack.columns("-o", "wide").splitlines()[0].split()[9:14] == EXPECTED_WIDE


def test_guard_and_operator_recycle_in_place_without_refusal_or_loss(both: Release, output: Path) -> None:
    stack = both.stack
    wait_until("the recycle", lambda: first_recycle(both), timeout=LEAK_TIMEOUT)
    worker = stack.pods("trellis")[0]
    wait_until("the worker in service", lambda: stack.is_ready("trellis"), timeout=120)
    wait_until("the end of the intent", lambda: not _has_intent(both), timeout=120)
    # In place: the same pod, and so the same GPU.
    assert list(recycles(both)) == [worker["metadata"]["name"]]
    refusals = stack.query('sum(max_over_time(sn17_refusals_total{code="memory_refused"}[30m]))')
    assert [float(each["value"][1]) for each in refusals] == [0.0]
    assert out_of_memory_kills(both.pods) == set()
    reasons = [event["reason"] for event in stack.events() if event["involvedObject"]["kind"] == "SN17Miner"]
    for reason in ("WorkerCordoned", "CleanupRequested", "RecycleRequested", "WorkerRecycled"):
        assert reason in reasons
    (output / "columns.txt").write_text(stack.columns("-o", "wide"))
    assert_no_task_lost(both)


def test_missing_metrics_are_said(both: Release) -> None:
    stack = both.stack
    stack.scale("prometheus", 0)
    wait_until("the missing metrics in STATUS", lambda: stack.status() == "MetricsUnavailable", timeout=90)
    assert stack.condition("MetricsAvailable")["status"] == "False"


def test_a_worker_that_loses_gaussians_is_recycled_although_its_memory_is_fine(fading: Release) -> None:
    stack = fading.stack
    wait_until("the recycle", lambda: first_recycle(fading), timeout=LEAK_TIMEOUT)
    assert {note["rule"] for note in intents(fading)} == {"GaussiansLow"}
    assert stack.events("CanaryRequested") != []


def test_without_guard_and_operator_the_leak_ends_in_an_oom_kill(control: Release) -> None:
    wait_until("an OOM kill", lambda: out_of_memory_kills(control.pods), timeout=LEAK_TIMEOUT)


def test_a_guarded_worker_refuses_and_recycles_itself(guarded: Release) -> None:
    end = wait_until("a self-recycle", lambda: first_recycle(guarded), timeout=LEAK_TIMEOUT)
    assert "self_recycle" in end["message"]
    assert out_of_memory_kills(guarded.pods) == set()
    assert_no_task_lost(guarded)


def test_two_that_leak_in_lockstep_are_recycled_one_after_another(pair: Release) -> None:
    stack = pair.stack
    wait_until("two recycles", lambda: len(recycles(pair)) == 2, timeout=LEAK_TIMEOUT)
    assert out_of_memory_kills(pair.pods) == set()
    assert most_at_once(pair) == 1
    wait_until("a healthy release", lambda: stack.status() == "Healthy", timeout=180)
    assert_no_task_lost(pair)


def test_a_leaking_model_process_is_renewed_and_the_container_stays(swapped: Release) -> None:
    """Beside its work where two fit, else after a drain: that depends on how slow the node is."""
    stack = swapped.stack
    renewed = ("WorkerSwapped", "WorkerReplaced")
    wait_until(
        "a new model process", lambda: [e for r in renewed for e in stack.events(r)], timeout=LEAK_TIMEOUT
    )
    wait_until("a healthy release", lambda: stack.status() == "Healthy", timeout=180)
    assert [restarts(pod) for pod in stack.pods("trellis")] == [0]
    assert recycles(swapped) == {}
    assert out_of_memory_kills(swapped.pods) == set()
    assert_no_task_lost(swapped)


def test_uninstalls_with_the_operator_running(pair: Release) -> None:
    _uninstall(pair)


def test_uninstalls_without_an_operator(operated: Release) -> None:
    operated.stack.scale("operator", 0)
    _uninstall(operated)


def test_without_metrics_nothing_is_done(both: Release) -> None:
    stack = both.stack
    worker = stack.pods("trellis")[0]["metadata"]["name"]
    # Far beyond the mark at which the operator would act. It is blind since its Prometheus was scaled away,
    # and the worker has leaked on while others were looked at and uninstalled.
    wait_until("memory above the mark", lambda: stack.memory_ratio(worker) > 0.75, timeout=LEAK_TIMEOUT)
    assert len(recycles(both)) == 1
    assert recycles(both)[worker] == 1
    assert not _has_intent(both)
    assert stack.status() == "MetricsUnavailable"
    stack.scale("prometheus", 1)
    wait_until("a recycle, now that it is seen", lambda: recycles(both)[worker] == 2, timeout=180)
    assert out_of_memory_kills(both.pods) == set()
