"""The workers' admin endpoints over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from sn17_contract.admin import (
    AdminState,
    CanaryAnswer,
    CleanupAnswer,
    DrainRequest,
    ExitRequest,
    Owner,
    RecycleAnswer,
    RecycleRequest,
    ResumeAnswer,
    ResumeRequest,
)
from sn17_contract.http import Code
from sn17_contract.worker import RecycleHow, WorkerStatus
from sn17_http import own_async_client
from sn17_service.problems import ProblemBody

from sn17_operator.core.model import CanaryResult, Pod, RecycleResult
from sn17_operator.ports import NoRoom, OtherIncarnation, Refused

log = logging.getLogger("sn17.operator")

QUICK_SECONDS = 5.0
CLEANUP_SECONDS = 60.0
CANARY_SECONDS = 140.0
CANARY_DETAILS = ("reason", "drift", "first", "same_bytes", "gaussians")
CLOCK_SECONDS = 5.0
"""What the clocks of two nodes may differ by."""

Answer = TypeVar("Answer", bound=BaseModel)


class WorkerAdmin:
    """Sends the admin token, read anew for each call so that a rotated one is picked up. It is never
    logged.
    """

    def __init__(
        self,
        token_file: Path | None,
        *,
        clock: Callable[[], float],
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._token_file = token_file
        self._clock = clock
        self._client = own_async_client(transport=transport)

    async def close(self) -> None:
        await self._client.aclose()

    async def drain(self, pod: Pod, by: Owner, reason: str, ttl_seconds: float | None) -> bool:
        asked = DrainRequest(by=by, reason=reason or "-", ttl_seconds=ttl_seconds)
        answer = await self._post(pod, "drain", asked, AdminState)
        return answer.jobs_in_flight == 0

    async def resume(self, pod: Pod, by: Owner) -> None:
        await self._post(pod, "resume", ResumeRequest(by=by), ResumeAnswer)

    async def cleanup(self, pod: Pod) -> None:
        await self._post(pod, "cleanup", None, CleanupAnswer, CLEANUP_SECONDS)

    async def canary(self, pod: Pod) -> CanaryResult:
        result = (await self._post(pod, "canary", None, CanaryAnswer, CANARY_SECONDS)).result
        if not result.ran or result.passed is None:
            return CanaryResult(self._clock(), None, (result.reason or "it did not run")[:300])
        details = result.model_dump(exclude={"ran", "passed"}, exclude_none=True)
        text = ", ".join(f"{key} {value}" for key, value in details.items() if value != ())
        return CanaryResult(self._clock(), result.passed, text[:300])

    async def exit(self, pod: Pod, boot_id: str, reason: str) -> None:
        await self._post(pod, "exit", ExitRequest(boot_id=boot_id, reason=reason), AdminState)

    async def recycle(self, pod: Pod, life_id: str, how: RecycleHow, reason: str, *, verify: bool) -> None:
        asked = RecycleRequest(life_id=life_id, how=how, reason=reason or "-", verify=verify)
        try:
            await self._post(pod, "recycle", asked, RecycleAnswer)
        except _Problem as error:
            if error.code is Code.NO_ROOM:
                raise NoRoom(str(error)) from error
            # Its own guard, or this operator before it was killed, has begun one: that one is waited for.
            if error.code is not Code.CONFLICT:
                raise

    async def recycled(self, pod: Pod, life_id: str, how: RecycleHow, since: float) -> RecycleResult | None:
        if pod.data_address is None:
            raise Refused("no_address", "the worker has no address")
        try:
            response = await self._client.get(f"{pod.data_address}/v1/worker", timeout=QUICK_SECONDS)
            status = WorkerStatus.model_validate_json(response.raise_for_status().content)
        except httpx2.HTTPError as error:
            raise Refused("unreachable", f"/v1/worker: {type(error).__name__}: {error}") from error
        except ValidationError as error:
            raise Refused("bad_answer", "/v1/worker: the answer is not a worker's") from error
        last = status.last_recycle
        if status.recycling is not None:
            if status.life_id != life_id:
                return None
            return RecycleResult(None, phase=status.phase, start_seconds=status.start_seconds)
        if last is None or last.from_life != life_id or last.how is not how:
            return None
        return RecycleResult(last.outcome, last.reason) if last.at >= since - CLOCK_SECONDS else None

    async def _post(
        self,
        pod: Pod,
        verb: str,
        body: BaseModel | None,
        wanted: type[Answer],
        timeout: float = QUICK_SECONDS,
    ) -> Answer:
        if pod.address is None:
            raise Refused("no_address", "the worker has no address")
        if self._token_file is None:
            raise Refused(
                "no_token", "set SN17_ADMIN_TOKEN_FILE: without it the workers cannot be told anything"
            )
        try:
            token = self._token_file.read_text().strip()
        except OSError as error:
            raise Refused("no_token", f"the admin token cannot be read: {error.strerror}") from error
        try:
            response = await self._client.post(
                f"{pod.address}/admin/v1/{verb}",
                json=None if body is None else body.model_dump(mode="json"),
                headers={"Authorization": f"Bearer {token}"},
                timeout=httpx2.Timeout(timeout, connect=QUICK_SECONDS),
            )
        except httpx2.TimeoutException as error:
            raise Refused("timeout", f"{verb}: no answer in {timeout:.0f} s") from error
        except httpx2.HTTPError as error:
            raise Refused("unreachable", f"{verb}: {type(error).__name__}: {error}") from error
        if response.is_success:
            try:
                return wanted.model_validate(_completed(from_json(response.content)))
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"]))
                raise Refused("bad_answer", f"{verb}: wrong answer: {where}: {first['msg']}") from error
            except ValueError as error:
                raise Refused("bad_answer", f"{verb}: the answer is not JSON") from error
        try:
            problem = ProblemBody.model_validate_json(response.content)
        except ValidationError:
            text = f"{verb}: {response.status_code} {response.reason_phrase} without a problem's code"
            raise Refused("bad_answer", text) from None
        detail = problem.detail[:300]
        if problem.code in (Code.BOOT_ID_MISMATCH, Code.LIFE_ID_MISMATCH):
            raise OtherIncarnation(detail)
        raise _Problem(problem.code, f"http_{response.status_code}", f"{verb}: {detail}")


def _completed(answer: Any) -> Any:
    """An answer of a worker from before the model was a process of its own, which says less.

    What it does not know is unknown: no field that decides anything gets a value.
    """
    if not isinstance(answer, dict):
        return answer
    completed = {"life_id": None, **answer}
    result = answer.get("result")
    if isinstance(result, dict) and "ran" in result:
        completed["result"] = {**dict.fromkeys(CANARY_DETAILS), "findings": (), **result}
    return completed


class _Problem(Refused):
    """A refusal in the worker's own words."""

    def __init__(self, code: Code, outcome: str, message: str) -> None:
        super().__init__(outcome, message)
        self.code = code
