"""The API server through the official client's asynchronous flavour.

``kubernetes.aio`` and not threads: a tick waits for many small answers at once, and kopf already lives in
the same loop. Only the client's transport is used (configuration, TLS, token rotation); answers stay plain
JSON, because the generated models cost more than the whole tick for a thousand pods.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import api_client
from kubernetes.aio.client.configuration import Configuration

from ..ports import Refused

log = logging.getLogger("sn17.operator")

MERGE_PATCH = "application/merge-patch+json"
TIMEOUT = aiohttp.ClientTimeout(total=20.0, sock_connect=5.0)


class ApiError(Refused):
    """An answer of the API server that is not a success. ``status`` is 0 when there was no answer."""

    def __init__(self, status: int, message: str, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__("unreachable" if status == 0 else f"http_{status}", message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class KubeApi:
    """JSON in, JSON out."""

    def __init__(self, configuration: Configuration) -> None:
        self._client = api_client.ApiClient(configuration)
        self.calls = 0

    @classmethod
    async def connect(cls) -> KubeApi:
        """With the pod's service account, or else with KUBECONFIG.

        Raises:
            kubernetes.aio.config.ConfigException: there is neither.
        """
        configuration = Configuration()
        configuration.retries = 0
        if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        return cls(configuration)

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
    ) -> dict[str, Any]:
        """One call.

        Raises:
            ApiError: the server refused, or did not answer.
        """
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
            )
        if not isinstance(found, dict):
            raise ApiError(answer.status, f"{method} {path}: not an object")
        return found
