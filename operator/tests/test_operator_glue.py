"""kopf as it is wired here, against a mock API server: lists, watches, 410, what the server is asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import kopf
import pytest
from kmock import KubernetesEmulator
from sn17_operator import handlers
from sn17_operator.adapters.store import Store

SELECTOR = "app.kubernetes.io/part-of=sn17"
VERBS = ["get", "list", "watch", "patch", "create", "delete"]
RESOURCES = {
    "v1/namespaces": ("Namespace", False),
    "v1/pods": ("Pod", True),
    "sn17.io/v1alpha1/sn17miners": ("SN17Miner", True),
}


class Glue:
    """kopf with our registry, and what it has filled in."""

    def __init__(self, server: KubernetesEmulator) -> None:
        self.server = server
        self.store = Store()
        self._changed = asyncio.Event()

    def wake(self) -> None:
        self._changed.set()

    async def until(self, seen: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not seen():
                self._changed.clear()
                await self._changed.wait()

    async def create(self, body: dict[str, Any]) -> None:
        async with aiohttp.ClientSession(base_url=str(self.server.url)) as session:
            (await session.post("/api/v1/namespaces/ns/pods", json=body)).raise_for_status()

    async def delete(self, name: str) -> None:
        async with aiohttp.ClientSession(base_url=str(self.server.url)) as session:
            (await session.delete(f"/api/v1/namespaces/ns/pods/{name}")).raise_for_status()

    def asked(self, word: str) -> list[Any]:
        return [request for request in list(self.server) if word in str(request.url)]


def pod(name: str, version: int, **meta: Any) -> dict[str, Any]:
    identity = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": str(version)}
    labels = {"app.kubernetes.io/part-of": "sn17"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {**identity, "labels": labels, **meta}}


@pytest.fixture
def server(kmock: KubernetesEmulator) -> KubernetesEmulator:
    for key, (kind, namespaced) in RESOURCES.items():
        kmock.resources[key] = {
            "namespaced": namespaced,
            "kind": kind,
            "singular": kind.lower(),
            "verbs": set(VERBS),
            "shortnames": set(),
            "categories": set(),
            "subresources": set(),
        }
    kmock.objects["v1/pods", "ns", "w1"] = pod("w1", 1)
    kmock.objects["sn17.io/v1alpha1/sn17miners", "ns", "m"] = {
        "metadata": {"name": "m", "namespace": "ns", "uid": "uid-m", "resourceVersion": "1"},
        "spec": {"targetRef": {"name": "workers"}},
    }
    return kmock


@contextlib.asynccontextmanager
async def running(server: KubernetesEmulator) -> AsyncIterator[Glue]:
    glue = Glue(server)
    settings = kopf.OperatorSettings()
    handlers.configure(settings, SELECTOR)

    def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=str(server.url))

    registry = handlers.build_registry(glue.store, glue.wake, login)
    stop = asyncio.Event()
    task = asyncio.create_task(
        kopf.operator(
            registry=registry, settings=settings, namespaces=["ns"], standalone=True, stop_flag=stop
        )
    )
    try:
        yield glue
    finally:
        stop.set()
        await asyncio.wait_for(task, 15)


async def test_lists_and_watches_fill_the_store(server: KubernetesEmulator) -> None:
    async with running(server) as glue:
        await glue.until(lambda: glue.store.pods and glue.store.miners)
        await glue.create(pod("w2", 2))
        await glue.until(lambda: "uid-w2" in glue.store.pods)
        await glue.delete("w1")
        await glue.until(lambda: "uid-w1" not in glue.store.pods)
        lists = [r for r in glue.asked("/pods") if "GET" in str(r.method).upper()]
        assert lists
        assert all(request.params.get("labelSelector") == SELECTOR for request in lists)


async def test_nothing_is_ever_written_by_the_glue(server: KubernetesEmulator) -> None:
    """No finalizer, no progress, no peering: kopf only reads."""
    async with running(server) as glue:
        await glue.until(lambda: glue.store.pods and glue.store.miners)
        await glue.create(pod("w2", 2))
        await glue.until(lambda: "uid-w2" in glue.store.pods)
        methods = [str(request.method).upper().rsplit(".", 1)[-1] for request in list(server)]
        assert methods.count("POST") == 1, "the test's own"
        assert set(methods) == {"GET", "POST"}


async def test_pods_are_kept_without_what_no_one_reads(server: KubernetesEmulator) -> None:
    big = pod(
        "w2", 2, managedFields=[{"fieldsV1": {"f:x": {}}}], annotations={"other": "x", "sn17.io/intent": "{}"}
    )
    server.objects["v1/pods", "ns", "w2"] = big
    async with running(server) as glue:
        await glue.until(lambda: "uid-w2" in glue.store.pods)
        meta = glue.store.pods["uid-w2"]["metadata"]
        assert "managedFields" not in meta
        assert meta["annotations"] == {"sn17.io/intent": "{}"}


async def test_watch_that_is_gone_is_listed_anew(server: KubernetesEmulator) -> None:
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}
    server["get /api/v1/namespaces/ns/pods", {"watch": "true"}] ** 1 << gone
    async with running(server) as glue:
        await glue.until(lambda: glue.store.pods and glue.store.miners)
        await glue.create(pod("w2", 2))
        await glue.until(lambda: "uid-w2" in glue.store.pods)
        lists = [r for r in glue.asked("/pods") if "GET" in str(r.method).upper() and "watch" not in r.params]
        assert len(lists) >= 2


def test_settings_are_those_that_were_chosen() -> None:
    settings = kopf.OperatorSettings()
    handlers.configure(settings, SELECTOR)
    assert settings.persistence.finalizer == "sn17.io/finalizer"
    assert settings.networking.request_timeout == 30
    assert settings.watching.inactivity_timeout == 70
    assert settings.scanning.disabled
    assert not settings.posting.enabled
    assert settings.queueing.worker_limit is None


def test_no_finalizer_timer_or_daemon_is_registered() -> None:
    registry = handlers.build_registry(Store(), lambda: None)
    assert not list(registry._spawning.get_all_handlers())
    assert not list(registry._changing.get_all_handlers())
