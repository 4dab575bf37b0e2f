"""Evidence from Prometheus: one instant query per signal, over raw samples.

Range selectors are asked for, not functions: their answer carries the samples' own times, so that freshness,
dwell and incarnation are read from what was scraped and not from when it was asked.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import httpx2
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from sn17_contract.metrics import Metric
from sn17_contract.tasks import VALIDATORS
from sn17_http import async_client_for

from sn17_operator.api import Rules
from sn17_operator.core.evidence import Raw, Samples, windows
from sn17_operator.core.readings import Monitoring, Signal
from sn17_operator.core.signals import INFO_LABELS, METRICS, SUMMED
from sn17_operator.ports import Measurement
from sn17_operator.status.view import Ratios

log = logging.getLogger("sn17.operator")

MARGIN_SECONDS = 5.0
MAX_ANSWER_BYTES = 256 * 1024**2
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")
_OWN_HEADERS = frozenset({"authorization", "host", "connection", "content-length", "transfer-encoding"})


class PrometheusSettings(BaseModel):
    """Where Prometheus is and how it is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: str = Field("http://127.0.0.1:9091", description="base URL; a path prefix is kept")
    selector: str = Field("", description='more label matchers for every query, e.g. namespace="sn17"')
    scrape_interval_seconds: Annotated[float, Field(gt=0, description="of the workers' scrape")] = 15.0
    timeout_seconds: Annotated[float, Field(gt=0, description="of one query")] = 8.0
    bearer_token_file: Path | None = Field(None, description="read anew for each query")
    username: str | None = Field(None, description="of basic authentication")
    password_file: Path | None = Field(None, description="of basic authentication")
    ca_file: Path | None = Field(None, description="certificate authority of the server")
    headers: dict[str, SecretStr] = Field(
        default_factory=dict, description='JSON object sent with each query, e.g. {"X-Scope-OrgID": "team"}'
    )
    client_cert_file: Path | None = Field(None, description="certificate that the server asks for (PEM)")
    client_key_file: Path | None = Field(None, description="its key; none = in the certificate's file")
    namespace: str | None = Field(
        None, description="whose pods' memory is asked of cAdvisor; none = the operator's own"
    )

    @field_validator("headers")
    @classmethod
    def _sendable(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a header")
            if name.lower() in _OWN_HEADERS:
                raise ValueError(f"{name} is set by the client; for access use bearer_token_file or username")
            if not _HEADER_VALUE.fullmatch(value.get_secret_value()):
                raise ValueError(f"the value of {name} must be visible ASCII on one line, with no blank ends")
        return headers

    @model_validator(mode="after")
    def _key_of_a_certificate(self) -> PrometheusSettings:
        if self.client_key_file is not None and self.client_cert_file is None:
            raise ValueError("client_key_file needs client_cert_file")
        return self

    @property
    def stale_after(self) -> float:
        """Seconds after which a sample is too old to prove anything."""
        return 2 * self.scrape_interval_seconds + MARGIN_SECONDS


class Auth(httpx2.Auth):
    """Bearer or basic, from files that may be rotated."""

    def __init__(self, settings: PrometheusSettings) -> None:
        self._settings = settings

    def auth_flow(self, request: httpx2.Request) -> Any:
        settings = self._settings
        if settings.bearer_token_file is not None:
            request.headers["Authorization"] = f"Bearer {settings.bearer_token_file.read_text().strip()}"
        elif settings.username is not None:
            password = settings.password_file.read_text().strip() if settings.password_file else ""
            yield from httpx2.BasicAuth(settings.username, password).auth_flow(request)
            return
        yield request


class QueryError(Exception):
    """A query has no usable answer; ``reason`` is one of a fixed set."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Result(BaseModel):
    metric: dict[str, str]
    values: list[tuple[float, str]] = Field(default_factory=list)
    value: tuple[float, str] | None = None


class _Data(BaseModel):
    resultType: str  # noqa: N815
    result: list[Result]


class _Answer(BaseModel):
    status: str
    data: _Data | None = None
    error: str = ""
    warnings: list[str] = Field(default_factory=list)


_POD_UID = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})")


def selector(settings: PrometheusSettings, *more: str) -> str:
    return ",".join(part for part in ('pod_uid!=""', settings.selector.strip(" ,{}"), *more) if part)


def queries(settings: PrometheusSettings, rules: Sequence[Rules]) -> dict[Signal, str]:
    """The PromQL of every signal, as asked and as shown to people."""
    spans = windows(rules, settings.scrape_interval_seconds)
    found = {
        signal: f"{metric}{{{selector(settings, more)}}}[{spans[signal]:.0f}s]"
        for signal, (metric, more) in METRICS.items()
    }
    if settings.namespace:
        found[Signal.POD_MEMORY] = f"{pod_memory(settings.namespace)}[{spans[Signal.POD_MEMORY]:.0f}s]"
    return found


def pod_memory(namespace: str) -> str:
    """cAdvisor's series of the pods of a namespace."""
    return f'container_memory_working_set_bytes{{namespace="{namespace}",container="",pod!=""}}'


class PrometheusMetrics:
    """Asks Prometheus, all signals at one evaluation time and at once."""

    def __init__(
        self,
        settings: PrometheusSettings,
        *,
        on_error: Callable[[str], None] = lambda reason: None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.settings = settings
        self._on_error = on_error
        self._client = async_client_for(
            settings.url.rstrip("/") + "/",
            auth=Auth(settings),
            headers={name: value.get_secret_value() for name, value in settings.headers.items()},
            timeout=settings.timeout_seconds,
            verify=_trust(settings),
            transport=transport,
            follow_redirects=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def measure(self, now: float, rules: Sequence[Rules]) -> Measurement:
        """Everything at once. A query that fails makes its signal unknown, never zero."""
        asked = queries(self.settings, rules)
        failed: dict[Signal, str] = {}
        spans = windows(rules, self.settings.scrape_interval_seconds)
        window = spans[Signal.UP]

        async def ask(signal: Signal, query: str) -> list[Result]:
            try:
                return await self.query(query, now)
            except QueryError as error:
                failed[signal] = f"{error.reason}: {error}"
                self._on_error(error.reason)
                return []

        signals = list(asked)
        scrapes = {
            Signal.UP: "max(timestamp(up) * up)",
            Signal.BOOT: f"max(sum_over_time(up[{window:.0f}s]))",
        }
        if self.settings.namespace:
            # Over Prometheus' own five minutes: cAdvisor may be scraped more rarely than the workers.
            scrapes[Signal.POD_MEMORY] = f"count({pod_memory(self.settings.namespace)})"
        answers, (last, coverage, *pods), ratios = await asyncio.gather(
            asyncio.gather(*(ask(signal, asked[signal]) for signal in signals)),
            asyncio.gather(*(ask(signal, query) for signal, query in scrapes.items())),
            self._ratios(now),
        )
        workers = gather(dict(zip(signals, answers, strict=True)))
        monitoring = Monitoring(
            at=now,
            stale_after=self.settings.stale_after,
            scrape_interval=self.settings.scrape_interval_seconds,
            failed=failed,
            last_scrape=_scalar(last),
            coverage=_scalar(coverage) or 0.0,
            window=window,
            queries=asked,
            pod_memory=bool(pods[0]) if pods and Signal.POD_MEMORY not in failed else None,
        )
        return Measurement(monitoring, workers, ratios)

    async def query(self, query: str, at: float) -> list[Result]:
        """One instant query.

        Raises:
            QueryError: no answer, not an answer, or one that Prometheus itself warns about.
        """
        params = {"query": query, "time": f"{at:.3f}", "timeout": f"{self.settings.timeout_seconds:.0f}s"}
        try:
            async with self._client.stream("GET", "api/v1/query", params=params) as response:
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise QueryError("too_large", f"the answer exceeds {MAX_ANSWER_BYTES} bytes")
        except httpx2.TimeoutException as error:
            raise QueryError("timeout", f"no answer in {self.settings.timeout_seconds:.0f} s") from error
        except httpx2.HTTPError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                text = f"the certificate of {self.settings.url} is not trusted, check the CA file: {error}"
                raise QueryError("certificate", text) from error
            raise QueryError("unreachable", f"{type(error).__name__}: {error}") from error
        except ssl.SSLError as error:  # an alert that comes only after the handshake, as TLS 1.3 has it
            text = (
                f"{self.settings.url} refused the connection, does it ask for a client certificate? {error}"
            )
            raise QueryError("certificate", text) from error
        except OSError as error:
            text = f"{error.filename} cannot be read: {error.strerror}"
            raise QueryError("credentials", text) from error
        try:
            answer = _Answer.model_validate_json(bytes(content))
        except ValidationError as error:
            if response.is_success:
                raise QueryError("bad_answer", "the answer is not that of Prometheus") from error
            said = bytes(content[:200]).decode(errors="replace").strip() or response.reason_phrase
            if response.status_code in (401, 403):
                said += ": check bearer token, user name and password"
            raise QueryError(f"http_{response.status_code}", said) from error
        if not response.is_success or answer.status != "success" or answer.data is None:
            raise QueryError(f"http_{response.status_code}", answer.error or response.reason_phrase)
        if answer.warnings:
            raise QueryError("warnings", "; ".join(answer.warnings)[:300])
        return answer.data.result

    async def _ratios(self, now: float) -> dict[tuple[str, str], Ratios]:
        """Success and yield of validators' tasks by miner pod; they inform people and decide nothing, so a
        failure is only counted.
        """
        found: dict[tuple[str, str], Ratios] = {}
        # A miner of an older release has validators' tasks only, without the label.
        door = f'door=~"|{VALIDATORS}"'
        matchers = ",".join(part for part in (self.settings.selector.strip(" ,{}"), door) if part)
        for window in ("1h", "4h"):
            query = f"sum by (pod, outcome) (increase({Metric.TASKS}_total{{{matchers}}}[{window}]))"
            try:
                results = await self.query(query, now)
            except QueryError as error:
                self._on_error(error.reason)
                return found
            by_pod: dict[str, dict[str, float]] = {}
            for result in results:
                value = float(result.value[1]) if result.value else math.nan
                by_pod.setdefault(result.metric.get("pod", ""), {})[result.metric.get("outcome", "")] = value
            found.update({(pod, window): ratios(outcomes) for pod, outcomes in by_pod.items()})
        return found


def _trust(settings: PrometheusSettings) -> ssl.SSLContext | bool:
    if settings.ca_file is None and settings.client_cert_file is None:
        return True
    try:
        if settings.ca_file is None:
            context = httpx2.create_ssl_context()
        else:
            context = ssl.create_default_context(cafile=str(settings.ca_file))
    except OSError as error:  # ssl.SSLError is one
        why = error.strerror or str(error)
        raise ValueError(
            f"{settings.ca_file}: no certificate authority can be read from it: {why}"
        ) from error
    if settings.client_cert_file is not None:
        key = settings.client_key_file
        try:
            context.load_cert_chain(settings.client_cert_file, key, password=_no_password)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise ValueError(
                f"{settings.client_cert_file}: no client certificate with its key can be read from it"
                f"{'' if key is None else f' and {key}'}: {why}"
            ) from error
    return context


def _no_password() -> str:
    """Without this OpenSSL would ask for one at the terminal."""
    raise ValueError("the key must not be encrypted")


def ratios(outcomes: Mapping[str, float]) -> Ratios:
    """Success = accepted / all but skipped; yield = accepted / all."""
    counted = {name: value for name, value in outcomes.items() if value == value and value > 0}
    total, accepted = sum(counted.values()), counted.get("accepted", 0.0)
    tried = total - counted.get("skipped", 0.0)
    return Ratios(accepted / tried if tried > 0 else None, accepted / total if total > 0 else None)


def _scalar(results: list[Result]) -> float | None:
    if not results or results[0].value is None:
        return None
    value = float(results[0].value[1])
    return None if math.isnan(value) else value


def gather(answers: Mapping[Signal, Sequence[Result]]) -> dict[str, Raw]:
    """Series by worker: pod uid to signal to its series."""
    infos: dict[Signal, dict[str, list[tuple[str, Samples]]]] = {signal: {} for signal in INFO_LABELS}
    series: dict[str, dict[Signal, list[Samples]]] = {}
    summed: dict[tuple[str, Signal], dict[str, Samples]] = {}
    for signal, results in answers.items():
        for result in results:
            uid = _uid(signal, result.metric)
            if uid is None:
                continue
            samples = tuple((at, float(value)) for at, value in result.values)
            if signal in INFO_LABELS:
                said = result.metric.get(INFO_LABELS[signal], "")
                infos[signal].setdefault(uid, []).append((said, samples))
            elif signal in SUMMED:
                label = result.metric.get(SUMMED[signal], "")
                known = summed.setdefault((uid, signal), {})
                if label in known:  # the same series twice
                    series.setdefault(uid, {}).setdefault(signal, []).append(samples)
                known[label] = samples
            else:
                series.setdefault(uid, {}).setdefault(signal, []).append(samples)
    for (uid, signal), parts in summed.items():
        totals: dict[float, float] = {}
        for samples in parts.values():
            for at, value in samples:
                totals[at] = totals.get(at, 0.0) + value
        series.setdefault(uid, {}).setdefault(signal, []).append(tuple(sorted(totals.items())))
    return {uid: Raw.of(uid, infos, series) for uid in infos[Signal.BOOT].keys() | series.keys()}


def _uid(signal: Signal, labels: Mapping[str, str]) -> str | None:
    if signal is not Signal.POD_MEMORY:
        return labels.get("pod_uid") or None
    # cAdvisor names a pod's cgroup by its uid, with underscores where systemd made the name.
    found = _POD_UID.search(labels.get("id", ""))
    return found.group(1).replace("_", "-") if found else None
