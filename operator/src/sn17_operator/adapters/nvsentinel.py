"""NVSentinel's custom drain: its node-drainer makes a DrainRequest and waits for the condition DrainComplete.

Pods are asked to leave by eviction, so that disruption budgets hold and a worker finishes its job; the
condition turns True when all of them are gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from sn17_operator.adapters.kube import MERGE_PATCH, ApiError, KubeApi
from sn17_operator.adapters.objects import eviction
from sn17_operator.core.drains import DrainRequest, answer
from sn17_operator.status.resource import rfc3339

log = logging.getLogger("sn17.operator")

API: Final = "/apis/nvsentinel.nvidia.com/v1alpha1"
CONDITION: Final = "DrainComplete"


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")


class _Condition(_Model):
    type: str
    status: str
    reason: str = ""
    message: str = ""


class _Spec(_Model):
    node_name: str = ""
    pods_to_drain: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class _Status(_Model):
    conditions: tuple[_Condition, ...] = ()


class _Metadata(_Model):
    name: str


class _Request(_Model):
    metadata: _Metadata
    spec: _Spec = _Spec()
    status: _Status = _Status()

    def told(self) -> tuple[str, str, str] | None:
        """What the condition says already."""
        found = next((c for c in self.status.conditions if c.type == CONDITION), None)
        return None if found is None else (found.status, found.reason, found.message)


class Drains:
    """One list call a tick; ``namespace`` is that of the pods, ``requests`` that of the DrainRequests."""

    def __init__(
        self,
        api: KubeApi,
        namespace: str,
        requests: str,
        *,
        may_act: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._path = f"{API}/namespaces/{requests}/drainrequests"
        self._may_act = may_act
        self._clock = clock
        self._failing: str | None = None

    async def tick(self) -> None:
        """Answer every request that is not done. A refusal is logged once and tried again."""
        try:
            found = await self._api.request("GET", self._path)
            for raw in found.get("items") or ():
                await self._answer(raw)
            self._failing = None
        except ApiError as error:
            if self._failing != str(error):
                log.warning("drain requests: %s", error)
            self._failing = str(error)

    async def _answer(self, raw: Mapping[str, Any]) -> None:
        try:
            request = _Request.model_validate(raw)
        except ValidationError as error:
            where = ", ".join(".".join(map(str, e["loc"])) for e in error.errors(include_input=False))
            log.warning("drain request that cannot be read: %s", where)
            return
        said = request.told()
        if (said is not None and said[0] == "True") or not self._may_act():
            return
        spec = request.spec
        asked = DrainRequest(request.metadata.name, spec.node_name, spec.pods_to_drain, said)
        pods = {name: await self._pod(name) for name in asked.pods.get(self._namespace, ())}
        present = {
            name: pod["metadata"].get("deletionTimestamp") is not None
            for name, pod in pods.items()
            # A StatefulSet's pod has the same name again on its next node.
            if pod is not None and pod["spec"].get("nodeName") == asked.node
        }
        found = answer(asked, self._namespace, present)
        for name in found.evict:
            await self._evict(pods[name] or {})
        if found.said != asked.said:
            log.info("drain request %s: %s: %s", asked.name, found.reason, found.message)
            await self._say(request, found.said)

    async def _pod(self, name: str) -> dict[str, Any] | None:
        try:
            return await self._api.request("GET", f"/api/v1/namespaces/{self._namespace}/pods/{name}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def _evict(self, pod: Mapping[str, Any]) -> None:
        meta = pod["metadata"]
        body = eviction(self._namespace, meta["name"], meta["uid"])
        path = f"/api/v1/namespaces/{self._namespace}/pods/{meta['name']}/eviction"
        try:
            await self._api.request("POST", path, body=body)
        except ApiError as error:
            # Gone already, or its disruption budget lets no more go now: asked again at the next tick.
            if error.status not in (404, 409) and not (error.status == 429 and not error.throttled):
                raise

    async def _say(self, request: _Request, said: tuple[str, str, str]) -> None:
        status, reason, message = said
        condition = {
            "type": CONDITION,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": rfc3339(self._clock()),
        }
        others = [c.model_dump(by_alias=True) for c in request.status.conditions if c.type != CONDITION]
        path = f"{self._path}/{request.metadata.name}/status"
        body = {"status": {"conditions": [*others, condition]}}
        await self._api.request("PATCH", path, body=body, content_type=MERGE_PATCH)
