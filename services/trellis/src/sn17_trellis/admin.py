"""The worker's own admin route: recycle the model process."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from sn17_contract.admin import RecycleAnswer, RecycleRequest
from sn17_service import Service

from sn17_trellis.worker import Worker


def recycle_router(service: Service, worker: Worker) -> APIRouter:
    """``POST /admin/v1/recycle``; the ops port asks for the token."""
    router = APIRouter(prefix="/admin/v1")

    @router.post("/recycle", status_code=202)
    async def recycle(body: RecycleRequest) -> RecycleAnswer:
        service.admin_called()
        await asyncio.to_thread(worker.lives.recycle, body.life_id, body.how, body.reason, verify=body.verify)
        service.log.info(
            "recycle begins",
            extra={"how": body.how.value, "reason": body.reason, "life_id": body.life_id},
        )
        return RecycleAnswer(boot_id=service.boot_id, life_id=body.life_id, how=body.how, state=worker.state)

    return router
