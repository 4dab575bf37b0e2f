"""Counts and deletion costs in the cluster."""

from __future__ import annotations

from typing import Any

from sn17_contract.kubernetes import ANNOTATION_DELETION_COST, GROUP, PLURAL, VERSION

from sn17_operator.adapters.kube import MERGE_PATCH, ApiError, KubeApi
from sn17_operator.adapters.store import Store
from sn17_operator.core.model import Pod
from sn17_operator.ports import Conflict, Miner


class KubeScaler:
    """One patch for each thing that is written; reads nothing."""

    def __init__(self, api: KubeApi, store: Store) -> None:
        self._api = api
        self._store = store

    async def set_cost(self, miner: Miner, pod: Pod, cost: int | None) -> None:
        text = None if cost is None else str(cost)
        # The uid: not of another pod that has the name by now.
        body = {"metadata": {"uid": pod.uid, "annotations": {ANNOTATION_DELETION_COST: text}}}
        path = f"/api/v1/namespaces/{miner.namespace}/pods/{pod.name}"
        try:
            self._store.pod_seen(await self._patch(path, body))
        except ApiError as error:
            if error.status == 404:
                self._store.pod_gone(pod.uid)
            if error.status in (404, 409) or (error.status == 422 and "metadata.uid" in str(error)):
                raise Conflict(f"the pod has changed since it was looked at: {error}") from error
            raise

    async def adopt(self, miner: Miner, replicas: int) -> None:
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{miner.namespace}/{PLURAL}/{miner.name}"
        # The version that was seen names no count: one that somebody has set meanwhile must stay.
        metadata = {"uid": miner.uid, "resourceVersion": miner.resource_version}
        self._store.miner_seen(
            await self._patch(path, {"metadata": metadata, "spec": {"replicas": replicas}})
        )

    async def set_replicas(self, miner: Miner, replicas: int) -> None:
        name = miner.spec.target_ref.name
        path = f"/apis/apps/v1/namespaces/{miner.namespace}/deployments/{name}/scale"
        await self._patch(path, {"spec": {"replicas": replicas}})

    async def _patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._api.request("PATCH", path, body=body, content_type=MERGE_PATCH)
