"""A Lease of coordination.k8s.io, so that two operators never act at once.

The holder renews every ``retry`` seconds and believes in its lease only until ``deadline`` after the last
renewal that worked, by its own monotonic clock. Another takes over only after it has itself seen the record
unchanged for ``duration``, so no two clocks are compared.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sn17_operator.adapters.kube import ApiError, KubeApi
from sn17_operator.ports import Refused

log = logging.getLogger("sn17.operator")


class LeaseLost(Exception):  # noqa: N818
    """The lease is no longer held; the process must end."""


class Lease:
    """``await acquire()``, then keep ``hold()`` running; ask ``held`` before every act."""

    def __init__(
        self,
        api: KubeApi,
        namespace: str,
        name: str,
        identity: str,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        duration: float = 15.0,
        deadline: float = 10.0,
        retry: float = 2.0,
    ) -> None:
        self._api = api
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._monotonic = monotonic
        self._duration = duration
        self._deadline = deadline
        self._retry = retry
        self._renewed: float | None = None
        self._seen: tuple[str, float] | None = None

    @property
    def held(self) -> bool:
        """True while no one else can have taken it."""
        return self._renewed is not None and self._monotonic() - self._renewed < self._deadline

    async def acquire(self) -> None:
        """Wait until the lease is ours."""
        told = False
        while not await self._try():
            if not told:
                log.warning(
                    "another operator holds the Lease %s; this one waits and does nothing", self._name
                )
                told = True
            await asyncio.sleep(self._retry)
        log.info("holds the Lease %s as %s", self._name, self._identity)

    async def hold(self) -> None:
        """Renew until it cannot be renewed.

        Raises:
            LeaseLost: someone else has it, or the API server has not confirmed it in time.
        """
        while True:
            await asyncio.sleep(self._retry)
            try:
                async with asyncio.timeout(self._deadline):
                    await self._try()
            except TimeoutError:
                log.warning("the Lease was not renewed in time")
            if not self.held:
                raise LeaseLost(f"the Lease {self._name} is no longer held")

    async def release(self) -> None:
        """Give it up, so that a successor need not wait."""
        if not self.held:
            return
        self._renewed = None
        try:
            raw = await self._api.request("GET", f"{self._path}/{self._name}", urgent=True)
            if (raw.get("spec") or {}).get("holderIdentity") == self._identity:
                raw["spec"].update(holderIdentity="", leaseDurationSeconds=1)
                await self._api.request("PUT", f"{self._path}/{self._name}", body=raw, urgent=True)
        except Refused as error:
            log.info("the Lease could not be given up, it runs out by itself: %s", error)

    async def _try(self) -> bool:
        asked = self._monotonic()
        try:
            raw = await self._api.request("GET", f"{self._path}/{self._name}", urgent=True)
        except ApiError as error:
            if error.status != 404:
                log.warning("the Lease could not be read: %s", error)
                return False
            raw = {}
        spec = raw.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        version = (raw.get("metadata") or {}).get("resourceVersion", "")
        if self._seen is None or self._seen[0] != version:
            self._seen = version, asked
        free = not holder or holder == self._identity
        term = float(spec.get("leaseDurationSeconds") or self._duration)
        if not free and asked - self._seen[1] < term:
            self._renewed = None
            return False
        try:
            await self._write(raw, holder)
        except ApiError as error:
            # A conflict means that someone else was faster; nothing is known to be ours now.
            log.warning("the Lease could not be written: %s", error)
            return False
        self._renewed = asked
        return True

    async def _write(self, raw: dict[str, Any], holder: str) -> None:
        now = (
            datetime.fromtimestamp(self._clock(), tz=UTC)
            .isoformat(timespec="microseconds")
            .replace("+00:00", "Z")
        )
        spec = dict(raw.get("spec") or {})
        if holder != self._identity:
            spec.update(acquireTime=now, leaseTransitions=int(spec.get("leaseTransitions") or 0) + 1)
        spec.update(holderIdentity=self._identity, renewTime=now, leaseDurationSeconds=int(self._duration))
        if raw:
            body = {**raw, "spec": spec}
            await self._api.request("PUT", f"{self._path}/{self._name}", body=body, urgent=True)
        else:
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": spec,
            }
            await self._api.request("POST", self._path, body=body, urgent=True)
