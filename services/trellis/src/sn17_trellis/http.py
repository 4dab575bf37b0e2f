"""Routes of the data port."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from prometheus_client import Counter
from pydantic import BaseModel
from sn17_contract.http import (
    HEADER_GAUSSIANS,
    HEADER_IDEMPOTENCY_KEY,
    HEADER_LANE,
    HEADER_PROMPT_TOKENS_CUT,
    HEADER_SEED,
    HEADER_WORKER,
    IDEMPOTENCY_KEY,
    MEDIA_PLY,
    Code,
)
from sn17_contract.leave_alone import HEADER_LEAVE_ALONE
from sn17_contract.metrics import Metric
from sn17_contract.worker import JobStatus, WorkerStatus, WorkerVersion
from sn17_service import Problem, Service, memory_status

from sn17_trellis.faults import AnswerFaults
from sn17_trellis.generate_form import FORM_OVERHEAD_BYTES, CheckedRequest, GenerateForm, job_of, read_form
from sn17_trellis.jobs import Running, fingerprint
from sn17_trellis.prompt_tokens import CountCut, count_cut_of
from sn17_trellis.settings import Faults, WorkerSettings
from sn17_trellis.spool import StoredResult
from sn17_trellis.worker import Worker

CHUNK_BYTES: Final = 256 * 1024
MAX_FORMS: Final = 8
CALLER_GONE: Final = 499
"""Status for the log only: nobody is there to read it."""
MEDIA_BYTES: Final = "application/octet-stream"
KEY: Final = re.compile(IDEMPOTENCY_KEY)
GENERATE: Final = ("/generate", "/generate/")


class JobAnswer(BaseModel):
    """``DELETE /v1/jobs/{key}``."""

    key: str
    result: str


@dataclass(slots=True)
class _DataPort:
    service: Service
    settings: WorkerSettings
    worker: Worker
    faults: AnswerFaults
    decoding: asyncio.Lock
    count_cut: CountCut
    tokens_cut: Counter
    forms: int = 0
    """Forms being read or decoded."""


def build_app(
    service: Service, settings: WorkerSettings, worker: Worker, *, driver: str | None = None
) -> FastAPI:
    """The data port's application. ``driver`` is the version of the GPU's, None without one."""
    app = service.new_app("sn17 TRELLIS worker", settings.max_image_bytes + FORM_OVERHEAD_BYTES)
    tokens_cut = Counter(
        Metric.PROMPT_TOKENS_CUT,
        "Tokens of prompts that the text model did not read.",
        registry=service.registry,
    )
    port = _DataPort(
        service,
        settings,
        worker,
        AnswerFaults(settings.faults),
        asyncio.Lock(),
        count_cut_of(settings),
        tokens_cut,
    )

    async def generate(request: Request) -> Response:
        return await _generate(port, request)

    for path in GENERATE:
        app.add_api_route(
            path,
            generate,
            methods=["POST"],
            response_class=Response,
            include_in_schema=path == GENERATE[0],
            summary="Prompt or picture to a gaussian splat as PLY",
            responses=_GENERATE_RESPONSES,
            openapi_extra=_GENERATE_REQUEST,
        )

    @app.get("/health", summary="Alive as soon as the server listens")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    @app.get("/version", summary="What makes the assets: versions, device, digests of the weights")
    async def version() -> WorkerVersion:
        return WorkerVersion(
            service=service.name,
            version=service.version,
            backend=settings.backend,
            models=worker.models,
            faults=settings.faults != Faults(),
            identity=worker.backend.identity,
            driver=driver,
        )

    @app.get("/v1/worker", summary="What the worker is doing and whether it takes work")
    async def state(request: Request) -> WorkerStatus:
        worker.left_alone.heard(request.headers.get(HEADER_LEAVE_ALONE))
        return _state(port)

    @app.delete("/v1/jobs/{key:path}", summary="Cancel a job, or drop its kept result")
    async def cancel(key: str) -> JobAnswer:
        result = worker.cancel(key)
        if result is None:
            raise Problem(Code.NOT_FOUND, "no job and no kept result has this key")
        return JobAnswer(key=key, result=result)

    return app


def _state(port: _DataPort) -> WorkerStatus:
    worker = port.worker
    refusal = worker.refusal()
    active = worker.active
    reason = refusal.detail if refusal is not None and refusal.code is not Code.BUSY else worker.degraded
    job = None
    if active is not None:
        job = JobStatus(
            key=active.key,
            stage=active.stage,
            step=active.step,
            steps=active.steps,
            progress_at=active.progress_at,
        )
    return WorkerStatus(
        worker=port.settings.worker_name,
        version=port.service.version,
        boot_id=port.service.boot_id,
        life_id=worker.lives.life_id,
        state=worker.state,
        reason=reason,
        job=job,
        memory=memory_status(port.service.read_memory()),
        models=worker.models,
        gaussians_mean=worker.recent.read().gaussians_mean,
        model_processes=worker.lives.processes,
        recycling=worker.lives.recycling,
        phase=worker.lives.phase,
        start_seconds=worker.lives.start_seconds,
        last_recycle=worker.lives.last_recycle,
    )


async def _generate(port: _DataPort, request: Request) -> Response:
    key = _key(request)
    if key is None or port.worker.find(key) is None:
        _refuse_early(port)
    checked = await _read_form(port, request)
    asked = fingerprint(checked.job, seed=checked.asked_seed)
    found = port.worker.find(key) if key is not None else None
    if found is not None and found.fingerprint != asked:
        raise Problem(
            Code.CONFLICT, f"this {HEADER_IDEMPOTENCY_KEY} belongs to another request; use a new key"
        )
    cut = None if checked.job.prompt is None else port.count_cut(checked.job.prompt)
    if isinstance(found, StoredResult):
        return _told(await _answer(port, found, request), cut)
    running = found
    if running is None:
        running = Running(checked.job, asked, port.service.clock(), key)
        port.worker.submit(running)
        _count(port, cut)
    stored = await _outcome(running, request)
    if stored is None:
        return Response(status_code=CALLER_GONE)
    return _told(await _answer(port, stored, request), cut)


def _count(port: _DataPort, cut: int | None) -> None:
    if cut:
        port.tokens_cut.inc(cut)
        port.service.log.warning(
            "the prompt is longer than the text model reads; its end is ignored", extra={"tokens_cut": cut}
        )


def _told(answer: Response, cut: int | None) -> Response:
    """Without a count there is no header: not counted is not zero."""
    if cut is not None:
        answer.headers[HEADER_PROMPT_TOKENS_CUT] = str(cut)
    return answer


async def _read_form(port: _DataPort, request: Request) -> CheckedRequest:
    """Read and check the form: a few at a time, and one decoded picture at a time, to bound memory.

    Raises:
        Problem: too many callers are sending forms, or this one is bad.
    """
    if port.forms >= MAX_FORMS:
        raise Problem(Code.OVERLOADED, "too many requests at once; use another worker", retry_after_seconds=1)
    port.forms += 1
    try:
        form, picture = await read_form(request, port.settings)
        async with port.decoding:
            return await asyncio.to_thread(job_of, form, picture, port.settings)
    finally:
        port.forms -= 1


def _refuse_early(port: _DataPort) -> None:
    """Before the body is read: a busy worker must not be kept busy with uploads."""
    refusal = port.worker.refusal()
    if refusal is not None:
        raise refusal


async def _outcome(running: Running, request: Request) -> StoredResult | None:
    """Wait for the job; None if the caller went away first, which cancels a job without a key.

    Raises:
        Problem: the job failed.
    """
    done = asyncio.shield(asyncio.wrap_future(running.done))
    gone = asyncio.ensure_future(_disconnected(request))
    ends: set[asyncio.Future[Any]] = {done, gone}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if done.done():
            return done.result()
        if running.key is None:
            running.cancel.set()
            running.done.add_done_callback(_discard)
        return None
    finally:
        gone.cancel()
        done.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _discard(done: Any) -> None:
    """Nobody will fetch the result of a job that finished although its caller had gone."""
    if not done.cancelled() and done.exception() is None:
        done.result().discard()


async def _answer(port: _DataPort, stored: StoredResult, request: Request) -> Response:
    try:
        file = await asyncio.to_thread(stored.path.open, "rb")
    except OSError as error:
        raise Problem(Code.NOT_FOUND, "the result is gone; send the request again") from error
    stored.discard()
    accepts = request.headers.get("accept", "")
    headers = {
        "content-length": str(stored.size),
        HEADER_SEED: str(stored.seed),
        HEADER_GAUSSIANS: str(stored.gaussians),
        HEADER_LANE: stored.lane,
        HEADER_WORKER: port.settings.worker_name,
    }
    return StreamingResponse(
        _pieces(file, stored.size, port.faults.next()),
        media_type=MEDIA_PLY if MEDIA_PLY in accepts else MEDIA_BYTES,
        headers=headers,
    )


async def _pieces(file: BinaryIO, size: int, fault: str | None) -> AsyncIterator[bytes]:
    sent = 0
    with file:
        while piece := await asyncio.to_thread(file.read, CHUNK_BYTES):
            if fault == "garbage":
                piece = bytes(byte ^ 0x5A for byte in piece[:64]) + piece[64:][::-1]
            elif fault == "half" and sent + len(piece) > size // 2:
                yield piece[: max(0, size // 2 - sent)]
                raise ConnectionAbortedError("injected: the answer ends half way")
            sent += len(piece)
            yield piece


def _key(request: Request) -> str | None:
    key = request.headers.get(HEADER_IDEMPOTENCY_KEY)
    if key is not None and not KEY.fullmatch(key):
        raise Problem(
            Code.BAD_REQUEST, f"{HEADER_IDEMPOTENCY_KEY} must be 1 to 200 printable characters without spaces"
        )
    return key


def _form_schema(*, picture: bool) -> dict[str, Any]:
    schema = GenerateForm.model_json_schema()
    schema["properties"]["prompt"] = {"type": "string", "minLength": 1, "description": "text prompt"}
    if not picture:
        return {**schema, "required": ["prompt"]}
    schema["properties"]["prompt_image_file"] = {
        "type": "string",
        "format": "binary",
        "description": "PNG, JPEG or WebP",
    }
    return {**schema, "oneOf": [{"required": ["prompt"]}, {"required": ["prompt_image_file"]}]}


_GENERATE_REQUEST: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _form_schema(picture=True)},
            "application/x-www-form-urlencoded": {"schema": _form_schema(picture=False)},
        },
    },
    "parameters": [
        {
            "name": HEADER_IDEMPOTENCY_KEY,
            "in": "header",
            "required": False,
            "schema": {"type": "string", "pattern": "^[!-~]{1,200}$"},
            "description": "<task id>/<attempt>: a disconnect does not cancel, the result is kept",
        }
    ],
}

_GENERATE_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "binary little-endian PLY, y up",
        "content": {
            MEDIA_BYTES: {"schema": {"type": "string", "format": "binary"}},
            MEDIA_PLY: {"schema": {"type": "string", "format": "binary"}},
        },
        "headers": {
            HEADER_SEED: {"schema": {"type": "integer"}},
            HEADER_GAUSSIANS: {"schema": {"type": "integer"}},
            HEADER_PROMPT_TOKENS_CUT: {"schema": {"type": "integer"}},
            HEADER_LANE: {"schema": {"enum": ["exact", "fast"]}},
            HEADER_WORKER: {"schema": {"type": "string"}},
        },
    }
}
