"""A release of 0.1.0 becomes one of today while tasks are under way: none may be lost or done twice.

SN17_UPGRADE_FROM names the commit of the older release; without it the test is skipped, since its images are
built from that commit. SN17_RESULTS names a folder for the figures.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from sn17_bench.stamp import stamp
from sn17_cluster.client import Cluster
from sn17_cluster.release import PROMETHEUS, PROMETHEUS_TAG
from sn17_cluster.requirements import REPOSITORY
from sn17_cluster.stack import CHART, Stack, wait_until
from sn17_miner.journal.migrations import SCHEMA_VERSION

FROM = os.environ.get("SN17_UPGRADE_FROM", "")
CRD = "sn17miners.sn17.io"
LOST = {"unvalidated", "skipped", "expired", "given_up", "dropped"}
LITTLE: dict[str, Any] = {"resources": {"requests": {"cpu": "10m"}}}
COMPONENTS = ("trellis", "fixer", "miner", "operator", "tools")

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1_800),
    pytest.mark.skipif(not FROM, reason="SN17_UPGRADE_FROM names no commit: images would be built from it"),
]


@pytest.fixture(scope="module")
def older(loaded: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The older commit's files, with its images on the nodes under tags of their own."""
    folder = tmp_path_factory.mktemp("older")
    archive = subprocess.run(
        ["git", "-C", str(REPOSITORY), "archive", FROM], stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    builder = folder / "tools" / "images.py"
    # Both releases' images would have the tag 0.1.0 on a checkout that is not a release.
    builder.write_text(builder.read_text().replace('VERSION = "0.1.0"', f'VERSION = "{FROM}"'))
    made = subprocess.run(
        [sys.executable, str(builder), "--archives"], stdout=subprocess.PIPE, text=True, check=True
    )
    assert loaded.load is not None
    for line in made.stdout.splitlines():
        if line.startswith("/"):
            loaded.load(Path(line))
    return folder


@pytest.fixture
def namespace(loaded: Cluster, output: Path) -> Iterator[str]:
    with loaded.namespace(prefix="upgrade") as name:
        yield name
        loaded.dump(output / "upgrade", name)


def values() -> dict[str, Any]:
    """Of the older release: its keys are what a person has stored."""
    chosen: dict[str, Any] = {
        "trellis": {
            "replicas": 2,
            "memory": {"limit": "1Gi"},
            "cpu": {"request": "10m"},
            # Long jobs, so that some are under way at every moment.
            "settings": {
                "SN17_PROCEDURAL_MAX_GAUSSIANS": 30_000,
                "SN17_FAULTS": json.dumps({"slow_seconds": 5}),
            },
        },
        "localValidators": {"count": 4, "timeScale": 0.05, **LITTLE},
        "operator": {"settings": {"SN17_TICK_SECONDS": 3}, **LITTLE},
        "prometheus": {
            "scrapeIntervalSeconds": 2,
            "image": {"repository": PROMETHEUS, "tag": PROMETHEUS_TAG},
            **LITTLE,
        },
        "fixer": LITTLE,
        # The deadlines of a network in fast motion are shorter than a pod's start on a busy machine.
        "miner": {
            "persistence": {"enabled": True, "size": "1Gi"},
            "settings": {"SN17_TASK_DEADLINE_SECONDS": 600},
            **LITTLE,
        },
    }
    for component in COMPONENTS:
        tag = f"{FROM}-procedural" if component == "trellis" else FROM
        chosen[component] = {**chosen.get(component, {}), "image": {"tag": tag}}
    return chosen


def commands(page: str, heading: str) -> list[str]:
    """The shell commands below a heading of a page of the docs."""
    text = (REPOSITORY / "docs" / page).read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def open_tasks(stack: Stack) -> set[str]:
    return {task["task_id"] for task in stack.tasks() if task["outcome"] == "open"}


class WithOlderValidators(Stack):
    """Their ledger had another path in 0.1.0."""

    def tasks(self) -> list[Any]:
        books = json.loads(self._proxy("services", f"{self.release}-validators", 8099, "/books"))
        return [task for validator in books["validators"] for task in validator["tasks"]]


JOURNAL = """
import json, sqlite3
db = sqlite3.connect("file:/var/lib/sn17/journal.sqlite?mode=ro", uri=True)
tasks = db.execute(
    "select task_id, submits, (select count(*) from attempts where task = n and state in"
    " ('generated', 'fixed', 'submitted')) from tasks"
).fetchall()
print(json.dumps({"version": db.execute("pragma user_version").fetchone()[0], "tasks": tasks}))
"""


@dataclass(frozen=True)
class Entry:
    """A task as the miner's journal has it: how often it was handed in, how often its asset was made."""

    task_id: str
    submits: int
    made: int


def journal(stack: Stack) -> tuple[int, list[Entry]]:
    """The journal's schema, and its tasks."""
    python = ("exec", "-n", stack.namespace, "sn17-miner-0", "--", "python", "-c", JOURNAL)
    said = json.loads(stack.cluster.kubectl(*python))
    return said["version"], [Entry(*task) for task in said["tasks"]]


def twice(entries: Sequence[Entry]) -> list[str]:
    """Tasks that were taken, made or handed in more than once."""
    taken = Counter(entry.task_id for entry in entries)
    return [e.task_id for e in entries if taken[e.task_id] > 1 or e.submits > 1 or e.made > 1]


def test_what_is_done_twice_is_seen() -> None:
    """The control of the count below."""
    good = [Entry("a", 1, 1), Entry("b", 0, 0)]
    assert twice(good) == []
    for bad in (Entry("c", 2, 1), Entry("c", 1, 2), Entry("a", 1, 1)):
        assert bad.task_id in twice([*good, bad])


def test_an_upgrade_from_the_last_release_loses_and_doubles_no_task(
    loaded: Cluster, older: Path, namespace: str, tmp_path: Path
) -> None:
    stack, file = WithOlderValidators(loaded, namespace), tmp_path / "values.json"
    crd = (older / "charts" / "sn17" / "crds" / f"{CRD}.yaml").read_text()
    loaded.apply(yaml.safe_load(crd))
    file.write_text(json.dumps(values()))
    chart = older / "charts" / "sn17"
    preset = f"--values={chart / 'values-laptop.yaml'}"
    loaded.helm("install", "sn17", str(chart), "-n", namespace, preset, f"--values={file}", "--skip-crds")
    wait_until("accepted tasks", lambda: stack.accepted() >= 12, timeout=400)
    # The local validators are part of the chart, those of a subnet are not: they stay as they are.
    stay = '{"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}}'
    loaded.kubectl("patch", "statefulset", "sn17-validators", "-n", namespace, "-p", stay)
    wait_until("tasks under way", lambda: len(open_tasks(stack)) >= 2, timeout=120)
    before, under_way = {task["task_id"] for task in stack.tasks()}, open_tasks(stack)

    started = time.monotonic()
    (crds,) = commands("upgrade.md", "The CRD")
    upgrade = commands("upgrade.md", "Upgrade from 0.1.0")
    tags = " ".join(f"--set {name}.image.tag=" for name in COMPONENTS)
    for command in (crds, *upgrade):
        argv = command.replace("--set ...", f"{tags} --set image.preloaded=true").split()
        argv += ["-n", namespace] if argv[0] == "helm" else []
        program = loaded.helm if argv[0] == "helm" else loaded.kubectl
        program(*(str(CHART.parent.parent / arg) if arg.startswith("charts/") else arg for arg in argv[1:]))
    wait_until("the new miner", lambda: _is_new(stack, "miner"), timeout=300)
    wait_until("the new fixer", lambda: _is_new(stack, "fixer"), timeout=300)
    wait_until("the new operator", lambda: _is_new(stack, "operator"), timeout=300)
    wait_until("the new workers", lambda: _is_new(stack, "trellis", 2), timeout=600)
    seconds = time.monotonic() - started

    accepted = stack.accepted()
    wait_until("tasks accepted after it", lambda: stack.accepted() >= accepted + 10, timeout=400)
    first = {task["task_id"] for task in stack.tasks()}
    wait_until("all of them to end", lambda: not open_tasks(stack) & first, timeout=300)
    wait_until("the operator's verdict", lambda: stack.status() == "Healthy", timeout=120)
    tasks = [task for task in stack.tasks() if task["task_id"] in first]
    lost = [(task["task_id"], task["outcome"], task["reason"]) for task in tasks if task["outcome"] in LOST]
    version, entries = journal(stack)
    doubled, known = twice(entries), {entry.task_id for entry in entries}
    found = {
        "schema": "sn17.upgrade/v1",
        **stamp(),
        "from": FROM,
        "load": round(os.getloadavg()[0], 1),
        "tasks_before": len(before),
        "under_way": len(under_way),
        "tasks": len(tasks),
        "accepted": sum(task["outcome"] == "accepted" for task in tasks),
        "lost": len(lost),
        "twice": len(doubled),
        "unknown_to_the_journal": len(before - known),
        "journal_schema": version,
        "seconds": round(seconds, 1),
    }
    print(json.dumps(found, indent=1))
    if folder := os.environ.get("SN17_RESULTS"):
        (Path(folder) / "upgrade.json").write_text(json.dumps(found, indent=1) + "\n")
    assert lost == []
    assert doubled == []
    assert before <= known
    assert version == SCHEMA_VERSION
    assert stack.miner()["spec"]["strategy"] == "RestartContainer", "an object keeps what is stored in it"
    assert "Swaps" in str(loaded.get("crd", CRD)["spec"]["versions"][0]["additionalPrinterColumns"])


def _is_new(stack: Stack, component: str, count: int = 1) -> bool:
    pods = stack.pods(component)
    images = [container["image"] for pod in pods for container in pod["spec"]["containers"]]
    return stack.is_ready(component, count) and not any(FROM in image for image in images)
