"""The cluster in which the workers run: SN17Miners, Deployments, pods, evictions, Events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sn17_contract.kubernetes import GROUP, KIND, LABEL_COMPONENT, LABEL_INSTANCE, PLURAL, VERSION

from sn17_operator.adapters import objects
from sn17_operator.adapters.annotations import changes
from sn17_operator.adapters.kube import MERGE_PATCH, ApiError, KubeApi
from sn17_operator.adapters.store import Store
from sn17_operator.core.model import Pod
from sn17_operator.core.plan import Step
from sn17_operator.ports import Announcement, Conflict, Disrupted, Miner, Refused, Target
from sn17_operator.status.codec import parse_time
from sn17_operator.status.resource import Status, Summary, rfc3339
from sn17_operator.status.view import Missing

log = logging.getLogger("sn17.operator")

COMPONENT = "sn17-operator"
RELIST_TICKS = 20


class KubeCluster:
    """API calls per tick: one Deployment per SN17Miner, what is written, and every 20th tick two lists."""

    def __init__(
        self,
        api: KubeApi,
        store: Store,
        namespace: str,
        selector: str,
        *,
        identity: str,
        may_act: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._store = store
        self._namespace = namespace
        self._selector = selector
        self._identity = identity
        self._may_act = may_act
        self._clock = clock
        self._ticks = 0
        self._parsed: dict[tuple[str, str], tuple[str, Pod]] = {}
        self._invalid: dict[str, str] = {}

    def may_act(self) -> bool:
        return self._may_act()

    # --- looking --------------------------------------------------------------------------------------

    async def miners(self) -> Sequence[Miner]:
        """Every SN17Miner of the namespace whose spec can be read."""
        if self._ticks % RELIST_TICKS == 0:
            await self.relist()
        self._ticks += 1
        found = []
        for uid, raw in sorted(self._store.miners.items()):
            try:
                found.append(objects.miner(raw))
                self._invalid.pop(uid, None)
            except ValueError as error:
                if self._invalid.get(uid) != str(error):
                    log.error("SN17Miner %s: %s", raw["metadata"]["name"], error)
                self._invalid[uid] = str(error)
        return found

    async def relist(self) -> None:
        """Full lists: the start, and the repair of whatever a watch missed."""
        self._store.begin_list()
        pods = await self._api.request(
            "GET",
            self._path("api/v1", "pods"),
            query={"labelSelector": self._selector},
        )
        miners = await self._api.request("GET", self._path(f"apis/{GROUP}/{VERSION}", PLURAL))
        self._store.replace_pods(pods)
        self._store.replace_miners(miners)
        self._parsed = {key: value for key, value in self._parsed.items() if key[0] in self._store.pods}

    async def target(self, miner: Miner, now: float) -> Target:
        """The Deployment's workers, its progress, and what a person must still supply."""
        release_pods = self._release_pods(miner)
        miner_pods = tuple(
            sorted(raw["metadata"]["name"] for raw in release_pods if _component(raw) == "miner")
        )
        try:
            deployment = await self._api.request(
                "GET", self._path("apis/apps/v1", "deployments", miner.spec.target_ref.name)
            )
        except ApiError as error:
            if error.status != 404:
                raise
            return Target((), None, None, await self._missing(miner, release_pods, (), now), miner_pods)
        selector = (deployment.get("spec") or {}).get("selector") or {}
        pods = tuple(
            sorted(
                (
                    self._pod(miner, raw)
                    for raw in self._store.pods.values()
                    if objects.matches(selector, raw["metadata"].get("labels") or {})
                    and raw["status"].get("phase") not in ("Succeeded", "Failed")
                ),
                key=lambda pod: pod.name,
            )
        )
        progress = objects.rollout(deployment)
        missing = await self._missing(miner, release_pods, pods, now)
        made = int((deployment.get("status") or {}).get("replicas") or 0)
        return Target(
            pods, progress.replicas, progress, missing, miner_pods, made, objects.selector_text(selector)
        )

    def _pod(self, miner: Miner, raw: Mapping[str, Any]) -> Pod:
        """Parsed once per version of the object."""
        meta = raw["metadata"]
        key, version = (meta["uid"], miner.uid), f"{meta.get('resourceVersion')}/{miner.generation}"
        known = self._parsed.get(key)
        if known is None or known[0] != version:
            known = self._parsed[key] = version, objects.pod(raw, miner.spec.workers)
            if known[1].malformed:
                log.warning(
                    "%s: annotations that cannot be read: %s", known[1].name, ", ".join(known[1].malformed)
                )
        return known[1]

    def _release_pods(self, miner: Miner) -> list[dict[str, Any]]:
        """Pods of the same release."""
        if miner.instance is None:
            return []
        return [
            raw
            for raw in self._store.pods.values()
            if (raw["metadata"].get("labels") or {}).get(LABEL_INSTANCE) == miner.instance
        ]

    async def _missing(
        self, miner: Miner, release_pods: Sequence[Mapping[str, Any]], pods: Sequence[Pod], now: float
    ) -> Missing | None:
        for raw in release_pods:
            if (found := objects.missing_in_status(raw)) is not None and not _is_ready(raw):
                return found
        for raw in release_pods:
            if _component(raw) != "miner" or _is_ready(raw):
                continue
            words = objects.waits_for_configuration(raw)
            created = parse_time(raw["metadata"].get("creationTimestamp")) or now
            if words is None and raw["status"].get("phase") == "Pending" and now - created > 30:
                words = await self._failed_mount(raw["metadata"]["uid"])
            if words is not None:
                return Missing(Summary.HOTKEY_MISSING, self._hotkey_advice(miner, words))
        return None

    def _hotkey_advice(self, miner: Miner, words: str) -> str:
        name = miner.spec.hotkey_secret_name or "sn17-hotkey"
        command = f"sn17 wallet secret --wallet WALLET --hotkey HOTKEY --name {name}"
        return f"{command} | kubectl -n {self._namespace} apply -f - makes it; the miner waits: {words[:200]}"

    async def _failed_mount(self, uid: str) -> str | None:
        """kubelet tells of a missing Secret volume only in Events."""
        try:
            events = await self._api.request(
                "GET",
                self._path("api/v1", "events"),
                query={"fieldSelector": f"involvedObject.uid={uid},reason=FailedMount"},
            )
        except ApiError as error:
            log.warning("Events of the miner's pod could not be read: %s", error)
            return None
        for event in events.get("items") or ():
            message = str(event.get("message") or "")
            if "not found" in message:
                return message
        return None

    # --- acting ---------------------------------------------------------------------------------------

    async def annotate(self, miner: Miner, pod: Pod, step: Step) -> Pod:
        body = {
            "metadata": {
                # Both must still be as they were seen: the server answers 409, or 422 for another uid.
                "uid": pod.uid,
                "resourceVersion": pod.resource_version,
                "annotations": changes(step),
            }
        }
        try:
            raw = await self._api.request(
                "PATCH", self._path("api/v1", "pods", pod.name), body=body, content_type=MERGE_PATCH
            )
        except ApiError as error:
            if error.status == 404:
                self._store.pod_gone(pod.uid)
            if error.status in (404, 409) or (error.status == 422 and "metadata.uid" in str(error)):
                raise Conflict(f"the pod has changed since it was looked at: {error}") from error
            raise
        self._store.pod_seen(raw)
        return self._pod(miner, self._store.pods[pod.uid])

    async def evict(self, miner: Miner, pod: Pod) -> None:
        body = objects.eviction(self._namespace, pod.name, pod.uid)
        try:
            await self._api.request("POST", self._path("api/v1", "pods", pod.name, "eviction"), body=body)
        except ApiError as error:
            if error.status in (404, 409):
                if error.status == 404:
                    self._store.pod_gone(pod.uid)
                raise Conflict(f"the pod is gone: {error}") from error
            # 500 is what several budgets over one pod give.
            several = error.status == 500 and "PodDisruptionBudget" in str(error)
            if several or (error.status == 429 and not error.throttled):
                raise Disrupted(str(error)) from error
            raise

    async def announce(self, miner: Miner, pod: Pod | None, announcement: Announcement) -> None:
        """An Event on the SN17Miner, and one on the pod if it is about a pod."""
        text = announcement.message if pod is None else f"{pod.name}: {announcement.message}"
        about = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "name": miner.name, "uid": miner.uid}
        await self._event(about, announcement, text)
        if pod is not None:
            about = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}
            await self._event(about, announcement, announcement.message)

    async def _event(self, about: Mapping[str, str], announcement: Announcement, text: str) -> None:
        now = rfc3339(self._clock())
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{about['name'][:200]}.", "namespace": self._namespace},
            "involvedObject": {**about, "namespace": self._namespace},
            "reason": announcement.reason,
            "message": text[:1024],
            "type": "Warning" if announcement.warning else "Normal",
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._identity[:128],
        }
        await self._api.request("POST", self._path("api/v1", "events"), body=body)

    async def write_status(self, miner: Miner, status: Status) -> None:
        try:
            raw = await self._api.request(
                "PATCH",
                self._path(f"apis/{GROUP}/{VERSION}", PLURAL, miner.name, "status"),
                body={"status": _with_removals(miner.status, status)},
                content_type=MERGE_PATCH,
            )
        except ApiError as error:
            if error.status == 404:
                self._store.miner_gone(miner.uid)
            raise Refused(error.outcome, f"the status could not be written: {error}") from error
        self._store.miner_seen(raw)

    def _path(self, api: str, *parts: str) -> str:
        return "/".join(("", api, "namespaces", self._namespace, *parts))


def _with_removals(old: Status, new: Status) -> dict[str, Any]:
    """A merge patch keeps what it does not name; a whole status (one with conditions) must not leave old
    fields.
    """
    written = new.written()
    if new.conditions is None:
        return written
    return {**{key: None for key in old.written() if key not in written}, **written}


def _component(raw: Mapping[str, Any]) -> str | None:
    component: str | None = (raw["metadata"].get("labels") or {}).get(LABEL_COMPONENT)
    return component


def _is_ready(raw: Mapping[str, Any]) -> bool:
    return any(
        c.get("type") == "Ready" and c.get("status") == "True" for c in raw["status"].get("conditions") or ()
    )
