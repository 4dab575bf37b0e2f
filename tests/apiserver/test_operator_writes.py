"""What the operator writes, against the real API server: versions, identities, evictions, Events, status."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import kopf
import pytest
from kubernetes.aio import config
from kubernetes.aio.client.configuration import Configuration
from sn17_cluster.client import Cluster
from sn17_operator import handlers
from sn17_operator.adapters.kube import KubeApi
from sn17_operator.adapters.kube_cluster import KubeCluster
from sn17_operator.adapters.lease import Lease
from sn17_operator.adapters.store import Store
from sn17_operator.core.model import History, Intent, Pod, RuleClass, Stage
from sn17_operator.core.plan import Act, Reason, Step
from sn17_operator.ports import Announcement, Conflict, Disrupted, Miner, Refused
from sn17_operator.status.resource import Status

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

NOW = 1_700_000_000.0
LABELS = {"app.kubernetes.io/part-of": "sn17", "w": "x"}
STEP = Step("", "", Act.CORDON, Reason.WORKER_CORDONED, "why", None, History())


@pytest.fixture(scope="module")
def namespace(api_with_crd: Cluster) -> Iterator[str]:
    with api_with_crd.namespace("wr") as name:
        yield name


@pytest.fixture
async def kube(api_with_crd: Cluster) -> AsyncIterator[KubeApi]:
    configuration = Configuration()
    await config.load_kube_config(str(api_with_crd.kubeconfig), client_configuration=configuration)
    api = KubeApi(configuration)
    yield api
    await api.close()


@pytest.fixture
def host(kube: KubeApi, namespace: str) -> KubeCluster:
    selector = "app.kubernetes.io/part-of=sn17"
    return KubeCluster(
        kube, Store(), namespace, selector, identity="t", may_act=lambda: True, clock=lambda: NOW
    )


@pytest.fixture
async def fleet(host: KubeCluster, api_with_crd: Cluster, namespace: str) -> tuple[Miner, Pod]:
    """An SN17Miner and one pod of its Deployment, as the host sees them."""
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "trellis", "image": "x"}]}}
    api_with_crd.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "d"},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"w": "x"}}, "template": template},
        },
        {
            "apiVersion": "sn17.io/v1alpha1",
            "kind": "SN17Miner",
            "metadata": {"name": "m"},
            "spec": {"targetRef": {"name": "d"}},
        },
        namespace=namespace,
    )
    async with asyncio.timeout(30):
        while True:
            await host.relist()
            (miner,) = await host.miners()
            target = await host.target(miner, NOW)
            if target.pods:
                return miner, target.pods[0]
            await asyncio.sleep(0.1)


def intent(pod: Pod) -> Intent:
    return Intent(Stage.CORDON, "b", "c", "MemoryHigh", RuleClass.MEMORY, "full", NOW, NOW)


async def test_intent_is_written_to_the_pod_that_was_seen_and_read_back(
    host: KubeCluster, fleet: tuple[Miner, Pod]
) -> None:
    miner, pod = fleet
    written = await host.annotate(miner, pod, dataclasses.replace(STEP, intent=intent(pod)))
    assert written.intent == intent(pod)
    assert written.resource_version != pod.resource_version
    # Seen at once, before any watch tells of it.
    (again,) = (await host.target(miner, NOW)).pods
    assert again.intent == intent(pod)
    cleared = await host.annotate(miner, written, STEP)
    assert cleared.intent is None


async def test_pod_that_has_changed_since_is_not_written(
    host: KubeCluster, fleet: tuple[Miner, Pod], api_with_crd: Cluster, namespace: str
) -> None:
    miner, pod = fleet
    api_with_crd.kubectl("annotate", "pod", pod.name, "-n", namespace, "--overwrite", "x=y")
    with pytest.raises(Conflict):
        await host.annotate(miner, pod, dataclasses.replace(STEP, intent=intent(pod)))
    assert "sn17.io/intent" not in json.dumps(
        api_with_crd.get("pod", pod.name, namespace=namespace)["metadata"]
    )


async def test_another_pod_of_the_same_name_is_neither_written_nor_evicted(
    host: KubeCluster, fleet: tuple[Miner, Pod], api_with_crd: Cluster, namespace: str
) -> None:
    miner, pod = fleet
    other = dataclasses.replace(pod, uid="00000000-0000-0000-0000-000000000000")
    with pytest.raises(Conflict):
        await host.annotate(miner, other, dataclasses.replace(STEP, intent=intent(pod)))
    with pytest.raises(Conflict):
        await host.evict(miner, other)
    assert api_with_crd.get("pod", pod.name, namespace=namespace)["metadata"]["uid"] == pod.uid


async def test_eviction_is_held_by_a_budget_and_gone_pods_are_forgotten(
    host: KubeCluster, fleet: tuple[Miner, Pod], api_with_crd: Cluster, namespace: str
) -> None:
    miner, pod = fleet
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    api_with_crd.kubectl(
        "patch", "pod", pod.name, "-n", namespace, "--subresource=status", "--type=merge",
        "-p", json.dumps({"status": status}),
    )  # fmt: skip
    budget: dict[str, Any] = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"w": "x"}}},
    }
    api_with_crd.apply(budget, namespace=namespace)
    async with asyncio.timeout(30):
        while not api_with_crd.get("pdb", "b", namespace=namespace).get("status", {}).get("currentHealthy"):
            await asyncio.sleep(0.1)
    with pytest.raises(Disrupted, match="disruption budget"):
        await host.evict(miner, pod)
    # Two budgets over one pod: the server cannot decide, and that is no fault of ours.
    api_with_crd.apply({**budget, "metadata": {"name": "c"}}, namespace=namespace)
    with pytest.raises(Refused):
        await host.evict(miner, pod)
    api_with_crd.kubectl("delete", "pdb", "b", "c", "-n", namespace)
    async with asyncio.timeout(30):
        while True:
            try:
                await host.evict(miner, pod)
                break
            except Disrupted:
                await asyncio.sleep(0.2)
    with pytest.raises(Conflict):
        await host.annotate(miner, pod, dataclasses.replace(STEP, intent=intent(pod)))
    assert pod.uid not in {p.uid for p in (await host.target(miner, NOW)).pods}


async def test_events_are_on_the_resource_and_on_the_pod(
    host: KubeCluster, fleet: tuple[Miner, Pod], api_with_crd: Cluster, namespace: str
) -> None:
    miner, pod = fleet
    await host.announce(miner, pod, Announcement("WorkerCordoned", "why", warning=True))
    found = [e for e in api_with_crd.get("events", namespace=namespace) if e["reason"] == "WorkerCordoned"]
    kinds = {e["involvedObject"]["kind"] for e in found}
    assert kinds == {"SN17Miner", "Pod"}
    assert {e["type"] for e in found} == {"Warning"}


async def test_status_is_replaced_as_a_whole_and_a_part_leaves_the_rest(
    host: KubeCluster, fleet: tuple[Miner, Pod], api_with_crd: Cluster, namespace: str
) -> None:
    miner, _ = fleet
    full = Status.read({"status": "Healthy", "lastRecycleTime": "2026-01-01T00:00:00Z", "conditions": []})
    await host.write_status(miner, full)
    await host.write_status(miner, Status.read({"evictions": [{"uid": "u", "time": "2026-01-01T00:00:00Z"}]}))
    stored = api_with_crd.get("sn17miner", "m", namespace=namespace)["status"]
    assert stored["status"] == "Healthy"
    assert stored["evictions"][0]["uid"] == "u"
    (miner,) = await host.miners()
    await host.write_status(miner, Status.read({"status": "Paused", "conditions": [], "evictions": []}))
    stored = api_with_crd.get("sn17miner", "m", namespace=namespace)["status"]
    assert "lastRecycleTime" not in stored
    gone = dataclasses.replace(miner, name="none")
    with pytest.raises(Refused, match="status"):
        await host.write_status(gone, Status.read({"status": "Healthy", "conditions": []}))


async def test_api_calls_of_a_tick_do_not_grow_with_healthy_workers(
    host: KubeCluster, kube: KubeApi, fleet: tuple[Miner, Pod]
) -> None:
    miner, _ = fleet
    before = kube.calls
    await host.miners()
    await host.target(miner, NOW)
    assert kube.calls - before == 1


async def test_lease_passes_from_hand_to_hand(kube: KubeApi, namespace: str) -> None:
    moment = [0.0]

    def lease(identity: str) -> Lease:
        return Lease(
            kube,
            namespace,
            "l",
            identity,
            clock=lambda: NOW + moment[0],
            monotonic=lambda: moment[0],
            retry=0.05,
        )

    first, second = lease("a"), lease("b")
    await first.acquire()
    assert not await second._try()
    moment[0] = 20.0
    assert not first.held
    assert await second._try()
    assert not await first._try()
    await second.release()
    assert await first._try()


async def test_watches_fill_the_store_and_leave_nothing_on_the_objects(
    api_with_crd: Cluster, namespace: str, fleet: tuple[Miner, Pod]
) -> None:
    """kopf as it is configured: no finalizer, no annotation of its own, deletions are seen."""
    _, pod = fleet
    store, woken = Store(), asyncio.Event()
    settings = kopf.OperatorSettings()
    handlers.configure(settings, "app.kubernetes.io/part-of=sn17")

    def login(**kwargs: Any) -> Any:
        return kopf.login_with_kubeconfig(**kwargs)

    registry = handlers.build_registry(store, woken.set, login)
    stop = asyncio.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(api_with_crd.kubeconfig))
        running = asyncio.create_task(
            kopf.operator(
                registry=registry, settings=settings, namespaces=[namespace], standalone=True, stop_flag=stop
            )
        )
        try:
            async with asyncio.timeout(30):
                while not (store.miners and pod.uid in store.pods):
                    woken.clear()
                    await woken.wait()
                await asyncio.to_thread(
                    api_with_crd.kubectl, "delete", "pod", pod.name, "-n", namespace, "--force"
                )
                while pod.uid in store.pods:
                    woken.clear()
                    await woken.wait()
        finally:
            stop.set()
            await asyncio.wait_for(running, 15)
    meta = api_with_crd.get("sn17miner", "m", namespace=namespace)["metadata"]
    assert "finalizers" not in meta
    assert not [key for key in meta.get("annotations", {}) if "kopf" in key or "handled" in key]
