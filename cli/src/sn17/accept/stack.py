"""The services under test, by HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2
from pydantic import ValidationError
from sn17_contract.fixer import FixReport, ReportError
from sn17_contract.http import HEADER_REPORT, HEADER_WORKER, MEDIA_PLY, MEDIA_SPZ, WorkerState
from sn17_contract.worker import WorkerStatus, WorkerVersion
from sn17_http import own_client
from sn17_splats import Splats, read_splat

BUSY = frozenset({503})
ANSWER_SECONDS = 900.0


class StackError(Exception):
    """A service is not there or refused; the message says which, what it said, and what to do."""


class NoAnswerError(StackError):
    """Nobody listens, or the connection broke off: a worker that starts anew is there again in a moment."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A prompt's answer: the PLY as it came, and how long a caller waited for it."""

    ply: bytes
    seconds: float
    worker: str


@dataclass(frozen=True, slots=True)
class Fix:
    """The fixer's answer: the repaired splat and its compact report."""

    splats: Splats
    report: FixReport
    body: bytes


class Stack(Protocol):
    """What an acceptance run needs."""

    workers: tuple[str, ...]

    def worker(self, url: str) -> WorkerStatus: ...

    def generate(self, url: str, prompt: str, seed: int) -> Generation: ...

    def fix(self, ply: bytes, policy: str, *, as_ply: bool) -> Fix: ...


class HttpStack:
    """The real services. Addresses are data ports."""

    def __init__(
        self,
        workers: tuple[str, ...],
        fixer: str,
        *,
        client: httpx2.Client | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.workers = tuple(url.rstrip("/") for url in workers)
        self._fixer = fixer.rstrip("/")
        self._client = client or own_client(timeout=httpx2.Timeout(ANSWER_SECONDS, connect=10.0))
        self._monotonic = monotonic

    def worker(self, url: str) -> WorkerStatus:
        """Raises StackError when it does not answer, or with what is no status."""
        answer = self._ask("worker", "GET", f"{url}/v1/worker", timeout=10.0)
        try:
            return WorkerStatus.model_validate_json(answer.content)
        except ValidationError as error:
            raise StackError(
                f"the worker at {url} is of another version: {error.error_count()} errors in its answer"
            ) from error

    def version(self, url: str) -> WorkerVersion:
        """What makes the worker's assets. Raises StackError as :meth:`worker`."""
        answer = self._ask("worker", "GET", f"{url}/version", timeout=10.0)
        try:
            return WorkerVersion.model_validate_json(answer.content)
        except ValidationError as error:
            raise StackError(f"the worker at {url} is of another version: it names no weights") from error

    def preview(self, splat: bytes, size: int) -> bytes:
        """PNG of two by two views of ``size`` pixels. Raises StackError: refused, or no answer."""
        answer = self._ask(
            "fixer",
            "POST",
            f"{self._fixer}/preview.png",
            params={"size": size},
            content=splat,
            headers={"content-type": MEDIA_PLY},
        )
        return answer.content

    def generate(self, url: str, prompt: str, seed: int) -> Generation:
        """Raises StackError: refused (``busy`` is tried again by the caller), or no answer."""
        started = self._monotonic()
        form = {"prompt": prompt, "seed": str(seed)}
        answer = self._ask("worker", "POST", f"{url}/generate", data=form)
        return Generation(answer.content, self._monotonic() - started, answer.headers.get(HEADER_WORKER, url))

    def fix(self, ply: bytes, policy: str, *, as_ply: bool) -> Fix:
        """Raises StackError: refused, or no answer, or an answer without a complete report."""
        answer = self._ask(
            "fixer",
            "POST",
            f"{self._fixer}/fix",
            params={"policy": policy},
            content=ply,
            headers={"accept": MEDIA_PLY if as_ply else MEDIA_SPZ, "content-type": MEDIA_PLY},
        )
        try:
            report = FixReport.from_header(answer.headers.get(HEADER_REPORT))
        except ReportError as error:
            raise StackError(f"the fixer at {self._fixer}: {error}") from error
        return Fix(read_splat(answer.content), report, answer.content)

    def _ask(self, who: str, method: str, url: str, **arguments: Any) -> httpx2.Response:
        try:
            answer = self._client.request(method, url, **arguments)
        except httpx2.HTTPError as error:
            raise NoAnswerError(f"the {who} at {url} did not answer: {error}") from error
        if answer.is_success:
            return answer
        try:
            problem = answer.json()
            said = f"{problem.get('code', '?')}: {problem.get('detail', '')}"
        except ValueError:
            said = answer.text[:200]
        error_type = BusyError if answer.status_code in BUSY else StackError
        raise error_type(f"the {who} at {url} answered {answer.status_code}: {said}")


class BusyError(StackError):
    """Refused for now (503): asking again later may work."""


def ready(status: WorkerStatus) -> bool:
    """Takes work and has none."""
    return status.state is WorkerState.READY and status.job is None


def memory_ratio(status: WorkerStatus) -> float | None:
    """Share of the limit that cannot be reclaimed; None where either is unknown."""
    return None if status.memory is None else status.memory.ratio
