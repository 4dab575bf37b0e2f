"""The ops port: probes, metrics, admin."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from sn17_contract.admin import (
    AdminState,
    CanaryAnswer,
    Cleanup,
    CleanupAnswer,
    DrainRequest,
    ExitRequest,
    LeaseStatus,
    Lifted,
    ResumeAnswer,
    ResumeRequest,
)
from sn17_contract.http import Code, LeaseOwner
from sn17_contract.kubernetes import EXIT_CODE_RECYCLE

from sn17_service.memory import memory_status, return_heap
from sn17_service.problems import Problem
from sn17_service.state import ServiceState

MAX_OPS_BODY = 64 * 1024
OPERATOR_TTL_SECONDS = 60.0


def add_ops_routes(
    app: FastAPI,
    state: ServiceState,
    registry: CollectorRegistry,
    extra: list[APIRouter],
    admin_extra: list[APIRouter],
) -> None:
    """``/health``, ``/ready``, ``/metrics`` for everyone, ``/admin/v1`` and ``admin_extra`` by token."""

    @app.get("/health", responses={503: {"description": "Something is not alive: problems says what"}})
    async def health() -> JSONResponse:
        problems = state.health.problems()
        return JSONResponse(
            {
                "status": "unhealthy" if problems else "healthy",
                "boot_id": state.boot_id,
                "problems": problems,
            },
            503 if problems else 200,
        )

    @app.get("/ready", responses={503: {"description": "Takes no work: reasons says why"}})
    async def ready() -> JSONResponse:
        reasons = state.readiness.reasons()
        return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    def exposition(encoder: Callable[[CollectorRegistry], bytes]) -> bytes:
        with state.scrape_lock:
            return encoder(registry)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        encoder, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(exposition(encoder), headers={"content-type": media_type})

    guard = Depends(_token_check(state))
    app.include_router(_admin_router(state), dependencies=[guard])
    for router in extra:
        app.include_router(router)
    for router in admin_extra:
        app.include_router(router, dependencies=[guard])


def _admin_router(state: ServiceState) -> APIRouter:
    router = APIRouter(prefix="/admin/v1")

    def common() -> dict[str, Any]:
        leases = tuple(
            LeaseStatus(by=item.by, reason=item.reason, expires_in_seconds=state.seconds_left(item))
            for item in state.drain.leases()
        )
        return {
            "boot_id": state.boot_id,
            "life_id": state.life_id(),
            "draining": bool(leases),
            "leases": leases,
            "jobs_in_flight": state.jobs_in_flight(),
        }

    @router.post("/drain")
    async def drain(body: DrainRequest) -> AdminState:
        ttl = body.ttl_seconds
        if ttl is None and body.by is LeaseOwner.OPERATOR:
            ttl = OPERATOR_TTL_SECONDS
        known = {lease.by: lease.reason for lease in state.drain.leases()}
        state.drain.hold(body.by, body.reason, ttl)
        state.admin_called()
        if known.get(body.by) != body.reason:
            state.log.info("drained", extra={"by": body.by.value, "reason": body.reason, "ttl_seconds": ttl})
        return AdminState(**common())

    @router.post("/resume")
    async def resume(body: ResumeRequest) -> ResumeAnswer:
        lifted = state.drain.lift(body.by)
        state.admin_called()
        if lifted:
            state.log.info("resumed", extra={"by": body.by.value})
        return ResumeAnswer(**common(), result=Lifted(lifted=lifted))

    @router.post("/cleanup")
    async def cleanup() -> CleanupAnswer:
        state.admin_called()
        before = state.read_memory()
        for call in state.cleanup_calls:
            await asyncio.to_thread(call)
        await asyncio.to_thread(return_heap)
        after = state.read_memory()
        state.log.info(
            "cleaned up",
            extra={
                "before_bytes": before.unreclaimable if before else None,
                "after_bytes": after.unreclaimable if after else None,
            },
        )
        result = Cleanup(before=memory_status(before), after=memory_status(after))
        return CleanupAnswer(**common(), result=result)

    @router.post("/canary")
    async def canary() -> CanaryAnswer:
        state.admin_called()
        if state.canary_call is None:
            raise Problem(Code.NOT_FOUND, f"{state.name} has no canary")
        result = await asyncio.to_thread(state.canary_call)
        return CanaryAnswer(**common(), result=result)

    @router.post("/exit", status_code=202)
    async def leave(body: ExitRequest) -> AdminState:
        state.admin_called()
        if not hmac.compare_digest(body.boot_id.encode(), state.boot_id.encode()):
            raise Problem(
                Code.BOOT_ID_MISMATCH,
                f"this is incarnation {state.boot_id}; the one you mean is gone already",
            )
        for call in state.exit_calls:
            call(body.reason)
        state.stop(EXIT_CODE_RECYCLE, body.reason)
        return AdminState(**common())

    return router


def _token_check(state: ServiceState) -> Callable[[Request], None]:
    def check(request: Annotated[Request, "the request"]) -> None:
        path = state.settings.admin_token_file
        if path is None:
            raise Problem(Code.FORBIDDEN, "admin routes are off: set SN17_ADMIN_TOKEN_FILE")
        try:
            token = path.read_bytes().strip()
        except OSError as error:
            state.log.error("cannot read the admin token: %s", error.strerror)
            token = b""
        if not token:
            raise Problem(
                Code.FORBIDDEN,
                "admin routes are off: the file of SN17_ADMIN_TOKEN_FILE is unreadable or empty",
            )
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token):
            raise Problem(
                Code.UNAUTHORIZED,
                "send the admin token as 'Authorization: Bearer ...'",
                headers={"www-authenticate": "Bearer"},
            )

    return check
