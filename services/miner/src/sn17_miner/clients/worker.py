"""Calls to TRELLIS workers: what they say of themselves, and generations streamed to the spool."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Final
from urllib.parse import quote

import aiohttp
from pydantic import ValidationError
from sn17_contract.http import (
    HEADER_GAUSSIANS,
    HEADER_IDEMPOTENCY_KEY,
    HEADER_LANE,
    HEADER_SEED,
    Code,
    WorkerState,
)
from sn17_contract.tasks import Lane
from sn17_contract.worker import WorkerStatus
from sn17_service.problems import ProblemBody

from sn17_miner.clients.web import read_bounded, short, within, write_part

_SMALL: Final = 1 << 20
_STATES: Final = {
    Code.BUSY: WorkerState.BUSY,
    Code.DRAINING: WorkerState.DRAINING,
    Code.WARMING_UP: WorkerState.WARMING,
    Code.MEMORY_REFUSED: WorkerState.REFUSING,
    Code.DEGRADED: WorkerState.DEGRADED,
}


class WorkerError(Exception):
    """A generation that brought nothing."""


class WorkerRefusedError(WorkerError):
    """503: it did not start. ``state`` where the code names one; else leave it alone for a while."""

    def __init__(self, code: str, detail: str, state: WorkerState | None, retry_after: float | None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.state = state
        self.retry_after = retry_after


class SeedFailedError(WorkerError):
    """This seed gives nothing (an empty structure); another may."""


class PromptRefusedError(WorkerError):
    """No worker will ever take this prompt."""


class WorkerLostError(WorkerError):
    """The connection broke or the answer was incomplete: the job may still be running."""


class WorkerBrokenError(WorkerError):
    """It answered, but with what is no splat, or with an error of its own."""


@dataclass(frozen=True, slots=True)
class Generated:
    """What came back; the bytes are in the file that was given."""

    bytes: int
    seed: str | None
    gaussians: int | None
    lane: Lane = Lane.EXACT
    """As the worker says."""


@dataclass(frozen=True, slots=True)
class JobInput:
    """A text prompt, or the bytes of an image file."""

    key: str
    seed: int
    prompt: str | None = None
    image: bytes | None = None
    lane: Lane = Lane.EXACT


class WorkerClient:
    """Talks to every worker. ``max_bytes`` bounds a splat; ``poll_headers`` go with each status poll."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        timeout: float,
        poll_timeout: float,
        max_bytes: int,
        poll_headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._session = session
        self._timeout = timeout
        self._poll_timeout = poll_timeout
        self._max_bytes = max_bytes
        self._poll_headers = poll_headers

    async def status(self, url: str) -> WorkerStatus:
        """Ask ``GET /v1/worker``. Raises WorkerLostError with the reason."""
        try:
            async with self._session.get(
                f"{url}/v1/worker",
                headers=self._poll_headers(),
                timeout=within(self._poll_timeout),
                allow_redirects=False,
            ) as response:
                body = await read_bounded(response, _SMALL)
                if response.status != 200:
                    raise WorkerLostError(f"GET /v1/worker answered {response.status}")
                return WorkerStatus.model_validate_json(body)
        except ValidationError as error:
            raise WorkerLostError(f"GET /v1/worker: {error.error_count()} errors in the answer") from error
        except TimeoutError as error:
            raise WorkerLostError(f"no answer within {self._poll_timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise WorkerLostError(short(error)) from error

    async def generate(self, url: str, job: JobInput, file: IO[bytes]) -> Generated:
        """Run a job, or join the one with the same key, and write the PLY to ``file``.

        Raises a subclass of WorkerError.
        """
        form = aiohttp.FormData()
        form.add_field("seed", str(job.seed))
        if job.lane is Lane.FAST:
            form.add_field("lane", job.lane.value)
        if job.image is not None:
            form.add_field(
                "prompt_image_file", job.image, filename="prompt", content_type="application/octet-stream"
            )
        else:
            form.add_field("prompt", job.prompt or "")
        try:
            async with self._session.post(
                f"{url}/generate",
                data=form,
                headers={HEADER_IDEMPOTENCY_KEY: job.key},
                timeout=within(self._timeout),
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    raise _refusal(response.status, await read_bounded(response, _SMALL))
                return await self._stream(response, file)
        except TimeoutError as error:
            raise WorkerLostError(f"no answer within {self._timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise WorkerLostError(short(error)) from error

    async def _stream(self, response: aiohttp.ClientResponse, file: IO[bytes]) -> Generated:
        size, start = 0, b""
        async for part in response.content.iter_chunked(1 << 18):
            if size < 4:
                start += part[:4]
            size += len(part)
            if size > self._max_bytes:
                raise WorkerBrokenError(f"the splat is larger than {self._max_bytes} bytes")
            write_part(file, part)
        if not start.startswith(b"ply\n"):
            raise WorkerBrokenError("the answer is no PLY file")
        declared = response.headers.get("Content-Length")
        if declared is not None and declared.isdecimal() and int(declared) != size:
            raise WorkerLostError(f"{size} of {declared} bytes came")
        gaussians = response.headers.get(HEADER_GAUSSIANS, "")
        return Generated(
            size,
            response.headers.get(HEADER_SEED),
            int(gaussians) if gaussians.isdecimal() else None,
            Lane.FAST if response.headers.get(HEADER_LANE) == Lane.FAST else Lane.EXACT,
        )

    async def cancel(self, url: str, key: str) -> None:
        """Ask it to stop a job that nobody waits for; if it cannot be reached it does not matter."""
        with contextlib.suppress(aiohttp.ClientError, OSError, asyncio.TimeoutError):
            async with self._session.delete(
                f"{url}/v1/jobs/{quote(key)}", timeout=within(self._poll_timeout), allow_redirects=False
            ):
                pass


def _refusal(status: int, body: bytes) -> WorkerError:
    try:
        problem = ProblemBody.model_validate_json(body)
        code, detail, retry_after = problem.code.value, problem.detail[:300], problem.retry_after_seconds
    except ValidationError:
        code, detail, retry_after = f"http_{status}", body[:200].decode(errors="replace"), None
    text = f"{code}: {detail}"
    if code in (Code.EMPTY_STRUCTURE, Code.STRUCTURE_TOO_LARGE):
        return SeedFailedError(text)
    if code in (Code.BAD_PROMPT, Code.BAD_IMAGE, Code.BAD_REQUEST, Code.TOO_LARGE) or status in (
        400,
        413,
        422,
    ):
        return PromptRefusedError(text)
    if status == 503:
        state = _STATES.get(Code(code)) if code in set(Code) else None
        return WorkerRefusedError(code, detail, state, retry_after)
    return WorkerBrokenError(text)
