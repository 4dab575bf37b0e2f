"""The ops port: probes, metrics, admin."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
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

if TYPE_CHECKING:
    from sn17_service.service import Service

MAX_OPS_BODY = 64 * 1024
OPERATOR_TTL_SECONDS = 60.0


def build_ops_app(service: Service, extra: list[APIRouter], admin_extra: list[APIRouter]) -> FastAPI:
    """``/health``, ``/ready``, ``/metrics`` for everyone, ``/admin/v1`` and ``admin_extra`` by token."""
    app = service.new_app(f"{service.name} ops", MAX_OPS_BODY, probes=True)

    @app.get("/health", responses={503: {"description": "Something is not alive: problems says what"}})
    async def health() -> JSONResponse:
        problems = service.health.problems()
        return JSONResponse(
            {
                "status": "unhealthy" if problems else "healthy",
                "boot_id": service.boot_id,
                "problems": problems,
            },
            503 if problems else 200,
        )

    @app.get("/ready", responses={503: {"description": "Takes no work: reasons says why"}})
    async def ready() -> JSONResponse:
        reasons = service.readiness.reasons()
        return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        encoder, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(service.registry), headers={"content-type": media_type})

    guard = Depends(_token_check(service))
    app.include_router(_admin_router(service), dependencies=[guard])
    for router in extra:
        app.include_router(router)
    for router in admin_extra:
        app.include_router(router, dependencies=[guard])
    return app


def _admin_router(service: Service) -> APIRouter:
    router = APIRouter(prefix="/admin/v1")

    def state() -> dict[str, Any]:
        leases = tuple(
            LeaseStatus(by=item.by, reason=item.reason, expires_in_seconds=service.seconds_left(item))
            for item in service.drain.leases()
        )
        return {
            "boot_id": service.boot_id,
            "life_id": service.life_id(),
            "draining": bool(leases),
            "leases": leases,
            "jobs_in_flight": service.jobs_in_flight(),
        }

    @router.post("/drain")
    async def drain(body: DrainRequest) -> AdminState:
        ttl = body.ttl_seconds
        if ttl is None and body.by is LeaseOwner.OPERATOR:
            ttl = OPERATOR_TTL_SECONDS
        known = {lease.by: lease.reason for lease in service.drain.leases()}
        service.drain.hold(body.by, body.reason, ttl)
        service.admin_called()
        if known.get(body.by) != body.reason:
            service.log.info(
                "drained", extra={"by": body.by.value, "reason": body.reason, "ttl_seconds": ttl}
            )
        return AdminState(**state())

    @router.post("/resume")
    async def resume(body: ResumeRequest) -> ResumeAnswer:
        lifted = service.drain.lift(body.by)
        service.admin_called()
        if lifted:
            service.log.info("resumed", extra={"by": body.by.value})
        return ResumeAnswer(**state(), result=Lifted(lifted=lifted))

    @router.post("/cleanup")
    async def cleanup() -> CleanupAnswer:
        service.admin_called()
        before = service.read_memory()
        for call in service.cleanup_calls:
            await asyncio.to_thread(call)
        await asyncio.to_thread(return_heap)
        after = service.read_memory()
        service.log.info(
            "cleaned up",
            extra={
                "before_bytes": before.unreclaimable if before else None,
                "after_bytes": after.unreclaimable if after else None,
            },
        )
        result = Cleanup(before=memory_status(before), after=memory_status(after))
        return CleanupAnswer(**state(), result=result)

    @router.post("/canary")
    async def canary() -> CanaryAnswer:
        service.admin_called()
        if service.canary_call is None:
            raise Problem(Code.NOT_FOUND, f"{service.name} has no canary")
        result = await asyncio.to_thread(service.canary_call)
        return CanaryAnswer(**state(), result=result)

    @router.post("/exit", status_code=202)
    async def leave(body: ExitRequest) -> AdminState:
        service.admin_called()
        if not hmac.compare_digest(body.boot_id.encode(), service.boot_id.encode()):
            raise Problem(
                Code.BOOT_ID_MISMATCH,
                f"this is incarnation {service.boot_id}; the one you mean is gone already",
            )
        for call in service.exit_calls:
            call(body.reason)
        service.stop(EXIT_CODE_RECYCLE, body.reason)
        return AdminState(**state())

    return router


def _token_check(service: Service) -> Callable[[Request], None]:
    def check(request: Annotated[Request, "the request"]) -> None:
        path = service.settings.admin_token_file
        if path is None:
            raise Problem(Code.FORBIDDEN, "admin routes are off: set SN17_ADMIN_TOKEN_FILE")
        try:
            token = path.read_bytes().strip()
        except OSError as error:
            service.log.error("can not read the admin token: %s", error.strerror)
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
