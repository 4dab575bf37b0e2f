"""What the checks of a cluster need to know, from its API server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import email.utils
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from kubernetes.aio import config
from sn17_contract.kubernetes import GROUP, LABEL_INSTANCE, LABEL_PART_OF, PART_OF, PLURAL
from sn17_operator.adapters.kube import ApiError, KubeApi
from sn17_operator.crd import crd
from sn17_protocol.wallet import WalletError, load_hotkey

from sn17.doctor.model import ProbeError
from sn17.doctor.release.access import (
    Definition,
    Right,
    Rights,
    needed_by_operator,
    needed_by_people,
)
from sn17.doctor.release.images import Image
from sn17.doctor.release.objects import (
    ReleaseObjects,
    models_missing,
    ready,
    scraped_workers,
    unscheduled,
)
from sn17.doctor.release.policies import Policies
from sn17.doctor.release.prometheus import PrometheusReader, ServiceProxy, Targets
from sn17.doctor.release.registry import Registry, logins_of
from sn17.doctor.release.scraping import Scraping
from sn17.doctor.release.state import HotkeySecret, Workers
from sn17.doctor.release.ways import needed_ways

T = TypeVar("T")
ASKED_AT_ONCE: Final = 8
NAMESPACED: Final = "/api/v1/namespaces"
AUTHORIZATION: Final = "/apis/authorization.k8s.io/v1"
DEFINITION: Final = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{PLURAL}.{GROUP}"

Connect = Callable[[], Awaitable[KubeApi]]


class Cluster(Protocol):
    """A cluster, and of it a namespace. Every method may raise ProbeError."""

    def rights(self, release: str | None) -> Rights: ...

    def definition(self) -> Definition: ...

    def clock_offset(self) -> float | None: ...

    def images(self, release: str, registry: Registry) -> list[Image]: ...

    def workers(self, release: str) -> Workers: ...

    def secret(self, release: str) -> HotkeySecret | None: ...

    def scraping(self, release: str, prometheus: PrometheusReader | None) -> Scraping: ...

    def policies(self, release: str) -> Policies: ...


class KubeCluster:
    """The real one; a connection for each question, since checks run side by side."""

    def __init__(self, connect: Connect, namespace: str, *, now: Callable[[], float] = time.time) -> None:
        self._connect = connect
        self._namespace = namespace
        self._now = now

    def rights(self, release: str | None) -> Rights:
        async def work(api: KubeApi) -> Rights:
            version = await api.request("GET", "/version")
            user = await self._user(api)
            objects = await self._objects(api, release) if release is not None else None
            wanted = needed_by_people(objects.secret("miner", "admin-token") if objects else None)
            lacks = await self._lacks(api, wanted, None)
            template = objects.template("operator") if objects else None
            operator = None
            told: tuple[Right, ...] | None = ()
            if objects and template is not None:
                account = str(template["serviceAccountName"])
                operator = f"system:serviceaccount:{self._namespace}:{account}"
                lease = objects.environment("operator").get("SN17_LEASE__NAME", account)
                try:
                    told = await self._lacks(api, needed_by_operator(lease), operator)
                except ApiError as error:
                    if error.status != 403:
                        raise
                    told = None
            return Rights(
                api.server, str(version["gitVersion"]), user, self._namespace, lacks, operator, told
            )

        return self._ask(work)

    def definition(self) -> Definition:
        async def work(api: KubeApi) -> Definition:
            return Definition(await _or_none(api.request("GET", DEFINITION)), crd())

        return self._ask(work)

    def clock_offset(self) -> float | None:
        """Seconds that this clock is before the API server's; its header counts whole seconds."""

        async def work(api: KubeApi) -> float | None:
            await api.request("GET", "/version")
            if not api.date:
                return None
            theirs = email.utils.parsedate_to_datetime(api.date).timestamp()
            mine = self._now()
            return 0.0 if theirs <= mine <= theirs + 1 else mine - theirs

        return self._ask(work)

    def images(self, release: str, registry: Registry) -> list[Image]:
        async def work(api: KubeApi) -> tuple[ReleaseObjects, dict[str, tuple[str, str]]]:
            objects = await self._objects(api, release)
            logins: dict[str, tuple[str, str]] = {}
            for name in objects.pull_secrets():
                with contextlib.suppress(ApiError):
                    secret = await api.request("GET", f"{NAMESPACED}/{self._namespace}/secrets/{name}")
                    logins |= logins_of(base64.b64decode(secret["data"].get(".dockerconfigjson", "")))
            return objects, logins

        objects, logins = self._ask(work)
        seen = objects.seen_by_nodes()
        with ThreadPoolExecutor(ASKED_AT_ONCE) as asking:
            return list(
                asking.map(lambda each: seen.get(each) or registry.ask(each, logins), objects.images())
            )

    def workers(self, release: str) -> Workers:
        async def work(api: KubeApi) -> Workers:
            pods = (await self._objects(api, release)).workers()
            return Workers(
                release,
                self._namespace,
                len(pods),
                sum(ready(pod) for pod in pods),
                unscheduled(pods),
                models_missing(pods),
            )

        return self._ask(work)

    def secret(self, release: str) -> HotkeySecret | None:
        async def work(api: KubeApi) -> HotkeySecret | None:
            template = (await self._objects(api, release)).template("miner")
            if template is None:
                return None
            mounted = next(each["secret"] for each in template["volumes"] if each["name"] == "hotkey")
            name, key = mounted["secretName"], mounted["items"][0]["key"]
            found = await _or_none(api.request("GET", f"{NAMESPACED}/{self._namespace}/secrets/{name}"))
            content = (found or {}).get("data", {}).get(key)
            if content is None:
                return HotkeySecret(self._namespace, name, key, there=False)
            address, problem = _address(base64.b64decode(content), f"key {key}")
            return HotkeySecret(self._namespace, name, key, True, address, problem)

        return self._ask(work)

    def scraping(self, release: str, prometheus: PrometheusReader | None) -> Scraping:
        async def work(api: KubeApi) -> tuple[ReleaseObjects, Targets | None, str]:
            objects = await self._objects(api, release)
            url = objects.environment("operator").get("SN17_PROMETHEUS__URL", "")
            if prometheus is not None:
                return objects, None, ""
            if not url:
                raise ProbeError(
                    "the release has no operator that names a Prometheus", "name one with --prometheus URL"
                )
            return objects, await ServiceProxy(api, url, self._namespace).targets(), url

        objects, targets, url = self._ask(work)
        if prometheus is not None:
            targets, url = prometheus.targets(), prometheus.url
        return Scraping(url, release, self._namespace, scraped_workers(objects.workers()), targets or ())

    def policies(self, release: str) -> Policies:
        async def work(api: KubeApi) -> Policies:
            objects = await self._objects(api, release)
            listed = await api.request(
                "GET", f"/apis/networking.k8s.io/v1/namespaces/{self._namespace}/networkpolicies"
            )
            page = "SN17_MINER_URL" in objects.environment("gateway")
            servers = await self._servers(api)
            ways = tuple(needed_ways(objects.components(), self._namespace, servers, page=page))
            return Policies(release, self._namespace, listed.get("items") or (), ways)

        return self._ask(work)

    async def _objects(self, api: KubeApi, release: str) -> ReleaseObjects:
        query = {"labelSelector": f"{LABEL_PART_OF}={PART_OF},{LABEL_INSTANCE}={release}"}
        apps = f"/apis/apps/v1/namespaces/{self._namespace}"
        workloads: list[Any] = []
        for kind in ("deployments", "statefulsets"):
            workloads += (await api.request("GET", f"{apps}/{kind}", query=query)).get("items") or ()
        if not workloads:
            raise ProbeError(
                f"there is no release {release} in namespace {self._namespace}",
                "name it with --release and --namespace",
                "helm list -A",
            )
        pods = await api.request("GET", f"{NAMESPACED}/{self._namespace}/pods", query=query)
        return ReleaseObjects(workloads, pods.get("items") or ())

    async def _servers(self, api: KubeApi) -> list[tuple[str, int]]:
        """Addresses and ports of the API server: behind its Service, or the Service where it hides them."""
        endpoints = await _or_none(api.request("GET", f"{NAMESPACED}/default/endpoints/kubernetes"))
        found = [
            (str(address["ip"]), int(port["port"]))
            for subset in (endpoints or {}).get("subsets") or ()
            for address in subset.get("addresses") or ()
            for port in subset.get("ports") or ()
        ]
        if found:
            return found
        service = await api.request("GET", f"{NAMESPACED}/default/services/kubernetes")
        spec = service["spec"]
        return [(str(spec["clusterIP"]), int(port["port"])) for port in spec["ports"]]

    async def _user(self, api: KubeApi) -> str:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        found = await api.request("POST", path, body=body)
        return str(found["status"]["userInfo"]["username"])

    async def _lacks(self, api: KubeApi, rights: Sequence[Right], user: str | None) -> tuple[Right, ...]:
        kind = "SelfSubjectAccessReview" if user is None else "LocalSubjectAccessReview"
        place = AUTHORIZATION if user is None else f"{AUTHORIZATION}/namespaces/{self._namespace}"
        answers = []
        for right in rights:
            name, _, sub = right.resource.partition("/")
            wanted = {
                "namespace": self._namespace,
                "verb": right.verb,
                "group": right.group,
                "resource": name,
            }
            wanted |= {key: text for key, text in (("subresource", sub), ("name", right.name)) if text}
            spec: dict[str, Any] = {"resourceAttributes": wanted}
            if user is not None:
                spec |= {"user": user, "groups": _groups(user)}
            body = {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": kind,
                "metadata": {} if user is None else {"namespace": self._namespace},
                "spec": spec,
            }
            found = await api.request("POST", f"{place}/{kind.lower()}s", body=body)
            answers.append(bool(found["status"]["allowed"]))
        return tuple(right for right, allowed in zip(rights, answers, strict=True) if not allowed)

    def _ask(self, work: Callable[[KubeApi], Awaitable[T]]) -> T:
        async def asked() -> T:
            async with self._open() as api:
                return await work(api)

        try:
            return asyncio.run(asked())
        except ApiError as error:
            raise _unknown(error) from error
        except config.ConfigException as error:
            said = " ".join(str(error).split())
            raise ProbeError(f"no cluster: {said}", "set KUBECONFIG, or give --kubeconfig") from error

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[KubeApi]:
        api = await self._connect()
        try:
            yield api
        finally:
            await api.close()


def _unknown(error: ApiError) -> ProbeError:
    if error.status == 0:
        return ProbeError(
            f"the API server does not answer: {error}",
            "is the cluster up, and the context the right one?",
            "kubectl cluster-info",
        )
    if error.status in (401, 403):
        return ProbeError(f"not allowed to find out: {error}", "ask with an administrator's kubeconfig")
    return ProbeError(f"the API server refuses: {error}")


async def _or_none(asked: Awaitable[dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return await asked
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def _groups(user: str) -> list[str]:
    namespace = user.split(":")[2]
    return ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]


def _address(content: bytes, what: str) -> tuple[str, str]:
    """Address and problem of a hotkey that is no file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hotkey"
        path.touch(0o600)
        path.write_bytes(content)
        try:
            return load_hotkey(path).ss58_address, ""
        except WalletError as error:
            return "", str(error).replace(str(path), what)
