"""The few calls to the API server that steering needs. The operator does the work; these only write a
person's wish.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from kubernetes.aio.config import ConfigException
from pydantic import ValidationError
from sn17_contract.explain import Explanation
from sn17_contract.http import OPS_PORT
from sn17_contract.kubernetes import (
    ANNOTATION_CORDON,
    ANNOTATION_PAUSED,
    ANNOTATION_RECYCLE_REQUESTED,
    GROUP,
    LABEL_COMPONENT,
    LABEL_INSTANCE,
    LABEL_PART_OF,
    PART_OF,
    PLURAL,
    VERSION,
)
from sn17_operator.adapters.kube import MERGE_PATCH, ApiError, KubeApi

from sn17.cluster.access import Access, ClusterError

WORKER = "trellis"
"""Component of a worker's pod, as the chart labels it."""
CORDONED = "Cordoned"
"""State of a worker in the operator's status."""


_NOT_FOUND = 404


class SteeringError(Exception):
    """A wish that cannot be fulfilled; the message says why and what to do."""


class Steering:
    """One namespace of one cluster."""

    def __init__(
        self, api: KubeApi, namespace: str, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self.namespace = namespace
        self._monotonic = monotonic

    @classmethod
    @asynccontextmanager
    async def connect(cls, access: Access) -> AsyncIterator[Steering]:
        """A connection to the API server.

        Raises:
            ClusterError: nothing says where it is.
        """
        namespace = access.chosen_namespace()
        files = None if access.in_cluster() else access.files()
        try:
            api = await KubeApi.connect(kubeconfig=files, context=access.context)
        except (ConfigException, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            said = str(error).rstrip(".")
            raise ClusterError(
                f"no cluster: {files or 'the service account'} cannot be used: {said}"
            ) from error
        try:
            yield cls(api, namespace)
        finally:
            await api.close()

    async def cordon(self, pod: str, reason: str) -> None:
        """Ask for it.

        Raises:
            SteeringError: the pod is not a worker of a release.
        """
        await self._worker(pod)
        await self._annotate_pod(pod, {ANNOTATION_CORDON: json.dumps({"by": "user", "reason": reason})})

    async def uncordon(self, pod: str) -> bool:
        """False when the pod was not cordoned by a person."""
        annotations = (await self._pod(pod))["metadata"].get("annotations") or {}
        if ANNOTATION_CORDON not in annotations:
            return False
        await self._annotate_pod(pod, {ANNOTATION_CORDON: json.dumps({"by": "user", "lift": True})})
        return True

    async def recycle(self, pod: str, reason: str) -> None:
        """Ask for it.

        Raises:
            SteeringError: the pod is not a worker of a release.
        """
        await self._worker(pod)
        await self._annotate_pod(pod, {ANNOTATION_RECYCLE_REQUESTED: json.dumps({"reason": reason})})

    async def pause(self, miner: str | None, reason: str | None, release: str | None = None) -> str:
        """Pause with a reason, go on with None; returns the name of the SN17Miner."""
        name = miner or await self._only_miner(release)
        await self._patch(self._miners(name), {ANNOTATION_PAUSED: reason})
        return name

    async def until(self, seen: Callable[[], Any], seconds: float) -> bool:
        """Ask again and again until the answer is true; False when the time is over."""
        end = self._monotonic() + seconds
        while not await seen():
            if self._monotonic() >= end:
                return False
            await asyncio.sleep(1)
        return True

    async def is_asserted(self, pod: str) -> bool:
        """The operator notes the worker as cordoned in an SN17Miner's status, and its pod is not ready.

        A pod that is not ready proves nothing by itself: it may be starting, or broken.
        """
        conditions = (await self._pod(pod)).get("status", {}).get("conditions") or ()
        if not any(c["type"] == "Ready" and c["status"] == "False" for c in conditions):
            return False
        miners = (await self._call("GET", self._miners())).get("items") or ()
        entries = [e for miner in miners for e in (miner.get("status") or {}).get("workers") or ()]
        return any(e.get("name") == pod and e.get("state") == CORDONED for e in entries)

    async def is_lifted(self, pod: str) -> bool:
        return ANNOTATION_CORDON not in ((await self._pod(pod))["metadata"].get("annotations") or {})

    async def containers(self, pod: str) -> tuple[str, ...]:
        """Identities of the pod's containers; empty once the pod is gone."""
        try:
            raw = await self._pod(pod)
        except SteeringError:
            return ()
        statuses = raw.get("status", {}).get("containerStatuses") or ()
        return tuple(sorted(str(status.get("containerID")) for status in statuses))

    async def explain(self, pod: str) -> Explanation:
        """What the operator thinks of a worker, asked through the API server's proxy."""
        operators = await self._call(
            "GET",
            f"/api/v1/namespaces/{self.namespace}/pods",
            query={"labelSelector": f"{LABEL_PART_OF}={PART_OF},{LABEL_COMPONENT}=operator"},
        )
        told = "there is no operator in this namespace"
        for item in operators.get("items") or ():
            name = item["metadata"]["name"]
            try:
                path = f"/api/v1/namespaces/{self.namespace}/pods/{name}:{OPS_PORT}/proxy/v1/explain/{pod}"
                return Explanation.model_validate(await self._api.request("GET", path))
            except ApiError as error:
                told = str(error)
            except ValidationError:
                told = f"the answer of {name} is not of this form: is it of this release?"
        raise SteeringError(f"no explanation of {pod}: {told}")

    async def spec(self, miner: str | None, release: str | None = None) -> Mapping[str, Any]:
        """The spec of an SN17Miner, for a replay with its settings."""
        raw = await self._call("GET", self._miners(miner or await self._only_miner(release)))
        spec: Mapping[str, Any] = raw.get("spec") or {}
        return spec

    async def _only_miner(self, release: str | None) -> str:
        query = {} if release is None else {"labelSelector": f"{LABEL_INSTANCE}={release}"}
        items = (await self._call("GET", self._miners(), query=query)).get("items") or ()
        names = [item["metadata"]["name"] for item in items]
        if len(names) != 1:
            found = ", ".join(names) or "none"
            what = "" if release is None else f" of release {release}"
            raise SteeringError(
                f"name the SN17Miner with --miner, namespace {self.namespace} has{what}: {found}"
            )
        return str(names[0])

    async def _worker(self, name: str) -> None:
        labels = (await self._pod(name))["metadata"].get("labels") or {}
        if labels.get(LABEL_PART_OF) == PART_OF and labels.get(LABEL_COMPONENT) == WORKER:
            return
        found = await self._call(
            "GET",
            f"/api/v1/namespaces/{self.namespace}/pods",
            query={"labelSelector": f"{LABEL_PART_OF}={PART_OF},{LABEL_COMPONENT}={WORKER}"},
        )
        workers = ", ".join(sorted(item["metadata"]["name"] for item in found.get("items") or ())) or "none"
        raise SteeringError(f"{name} is not a worker of a release; namespace {self.namespace} has: {workers}")

    async def _pod(self, name: str) -> dict[str, Any]:
        return await self._call("GET", f"/api/v1/namespaces/{self.namespace}/pods/{name}")

    async def _annotate_pod(self, name: str, annotations: Mapping[str, str]) -> None:
        await self._patch(f"/api/v1/namespaces/{self.namespace}/pods/{name}", annotations)

    async def _patch(self, path: str, annotations: Mapping[str, str | None]) -> None:
        body = {"metadata": {"annotations": dict(annotations)}}
        await self._call("PATCH", path, body=body, content_type=MERGE_PATCH)

    def _miners(self, name: str = "") -> str:
        return f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURAL}/{name}".rstrip("/")

    async def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            return await self._api.request(method, path, **options)
        except ApiError as error:
            # What is not there is an answer; a server that refuses or is silent gives none.
            kind = SteeringError if error.status == _NOT_FOUND else ClusterError
            raise kind(f"{error} (namespace {self.namespace})") from error
