"""The API server as it behaves on a bad day: it throttles, cuts watches, forgets versions; and the operator
is killed between any two of its effects. Nothing is lost, nothing is doubled.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from urllib.request import urlopen

import pytest
from sn17_chaos.api_proxy import ApiProxy, Gate
from sn17_chaos.operator_process import OperatorProcess, running
from sn17_chaos.real_fleet import Fleet
from sn17_chaos.waiting import wait_for
from sn17_cluster.controlplane import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

FAST = {
    "rules": {"memory": {"highForSeconds": 2, "clearForSeconds": 2}},
    "drain": {"timeoutSeconds": 10, "leaseSeconds": 30},
    "recycle": {"exitTimeoutSeconds": 10, "cooldownSeconds": 0, "youngSeconds": 0},
}


def metric(operator: OperatorProcess, name: str) -> float:
    lines = urlopen(f"{operator.url}/metrics").read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


# --- throttling ---------------------------------------------------------------------------------------


@pytest.fixture
def proxy(fleet: Fleet) -> Iterator[ApiProxy]:
    with ApiProxy(fleet.cluster.kubeconfig).running() as made:
        yield made


def no_leases(method: str, path: str) -> bool:
    return "/leases" not in path


CALLS: dict[str, Callable[[str, str], bool]] = {
    "reading the Deployment": lambda method, path: "/deployments/" in path,
    "writing intents": lambda method, path: method == "PATCH" and "/pods/" in path,
    "writing status": lambda method, path: path.endswith("/status"),
    "everything but the Lease": no_leases,
}


@pytest.mark.parametrize("calls", CALLS)
def test_throttled_operator_waits_says_so_and_doubles_nothing(
    fleet: Fleet, proxy: ApiProxy, tmp_path: Path, calls: str
) -> None:
    fleet.deploy(1)
    fleet.miner(**FAST)
    (worker,) = fleet.workers.values()
    with running(OperatorProcess(fleet, tmp_path, server=proxy.url)) as operator:
        fleet.wait_status("Healthy", 60)
        proxy.throttles = CALLS[calls]
        worker.ratio = 0.95
        wait_for("throttling", lambda: len(proxy.throttled) >= 4, 60)
        assert metric(operator, 'sn17_api_errors_total{reason="throttled"}') >= 3
        assert "throttled by the API server" in operator.log.read_text()
        assert urlopen(f"{operator.url}/health").status == 200
        if calls != "writing status":
            # What is not written down is not done.
            assert worker.calls == []
            assert "WorkerCordoned" not in fleet.events()
        if calls == "reading the Deployment":  # one caller, so its waits are seen from outside
            gaps = [after - before for before, after in pairwise(proxy.throttled)]
            assert min(gaps) >= 0.9, "Retry-After is kept"
        proxy.throttles = lambda method, path: False
        wait_for("the recycle", lambda: fleet.status().get("recycles") == 1, 60)
        fleet.wait_status("Healthy", 60)
        assert worker.count("exit") == 1
        told = Counter(fleet.events())
        # One on the SN17Miner, one on the pod.
        assert {told[reason] for reason in ("WorkerCordoned", "RecycleRequested", "WorkerRecycled")} == {2}
        assert operator.process is not None
        assert operator.process.poll() is None


# --- watches ------------------------------------------------------------------------------------------


def test_watches_that_are_cut_are_taken_up_again(fleet: Fleet, proxy: ApiProxy, tmp_path: Path) -> None:
    fleet.deploy(2)
    fleet.miner(**FAST)
    name, worker = next(iter(fleet.workers.items()))

    def cordoned(reason: str) -> bool:
        return worker.leases.get("user", "").endswith(reason)

    with running(OperatorProcess(fleet, tmp_path, server=proxy.url)) as operator:
        fleet.wait_status("Healthy", 60)
        for turn in range(1, 4):
            wait_for("watches of pods and SN17Miners", lambda: proxy.watching >= 2)
            proxy.cut_watches()
            fleet.annotate("pod", name, f"sn17.io/cordon=turn {turn}")
            # The full list comes every 20th tick only.
            wait_for("the lease", partial(cordoned, f"turn {turn}"), 15)
            fleet.annotate("pod", name, 'sn17.io/cordon={"by":"user","lift":true}')
            wait_for("the end", lambda: "user" not in worker.leases, 15)
        assert operator.process is not None
        assert operator.process.poll() is None


# --- the operator's own end ---------------------------------------------------------------------------

LONG = bool(os.environ.get("SN17_LONG"))
EVERY = [(point, before) for point in range(18) for before in (False, True)]
POINTS = EVERY if LONG else [(1, False), (5, True), (10, False)]
"""After how many effects, and whether before or after the next one; SN17_LONG=1 tries them all."""


@pytest.mark.timeout(120 + 90 * len(POINTS))
def test_operator_killed_between_any_two_effects_goes_on(
    fleet: Fleet, proxy: ApiProxy, tmp_path: Path
) -> None:
    """Killed (SIGKILL) at an effect on API server or worker, before it happened or before it was heard of."""
    fleet.deploy(1)
    fleet.miner(**FAST)
    ((name, worker),) = fleet.workers.items()
    operator = OperatorProcess(fleet, tmp_path, server=proxy.url, SN17_TICK_SECONDS="0.5")
    gate = proxy.gate = worker.gate = Gate(operator.kill)

    def recycled(times: int) -> bool:
        if operator.process is not None and operator.process.poll() is not None:
            operator.start()  # as kubelet would: it had lost its Lease on a busy machine
        return bool(fleet.status().get("recycles") == times)

    reached = set()
    with running(operator):
        fleet.wait_status("Healthy", 60)
        for number, (point, before) in enumerate(POINTS, 1):
            boot = worker.boot_id
            gate.arm(point, before=before)
            worker.ratio = 0.95
            over = partial(recycled, number)
            wait_for(f"the end at effect {point}", lambda: gate.killed.is_set() or over(), 60)  # noqa: B023
            gate.disarm()
            if gate.killed.is_set():
                reached.add(point)
                gate.killed.clear()
                operator.start()
            wait_for(f"recycle {number}", over, 60)
            fleet.wait_status("Healthy", 60)
            assert worker.boot_id != boot
            assert fleet.restarts(name) == number, f"restarted once at effect {point}, before={before}"
            assert "sn17.io/intent" not in fleet.annotations(name)
            assert worker.leases == {}
        assert fleet.status().get("evicted", 0) == 0
    assert len(reached) >= len({point for point, _ in POINTS}) - (3 if LONG else 0)


def test_versions_that_the_server_has_forgotten(
    fleet: Fleet, proxy: ApiProxy, tmp_path: Path, control_plane: ControlPlane
) -> None:
    """After its restart the server answers a watch from before with 410: everything is listed anew."""
    fleet.deploy(2)
    fleet.miner(**FAST)
    (name, worker), (gone, _) = fleet.workers.items()
    with running(OperatorProcess(fleet, tmp_path, server=proxy.url, SN17_LEASE__DURATION_SECONDS="60",
                                 SN17_LEASE__DEADLINE_SECONDS="50")) as operator:  # fmt: skip
        fleet.wait_status("Healthy", 60)
        wait_for("watches", lambda: proxy.watching >= 2)
        control_plane.supervisor.restart("kube-apiserver", kill=True)
        control_plane.wait_ready()
        proxy.cut_watches()
        wait_for("410", lambda: proxy.forgotten > 0, 60)
        fleet.annotate("pod", name, "sn17.io/cordon=after")
        wait_for("the lease", lambda: "user" in worker.leases, 30)
        fleet.cluster.kubectl("delete", "pod", gone, "-n", fleet.namespace, "--force", "--grace-period=0")
        wait_for("its end", lambda: fleet.entry(gone) == {} and len(fleet.pods()) == 2, 30)
        assert operator.process is not None
        assert operator.process.poll() is None
