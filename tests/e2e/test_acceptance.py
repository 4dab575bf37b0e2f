"""The way of a person with a new cluster: install, helm test, watch, accept, the hotkey that was forgotten,
and the custom resource that grows with an upgrade.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sn17_cluster.client import Cluster
from sn17_cluster.release import PROMETHEUS, PROMETHEUS_TAG, Install, Release
from sn17_cluster.requirements import REPOSITORY
from sn17_cluster.stack import CHART, Stack, wait_until
from sn17_contract.gateway import GATEWAY_PORT
from sn17_splats import decode_spz

# A client as plain as the published ones.
sys.path.insert(0, str(REPOSITORY / "services" / "gateway" / "tests"))
from gateway_client import Client

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

CRD = "sn17miners.sn17.io"
SEED = "0x" + "5a" * 32
LITTLE: dict[str, Any] = {"resources": {"requests": {"cpu": "10m"}}}
VALUES: dict[str, Any] = {
    "trellis": {
        "memory": {"limit": "1Gi"},
        "cpu": {"request": "10m"},
        "settings": {"SN17_PROCEDURAL_MAX_GAUSSIANS": 100_000},
    },
    "localValidators": {"count": 4, "timeScale": 0.05, **LITTLE},
    "operator": {"settings": {"SN17_TICK_SECONDS": 3}, **LITTLE},
    "prometheus": {
        "scrapeIntervalSeconds": 2,
        "image": {"repository": PROMETHEUS, "tag": PROMETHEUS_TAG},
        **LITTLE,
    },
    "fixer": LITTLE,
    "gateway": LITTLE,
    "miner": {
        "terminationGracePeriodSeconds": 30,
        "persistence": {"enabled": True, "size": "1Gi"},
        **LITTLE,
    },
    "acceptance": {"gaussiansMean": 20_000},
}
# Without validators of its own it needs the hotkey of a wallet, which nobody has brought yet.
FORGETFUL: dict[str, Any] = {
    **VALUES,
    "trellis": {"replicas": 1, **VALUES["trellis"]},
    "localValidators": {"enabled": False},
    "miner": {"chain": {"source": "http", "url": "http://chain.invalid"}, **LITTLE},
}


@pytest.fixture(scope="module")
def forgetful(install: Install) -> Iterator[Stack]:
    stack = install("forgetful", FORGETFUL).stack
    yield stack
    remove(stack)


@pytest.fixture(scope="module")
def product(install: Install, forgetful: Stack) -> Iterator[Release]:
    release = install("product", VALUES)
    yield release
    remove(release.stack)


def remove(stack: Stack) -> None:
    """Make room for the other tests on this cluster, without waiting for it."""
    stack.cluster.helm("uninstall", stack.release, "-n", stack.namespace)


def sn17(stack: Stack, *args: str) -> subprocess.CompletedProcess[str]:
    """The command line, as a person with this KUBECONFIG and kubectl runs it."""
    return subprocess.run(
        [sys.executable, "-m", "sn17", *args],
        env=on_path(stack),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def on_path(stack: Stack) -> dict[str, str]:
    """The cluster's environment, in which kubectl is found by its name."""
    tools = Path(stack.cluster.tools["kubectl"]).parent
    return {**stack.cluster.environment, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("helm", ["helm", "helm3"])
def test_helm_test_passes(product: Release, helm: str) -> None:
    stack = product.stack
    wait_until("two workers", lambda: stack.is_ready("trellis", 2), timeout=120)
    said = stack.cluster.helm("test", "sn17", "-n", stack.namespace, "--logs", "--timeout=115s", tool=helm)
    assert "Prometheus sees the workers" in said
    assert "FAIL" not in said


@contextlib.contextmanager
def forwarded(stack: Stack, service: str, port: int) -> Iterator[str]:
    """Base URL of a Service of the release."""
    command = ["kubectl", "port-forward", "-n", stack.namespace, f"svc/{service}", f":{port}"]
    process = subprocess.Popen(command, env=on_path(stack), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+) ->", line)
        assert found, line
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        process.kill()
        process.wait()


def test_a_prompt_goes_through_the_gateway_and_comes_back_as_a_splat(product: Release) -> None:
    """With the guests' key that the chart made; the release's own miner works for its gateway."""
    stack = product.stack
    wait_until("the gateway", lambda: stack.is_ready("gateway"), timeout=120)
    secret = stack.cluster.get("secret", "sn17-gateway-guests", namespace=stack.namespace)
    key = base64.b64decode(secret["data"]["key"]).decode()
    with forwarded(stack, "sn17-gateway", GATEWAY_PORT) as url:
        client = Client(url, key)
        task = client.task("a red cube", seed=17)

        def fetched() -> bytes | None:
            answer = client.result(task)
            assert answer.status_code in (200, 404), answer.text
            return answer.content if answer.status_code == 200 else None

        asset = wait_until("the splat", fetched, timeout=120)
        assert client.status(task)["status"] == "Success"
    assert len(decode_spz(asset)) > 0


def test_a_missing_hotkey_is_said_with_the_command_that_brings_it(forgetful: Stack, tmp_path: Path) -> None:
    """kubelet alone knows what the pod waits for; the command is then taken at its word."""
    wait_until("the word in STATUS", lambda: forgetful.status() == "HotkeyMissing", timeout=120)
    message = forgetful.miner()["status"]["message"]
    command = f"--name sn17-hotkey | kubectl -n {forgetful.namespace} apply -f -"
    assert command in message
    assert 'secret "sn17-hotkey" not found' in message
    hotkey = tmp_path / "hotkey"
    hotkey.write_text(json.dumps({"secretSeed": SEED}))
    made = sn17(forgetful, "wallet", "secret", "--file", str(hotkey), "--name", "sn17-hotkey")
    assert made.returncode == 0, made.stderr
    forgetful.cluster.kubectl("-n", forgetful.namespace, "apply", "-f", "-", stdin=made.stdout)


def test_the_journal_is_copied_and_put_back_as_the_docs_say(product: Release, tmp_path: Path) -> None:
    stack = product.stack
    section = (
        (REPOSITORY / "docs" / "chart.md").read_text().partition("## The journal")[2].partition("\n## ")[0]
    )
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))
    here = commands.replace("namespace=mining\n", f"namespace={stack.namespace}\n")
    assert here != commands
    wait_until("accepted tasks", lambda: stack.accepted() >= 3, timeout=120)
    before = {task["task_id"] for task in stack.tasks() if task["outcome"] == "accepted"}
    answer = subprocess.run(
        ["bash", "-euxc", here],
        cwd=tmp_path,
        env=on_path(stack),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    with sqlite3.connect(tmp_path / "journal-backup.sqlite") as copy:
        kept = {row[0] for row in copy.execute("select task_id from tasks where outcome = 'accepted'")}
    assert kept >= before
    wait_until("the miner", lambda: stack.is_ready("miner"), timeout=90)
    known = stack.cluster.kubectl(
        *("exec", "-n", stack.namespace, "sn17-miner-0", "--", "python", "-c"),
        "import sqlite3; s = sqlite3.connect('file:/var/lib/sn17/journal.sqlite?mode=ro', uri=True);"
        "print(*(row[0] for row in s.execute('select task_id from tasks')))",
    )
    assert set(known.split()) >= kept


def test_acceptance_as_the_owner_of_a_gpu_runs_it(product: Release, output: Path) -> None:
    """Only shorter: the miner stops, workers are judged, the miner goes on, its tasks are judged."""
    stack = product.stack
    accepted, watched, record = (output / f"{name}.json" for name in ("accept", "watch", "gpu-acceptance"))
    answer = subprocess.run(
        [
            *("make", "--old-file=sync", "gpu-acceptance", f"NAMESPACE={stack.namespace}"),
            f"RESULT={record}",
            f"ACCEPT=--generations 6 --report {accepted}",
            f"WATCH=--submissions 12 --period-seconds 1 --report {watched}",
        ],
        cwd=REPOSITORY,
        env=on_path(stack),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    found = json.loads(accepted.read_text())
    # From the release's values, by way of its ConfigMap.
    assert found["criteria"]["thresholds"]["gaussians_mean"] == 20_000
    assert {sample["worker"] for sample in found["samples"]} == {
        pod["metadata"]["name"] for pod in stack.pods("trellis")
    }
    assert all(sample["memory_ratio"] for sample in found["samples"])
    made = json.loads(record.read_text())
    assert [worker["backend"] for worker in made["workers"]] == ["procedural"] * len(stack.pods("trellis"))
    assert len(made["renders"]) == 6
    ledger = json.loads(watched.read_text())
    assert ledger == {**made["watch"], "passed": ledger["passed"]}
    assert ledger["outcomes"]["accepted"] >= 1
    assert {"success", "yield"} <= {check["name"].split()[0] for check in ledger["checks"]}


def test_an_upgrade_brings_the_custom_resource_along(product: Release, kubectl_image: str) -> None:
    stack = product.stack
    text = (CHART / "crds" / f"{CRD}.yaml").read_text()
    old = yaml.safe_load(text)
    wanted = old["spec"]["versions"][0]["additionalPrinterColumns"]
    old["spec"]["versions"][0]["additionalPrinterColumns"] = wanted[:1]
    stack.cluster.apply(old)
    assert columns(stack.cluster) == wanted[:1]
    repository, _, tag = kubectl_image.rpartition(":")
    hook = {"crds": {"upgrade": {"enabled": True, "image": {"repository": repository, "tag": tag}}}}
    stack.upgrade({**VALUES, **hook})
    assert columns(stack.cluster) == wanted
    # What the hook needed is gone with it, the right to patch the definition first of all.
    assert stack.cluster.get("jobs", namespace=stack.namespace) == []
    bindings = [each["metadata"]["name"] for each in stack.cluster.get("clusterrolebindings")]
    assert not any(name.startswith(stack.namespace) for name in bindings)


def columns(cluster: Cluster) -> Any:
    """The printer columns of the definition that the API server holds."""
    return cluster.get("crd", CRD)["spec"]["versions"][0]["additionalPrinterColumns"]


def test_the_miner_starts_by_itself_once_the_hotkey_is_there(forgetful: Stack) -> None:
    def running() -> bool:
        return any(
            "running" in container["state"]
            for pod in forgetful.pods("miner")
            for container in pod["status"].get("containerStatuses", [])
        )

    # kubelet tries a volume again after two minutes at the latest.
    wait_until("the miner", running, timeout=180)
    wait_until("another word in STATUS", lambda: forgetful.status() != "HotkeyMissing", timeout=60)
