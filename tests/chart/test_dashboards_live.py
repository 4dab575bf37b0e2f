"""Every query of every dashboard against a real Prometheus with data of the real services."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from live_release import LiveRelease, wait_for
from sn17.commands import app
from sn17.up.collect import assigned_tasks, read_tasks
from sn17.up.report import build
from sn17_cluster.client import Cluster
from sn17_contract.local_network import NetworkLedger
from sn17_dashboards.__main__ import FOLDER, PICTURES
from sn17_dashboards.boards.thresholds import filled_in as in_numbers
from sn17_dashboards.draw import chosen, draw_boards, units
from sn17_dashboards.prometheus import Window, filled_in, query_range
from sn17_http import own_client, own_request
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "services" / "gateway" / "tests"))
from gateway_client import Client

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(780)]
CHART = Path(__file__).resolve().parents[2] / "charts" / "sn17"

LEAK = {"leak_mib_per_generation": 35}
# Slower, so that the miner prefers the other one, which would else have nothing to do on a quick machine.
SLOW_LEAK = {"leak_mib_per_generation": 30, "slow_seconds": 2}
SETTINGS = {
    "trellis": {"SN17_MEMORY_LIMIT_BYTES": 600 << 20, "SN17_PROCEDURAL_MAX_GAUSSIANS": 60_000},
    # Without its guard, for the operator to restart its container; the other's swaps its model process.
    "trellis-0": {"SN17_FAULTS": json.dumps(LEAK), "SN17_GUARD": "off"},
    "trellis-1": {"SN17_FAULTS": json.dumps(SLOW_LEAK)},
    "miner": {"SN17_TIME_SCALE": 0.02, "SN17_CHAIN__INTERVAL_SECONDS": 10},
    "validators": {
        "SN17_TIME_SCALE": 0.02,
        "SN17_VALIDATORS": 3,
        # Some assets are not good enough, one validator is slow, and the service of another is away at times.
        "SN17_QUALITY_THRESHOLD": 0.9,
        "SN17_FAULTS": json.dumps(
            [
                {"kind": "slow", "validator": 1, "call": "SubmitResults", "seconds": 4.0, "probability": 0.7},
                {"kind": "unvalidated", "validator": 2, "call": "SubmitResults", "probability": 0.25},
            ]
        ),
    },
    "operator": {"SN17_TICK_SECONDS": 2},
}
QUICK_MEMORY_RULE = {"highForSeconds": 4, "clearForSeconds": 4}

# Panels some of whose queries have no series on such a laptop: no GPU, nothing that fails, is refused or held
# back, no day before.
WITHOUT_DATA = {
    ("overview", "Validators"),
    ("overview", "Why tasks were not accepted"),
    ("trellis", "GPU faults and throttling"),
    ("trellis", "GPU memory errors"),
    ("trellis", "Model starts that failed"),
    ("operator", "Suspect GPUs"),
    ("trellis", "Refusals"),
    ("operator", "Held back"),
    ("trellis", "GPU"),
    ("operator", "Queries without a usable answer"),
    ("network", "Cooldown violations"),
    ("network", "Given up"),
}


def drawing() -> bool:
    """Whether the pictures in docs/ are made anew."""
    return os.environ.get("SN17_PICTURES") == "1"


@pytest.fixture(scope="module")
def live(api: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRelease]:
    """A release that has accepted tasks, restarted one worker and swapped the other's model process."""
    for crd in (CHART / "crds").glob("*.yaml"):
        api.apply(crd.read_text())
    api.wait_established("sn17miners.sn17.io")
    folder = tmp_path_factory.mktemp("live")
    with api.namespace("live") as namespace:
        preset = str(CHART / "values-laptop.yaml")
        api.helm(
            "install", "sn17", str(CHART), "-n", namespace, "-f", preset,
            "--set", "grafana.enabled=false",
            "--set-json", f"operator.spec.rules.memory={json.dumps(QUICK_MEMORY_RULE)}",
            # The recycle that the boards show is that of a container; a swap leaves it running.
            "--set", "operator.spec.strategy=RestartContainer",
        )  # fmt: skip
        with LiveRelease(api, namespace, folder, SETTINGS) as release:
            try:
                _use_the_gateway(release)
                _until_it_has_a_story(release)
            except AssertionError as error:
                raise AssertionError(f"{error}\n" + "\n".join(release.logs())) from error
            yield release


def _use_the_gateway(release: LiveRelease) -> None:
    """Two tasks from prompt to splat by way of the miner, and a refusal."""
    url = f"http://{release.address('gateway')}:8404"
    secret = release.cluster.get("secret", "sn17-gateway-guests", namespace=release.namespace)
    client = Client(url, base64.b64decode(secret["data"]["key"]).decode())
    wait_for(
        "a scrape before the first task", lambda: release.query("sn17_gateway_deliveries_total == 0"), 60
    )
    tasks = [client.task("a red cube"), client.task("a blue sphere")]

    def all_done() -> bool:
        return all(client.status(task)["status"] == "Success" for task in tasks)

    wait_for("splats through the gateway", all_done, 120)
    assert Client(url, None).add().status_code == 401


def _until_it_has_a_story(release: LiveRelease) -> None:
    accepted = 'sum(sn17_tasks_total{outcome="accepted"}) >= 15'
    recycled = 'sum(sn17_actions_total{action="Exit",outcome="ok"}) >= 1'
    renewed = f'sum(sn17_swaps_total{{outcome="done",pod="{release.pods["trellis"][1].name}"}}) >= 1'
    wait_for("accepted tasks", lambda: release.query(accepted), 180)
    wait_for("a recycle", lambda: release.query(recycled), 240)
    back = f'sum(sn17_ready{{pod="{release.pods["trellis"][0].name}"}}) == 1'
    wait_for("the recycled worker", lambda: release.query(back), 60)
    wait_for("a swap of the other one", lambda: release.query(renewed), 240)
    # A rate needs two samples after it, and the pictures some of what comes then.
    later = _now(release) + (100 if drawing() else 10)
    wait_for("the time after it", lambda: _now(release) > later, 150)


def _now(release: LiveRelease) -> float:
    (_, value) = release.query("time()")
    return float(value)


@pytest.fixture(scope="module")
def boards() -> dict[str, Any]:
    return {path.stem: json.loads(in_numbers(path.read_text())) for path in FOLDER.glob("*.json")}


@pytest.fixture(scope="module")
def window() -> Window:
    now = time.time()
    return Window(now - 420, now, 5)


@pytest.fixture(scope="module")
def client(live: LiveRelease) -> Iterator[httpx2.Client]:
    with own_client(base_url=live.url, timeout=30) as made:
        yield made


def test_one_worker_was_restarted_the_other_swapped_and_nothing_was_lost(live: LiveRelease) -> None:
    assert live.pods["trellis"][0].restarts >= 1
    assert live.pods["trellis"][1].restarts == 0
    assert not live.query('sn17_tasks_total{outcome=~"given_up|expired"} > 0')


def test_variables_find_the_release(live: LiveRelease, client: httpx2.Client, window: Window) -> None:
    values = chosen(client, window)
    assert (values["namespace"], values["release"]) == (live.namespace, "sn17")


def test_every_query_returns_series(
    client: httpx2.Client, boards: dict[str, Any], window: Window, live: LiveRelease
) -> None:
    values = chosen(client, window)
    told: dict[bool, set[tuple[str, str]]] = {True: set(), False: set()}
    for name, board in boards.items():
        for panel in board["panels"]:
            for target in panel["targets"]:
                series = query_range(client, filled_in(target["expr"], values), window)
                told[bool(series)].add((name, panel["title"]))
    assert told[False] <= WITHOUT_DATA
    # What has no series for one query of several has them for the others.
    assert {("overview", "Validators"), ("overview", "Why tasks were not accepted")} <= told[True]


def test_shares_stay_shares(client: httpx2.Client, boards: dict[str, Any], window: Window) -> None:
    values = chosen(client, window)
    for board in boards.values():
        for panel in board["panels"]:
            unit, own = panel["fieldConfig"]["defaults"]["unit"], units(panel)
            for target in panel["targets"]:
                if own.get(target["legendFormat"], unit) == "percentunit":
                    for series in query_range(client, filled_in(target["expr"], values), window):
                        assert all(0 <= value <= 1 for _, value in series.samples), target["expr"]


def test_annotations_mark_recycle_and_swap(
    client: httpx2.Client, boards: dict[str, Any], window: Window
) -> None:
    values = chosen(client, window)
    for annotation in boards["overview"]["annotations"]["list"]:
        assert query_range(client, filled_in(annotation["expr"], values), window), annotation["name"]


def test_every_panel_is_drawn(live: LiveRelease, boards: dict[str, Any], tmp_path: Path) -> None:
    into = PICTURES if drawing() else tmp_path
    draw_boards(FOLDER, live.url, time.time() - live.began, into)
    assert {path.stem for path in into.glob("*.png")} == set(boards)
    assert all(path.stat().st_size > 10_000 for path in into.glob("*.png"))


def test_the_smoke_test_passes_as_the_chart_runs_it(live: LiveRelease, chart: Any) -> None:
    release = chart.render("-f", str(CHART / "values-laptop.yaml"), namespace=live.namespace)
    (arguments,) = [c["args"] for c in release.one("Pod", "sn17-smoke")["spec"]["containers"]]
    here = {
        "http://sn17-trellis:10006": f"http://{live.address('trellis', 1)}:10006",
        "http://sn17-fixer:8080": f"http://{live.address('fixer')}:8080",
        "http://sn17-prometheus:9090": live.url,
    }
    for name, address in here.items():
        arguments = [argument.replace(name, address) for argument in arguments]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    assert "Prometheus sees the workers" in answer.output


def test_watch_reads_the_books_of_the_miner(live: LiveRelease, tmp_path: Path) -> None:
    verdict = tmp_path / "verdict.json"
    answer = CliRunner().invoke(
        app,
        [
            "watch", "--past", "--submissions", "10", "--report", str(verdict),
            "--miner", f"http://{live.address('miner')}:9090",
            "--token-file", str(live.folder / "sn17-admin-token.token"),
        ],
    )  # fmt: skip
    assert answer.exit_code in (0, 1), answer.output
    assert json.loads(verdict.read_text())["outcomes"]["accepted"] >= 10


def test_a_copy_of_the_running_journal_is_whole(live: LiveRelease, tmp_path: Path) -> None:
    """The command of docs/chart.md, on the journal of the running miner."""
    command = re.search(
        r'python -c "(import sqlite3;[^"]+)"', (CHART.parents[1] / "docs/chart.md").read_text()
    )
    assert command
    code = command[1].replace("/var/lib/sn17/backup.sqlite", str(tmp_path / "backup.sqlite"))
    code = code.replace("/var/lib/sn17/journal.sqlite", str(live.journal))
    subprocess.run([sys.executable, "-c", code], check=True)
    assert len(read_tasks(tmp_path / "backup.sqlite")) >= 15


def test_upgrade_and_rollback_lose_no_task(live: LiveRelease) -> None:
    """Each replaces the miner's pod: it is asked to end, and the next one goes on with the same journal."""
    release = ("sn17", "-n", live.namespace)
    live.cluster.helm(
        "upgrade",
        "sn17",
        str(CHART),
        "-n",
        live.namespace,
        "--reset-then-reuse-values",
        "--set",
        "log.level=DEBUG",
    )
    live.pods["miner"][0].replace()
    live.cluster.helm("rollback", *release)
    live.pods["miner"][0].replace()
    before = len(read_tasks(live.journal))

    def unaccounted() -> tuple[str, ...]:
        url = f"http://{live.address('validators')}:8099/ledger"
        ledger = NetworkLedger.parse(own_request("GET", url).content, url)
        tasks = read_tasks(live.journal)
        # The newest are still under way; what came before the roll-back must have ended.
        known = {task.task_id for task in tasks[before:]}
        assigned = {k: v for k, v in assigned_tasks(ledger).items() if k not in known}
        return build(tasks, [], validators=[], assigned=assigned).unaccounted

    wait_for("tasks after the roll-back", lambda: len(read_tasks(live.journal)) >= before + 4, 90)
    wait_for("an end of every task", lambda: not unaccounted(), 90)


def test_alert_rules_load_and_none_is_critical(live: LiveRelease, chart: Any) -> None:
    """Every expression runs on real data; what does not leak on purpose raises no critical alarm."""
    import yaml

    text = chart.render("-f", str(CHART / "values-laptop.yaml"), namespace=live.namespace)
    rules = yaml.safe_load(text.one("ConfigMap", "sn17-prometheus")["data"]["rules.yml"])
    leaking = live.pods["trellis"][0].name
    for group in rules["groups"]:
        for rule in group["rules"]:
            found = [each for each in live.query(rule["expr"]) if each["metric"].get("pod") != leaking]
            assert not (found and rule["labels"]["severity"] == "critical"), rule["alert"]
