"""A hundred workers on a real API server; `sn17_bench.operator_scale` has a thousand, and figures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from sn17_chaos.many_workers import Crowd, IntentWatch
from sn17_chaos.operator_process import OperatorProcess, running
from sn17_chaos.real_fleet import Prometheus
from sn17_chaos.waiting import free_port, wait_for
from sn17_cluster.client import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

WORKERS = 100
SICK = 60
BUDGET = 25
SCRAPE_SECONDS = 2.0
QUICK = {
    "maxUnavailable": f"{BUDGET}%",
    "rules": {"memory": {"highForSeconds": 2, "clearForSeconds": 2}},
    "drain": {"timeoutSeconds": 10, "leaseSeconds": 30},
    "recycle": {"exitTimeoutSeconds": 10, "cooldownSeconds": 0, "youngSeconds": 0},
}


@pytest.fixture(scope="module")
def crowd(api_with_crd: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    folder = tmp_path_factory.mktemp("prometheus")
    prometheus = Prometheus(
        api_with_crd.tools["prometheus"], folder, free_port(), scrape_seconds=SCRAPE_SECONDS
    )
    prometheus.scrape([])
    prometheus.start()
    try:
        with api_with_crd.namespace("many") as namespace:
            made = Crowd(api_with_crd, namespace, prometheus, free_port(), 50)
            try:
                made.deploy(WORKERS)
                made.miner(**QUICK)
                yield made
            finally:
                made.close()
    finally:
        prometheus.stop()


@pytest.fixture(scope="module")
def operator(crowd: Crowd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    times = {
        "SN17_TICK_SECONDS": "2",
        "SN17_PROMETHEUS__SCRAPE_INTERVAL_SECONDS": str(SCRAPE_SECONDS),
        "SN17_PROMETHEUS__TIMEOUT_SECONDS": "8",
        "SN17_LEASE__DURATION_SECONDS": "15",
        "SN17_LEASE__DEADLINE_SECONDS": "10",
    }
    with running(OperatorProcess(crowd, tmp_path_factory.mktemp("operator"), **times)) as process:
        crowd.wait_status("Healthy", 60)
        yield process


def test_sixty_percent_that_lose_gaussians_stop_it_and_it_says_so(
    crowd: Crowd, operator: OperatorProcess
) -> None:
    watch = IntentWatch(crowd)
    sick = list(crowd.workers)[:SICK]
    for name in sick:
        crowd.workers[name].gaussians = 50_000.0
    crowd.wait_status("TooManyUnhealthy", 60)
    operator.wait_ticks(5)
    condition = crowd.condition("RemediationAllowed")
    assert (condition["status"], condition["reason"]) == ("False", "TooManyUnhealthy")
    assert crowd.events().count("TooManyUnhealthy") == 1
    for name in sick:
        crowd.workers[name].gaussians = 350_000.0
    crowd.wait_status("Healthy", 60)
    # Scrapes come one after another: the first few may be cordoned before the others are seen, and go back
    # into service as soon as they are. Nobody is restarted.
    wait_for("the end of all cordons", lambda: watch.held() == 0)
    watch.stop()
    assert watch.most() <= BUDGET
    assert {each.intent["action"] for each in watch.seen if each.intent} <= {"Cordon", "Canary"}
    assert all(worker.count("exit") == 0 and not worker.leases for worker in crowd.workers.values())


def test_sixty_percent_that_fill_their_memory_go_fullest_first_within_the_budget(
    crowd: Crowd, operator: OperatorProcess
) -> None:
    watch = IntentWatch(crowd)
    sick = list(crowd.workers)[:SICK]
    level = {name: 0.81 + 0.08 * ((7 * index) % SICK) / SICK for index, name in enumerate(sick)}
    for name, ratio in level.items():
        crowd.workers[name].ratio = ratio

    def done() -> bool:
        return {each.pod for each in watch.begun()} >= set(sick) and watch.held() == 0

    wait_for("a remediation of each", done, 240)
    watch.stop()
    begun = watch.begun()
    assert sorted(each.pod for each in begun) == sorted(sick)
    assert watch.most() <= BUDGET
    # Those of one tick carry one time; each tick takes none that is fuller than an earlier tick's.
    ticks: dict[str, list[float]] = {}
    for each in begun:
        assert each.intent is not None
        ticks.setdefault(str(each.intent["at"]), []).append(round(level[each.pod], 2))
    in_order = [levels for _, levels in sorted(ticks.items())]
    # All cross the mark within one scrape, which two ticks may share.
    assert all(min(earlier) >= max(later) for earlier, later in itertools.pairwise(in_order[2:]))
    assert all(crowd.workers[name].count("exit") == 1 for name in sick)
