"""The workers' admin endpoints over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from sn17_contract.http import Code

from sn17_operator.core.model import CanaryResult, Pod
from sn17_operator.ports import OtherIncarnation, Refused

log = logging.getLogger("sn17.operator")

QUICK_SECONDS = 5.0
CLEANUP_SECONDS = 60.0
CANARY_SECONDS = 140.0


class WorkerAdmin:
    """Sends the admin token, read anew for each call so that a rotated one is picked up. It is never
    logged.
    """

    def __init__(
        self,
        token_file: Path | None,
        *,
        clock: Callable[[], float],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._token_file = token_file
        self._clock = clock
        self._client = httpx.AsyncClient(transport=transport, trust_env=False)

    async def close(self) -> None:
        await self._client.aclose()

    async def drain(self, pod: Pod, by: str, reason: str, ttl_seconds: float | None) -> bool:
        answer = await self._post(
            pod, "drain", {"by": by, "reason": reason or "-", "ttl_seconds": ttl_seconds}
        )
        return answer.get("jobs_in_flight") == 0

    async def resume(self, pod: Pod, by: str) -> None:
        await self._post(pod, "resume", {"by": by})

    async def cleanup(self, pod: Pod) -> None:
        await self._post(pod, "cleanup", None, CLEANUP_SECONDS)

    async def canary(self, pod: Pod) -> CanaryResult:
        answer = await self._post(pod, "canary", None, CANARY_SECONDS)
        result = answer.get("result")
        passed = result.get("passed") if isinstance(result, dict) else None
        if not isinstance(result, dict) or not isinstance(passed, bool):
            raise Refused("bad_answer", "the worker did not say whether its canary passed")
        if result.get("ran") is False:
            return CanaryResult(self._clock(), None, str(result.get("reason") or "it did not run")[:300])
        details = {k: v for k, v in result.items() if k != "passed" and isinstance(v, str | int | float)}
        text = ", ".join(f"{key} {value}" for key, value in details.items())
        return CanaryResult(self._clock(), passed, text[:300])

    async def exit(self, pod: Pod, boot_id: str, reason: str) -> None:
        await self._post(pod, "exit", {"boot_id": boot_id, "reason": reason})

    async def _post(
        self, pod: Pod, verb: str, body: dict[str, Any] | None, timeout: float = QUICK_SECONDS
    ) -> dict[str, Any]:
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
                json=body,
                headers={"Authorization": f"Bearer {token}"},
                timeout=httpx.Timeout(timeout, connect=QUICK_SECONDS),
            )
            answer = response.json()
        except httpx.TimeoutException as error:
            raise Refused("timeout", f"{verb}: no answer in {timeout:.0f} s") from error
        except httpx.HTTPError as error:
            raise Refused("unreachable", f"{verb}: {type(error).__name__}: {error}") from error
        except ValueError as error:
            raise Refused("bad_answer", f"{verb}: the answer is not JSON") from error
        if not isinstance(answer, dict):
            raise Refused("bad_answer", f"{verb}: the answer is not an object")
        if response.is_success:
            return answer
        code, detail = answer.get("code"), str(answer.get("detail") or response.reason_phrase)[:300]
        if code == Code.BOOT_ID_MISMATCH:
            raise OtherIncarnation(detail)
        raise Refused(f"http_{response.status_code}", f"{verb}: {detail}")
