"""Series of workers, asked from a Prometheus: at an address, or through the API server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import quote, urlsplit

import httpx2
from pydantic import BaseModel, ValidationError
from sn17_contract.metrics import Metric
from sn17_http import client_for
from sn17_operator.adapters.kube import ApiError, KubeApi

from sn17.doctor.model import ProbeError
from sn17.doctor.release.scraping import Target

SECONDS: Final = 10.0
UP: Final = f'{Metric.BOOT_INFO}{{service="trellis"}}'
DOWN: Final = 'up{pod_uid!="",job="trellis"} == 0'
PATH: Final = "api/v1/query"

Targets = Sequence[Target]


class PrometheusReader(Protocol):
    """Series of workers. ``targets`` may raise ProbeError."""

    url: str

    def targets(self) -> Targets: ...


class _Series(BaseModel):
    metric: dict[str, str]


class _Data(BaseModel):
    result: list[_Series]


class Answer(BaseModel):
    """An answer of the HTTP interface to a query."""

    status: str
    data: _Data


def _targets(answer: Any, url: str, *, up: bool) -> list[Target]:
    try:
        return [Target(series.metric, up) for series in Answer.model_validate(answer).data.result]
    except ValidationError as error:
        raise ProbeError(f"{url} does not answer as a Prometheus does") from error


class HttpPrometheus:
    """At an address that the user gave."""

    def __init__(self, url: str) -> None:
        self.url = url

    def targets(self) -> Targets:
        found: list[Target] = []
        try:
            with client_for(self.url.rstrip("/") + "/", timeout=SECONDS) as client:
                for query, up in ((UP, True), (DOWN, False)):
                    answer = client.get(PATH, params={"query": query}).raise_for_status()
                    found += _targets(answer.json(), self.url, up=up)
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise ProbeError(
                f"the Prometheus at {self.url} does not answer: {error}", "name another with --prometheus"
            ) from error
        return found


class ServiceProxy:
    """A Service of the cluster, through the API server, whatever the caller's network reaches."""

    def __init__(self, api: KubeApi, url: str, namespace: str) -> None:
        self._api = api
        self._url = url
        self._path = service_path(url, namespace)

    async def targets(self) -> Targets:
        """Raises ProbeError."""
        found: list[Target] = []
        for query, up in ((UP, True), (DOWN, False)):
            try:
                answer: Mapping[str, Any] = await self._api.request("GET", self._path, query={"query": query})
            except ApiError as error:
                raise ProbeError(
                    f"the Prometheus at {self._url} does not answer through the API server: {error}",
                    "name an address that this machine reaches with --prometheus URL",
                ) from error
            found += _targets(answer, self._url, up=up)
        return found


def service_path(url: str, namespace: str) -> str:
    """Path of the API server's proxy to a Service that ``url`` names, as ``http://name.namespace:9090``.

    Raises:
        ProbeError: it names no Service.
    """
    parts = urlsplit(url)
    name, _, rest = (parts.hostname or "").partition(".")
    place = rest.partition(".")[0] or namespace
    if not name or name.isdigit() or (rest and rest.partition(".")[2].partition(".")[0] not in ("", "svc")):
        raise ProbeError(
            f"{url} is no Service of this cluster",
            "name an address that this machine reaches: --prometheus URL",
        )
    port = parts.port or (443 if parts.scheme == "https" else 80)
    prefix = quote(parts.path.strip("/"))
    service = f"/api/v1/namespaces/{place}/services/{parts.scheme}:{name}:{port}/proxy"
    return "/".join(part for part in (service, prefix, PATH) if part)
