"""The API server through the official client's asynchronous flavour.

``kubernetes.aio`` and not threads: a tick waits for many small answers at once, and kopf already lives in
the same loop. Only the client's transport is used (configuration, TLS, token rotation); answers stay plain
JSON, because the generated models cost more than the whole tick for a thousand pods.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import api_client
from kubernetes.aio.client.configuration import Configuration

from sn17_operator.ports import Refused

log = logging.getLogger("sn17.operator")

MERGE_PATCH = "application/merge-patch+json"
TIMEOUT = aiohttp.ClientTimeout(total=20.0, sock_connect=5.0)

DEFAULT_KUBECONFIG = "~/.kube/config"
THROTTLED_TRIES = 3
PATIENCE_SECONDS = 3.0
"""The longest that one call waits because the server asked for it; beyond that the tick goes on without."""
DEFAULT_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0
DISRUPTION_BUDGET = "DisruptionBudget"


class ApiError(Refused):
    """An answer of the API server that is not a success. ``status`` is 0 when there was no answer."""

    def __init__(
        self,
        status: int,
        message: str,
        reason: str = "",
        retry_after: float | None = None,
        causes: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__("unreachable" if status == 0 else f"http_{status}", message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
        self.causes = causes

    @property
    def throttled(self) -> bool:
        """The server is too busy for us. It has done nothing, so the same call may be made again."""
        return self.status == 429 and DISRUPTION_BUDGET not in self.causes


class KubeApi:
    """JSON in, JSON out. A server that asks for patience (429, ``Retry-After``) gets it from all calls."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        on_error: Callable[[str], None] = lambda reason: None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = api_client.ApiClient(configuration)
        self._on_error = on_error
        self._monotonic = monotonic
        self._sleep = sleep
        self._not_before = float("-inf")
        self.calls = 0
        self.server = str(configuration.host)
        self.date = ""
        """Of the last answer, as its header gives it."""

    @classmethod
    async def connect(
        cls,
        on_error: Callable[[str], None] = lambda reason: None,
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
    ) -> KubeApi:
        """With the files of ``kubeconfig`` (joined by colons) if given; else with the pod's service account,
        or with KUBECONFIG, where an empty one counts as none.

        Raises:
            kubernetes.aio.config.ConfigException: there is neither.
        """
        configuration = Configuration()
        configuration.retries = 0
        named = kubeconfig or os.environ.get("KUBECONFIG")
        if "KUBERNETES_SERVICE_HOST" in os.environ and not named and context is None:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            # The library's own default is that of the moment when it was imported.
            await config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=named or DEFAULT_KUBECONFIG, context=context, client_configuration=configuration
            )
        return cls(configuration, on_error=on_error)

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        urgent: bool = False,
    ) -> dict[str, Any]:
        """One call, made again a few times while the server throttles it. An ``urgent`` one never waits.

        Raises:
            ApiError: the server refused, did not answer, or has asked for more patience than there is.
        """
        tries = 0
        while True:
            tries += 1
            left = self._not_before - self._monotonic()
            if left > 0 and not urgent:
                if left > PATIENCE_SECONDS:
                    raise ApiError(429, f"{method} {path}: not asked, throttled for {left:.0f} s more")
                await self._sleep(left)
            try:
                return await self._once(method, path, query, body, content_type)
            except ApiError as error:
                if error.status in (0, 401, 403) or error.status >= 500 or error.throttled:
                    self._on_error("throttled" if error.throttled else error.outcome)
                if not error.throttled:
                    raise
                wait = min(error.retry_after or DEFAULT_RETRY_SECONDS, LONGEST_RETRY_SECONDS)
                self._not_before = max(self._not_before, self._monotonic() + wait)
                log.warning("%s %s: throttled by the API server for %.0f s: %s", method, path, wait, error)
                if urgent or tries == THROTTLED_TRIES:
                    raise

    async def _once(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        content_type: str,
    ) -> dict[str, Any]:
        self.calls += 1
        headers = {"Accept": "application/json", "Content-Type": content_type}
        try:
            prepared = await self._client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=dict(body) if body is not None else None,
                auth_settings=["BearerToken"],
            )
            answer = await self._client.call_api(*prepared, _request_timeout=TIMEOUT)
            content: bytes = await answer.read()  # type: ignore[no-untyped-call]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, f"{method} {path}: {type(error).__name__}: {error}") from error
        self.date = answer.headers.get("Date", "")
        try:
            found = json.loads(content) if content else {}
        except ValueError:
            found = {"message": content[:200].decode(errors="replace")}
        if not 200 <= answer.status < 300:
            retry = answer.headers.get("Retry-After")
            raise ApiError(
                answer.status,
                str(found.get("message") or answer.reason),
                str(found.get("reason") or ""),
                float(retry) if retry and retry.isdigit() else None,
                _causes(found),
            )
        if not isinstance(found, dict):
            raise ApiError(answer.status, f"{method} {path}: not an object")
        return found


def _causes(answer: Any) -> frozenset[str]:
    details = answer.get("details") if isinstance(answer, dict) else None
    causes = details.get("causes") if isinstance(details, dict) else None
    return frozenset(str(cause.get("reason")) for cause in causes or ())
