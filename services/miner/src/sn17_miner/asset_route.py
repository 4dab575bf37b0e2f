"""``GET /v1/tasks/{n}/asset`` on the ops port: what was submitted."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import FileResponse
from sn17_contract.http import MEDIA_SPZ, Code
from sn17_service import Problem

from sn17_miner.journal.views import open_story
from sn17_miner.kept import KeptAssets
from sn17_miner.ops import MinerHandle


def asset_routes(handle: MinerHandle, kept: KeptAssets) -> APIRouter:
    """The route, for behind the admin token."""
    router = APIRouter(prefix="/v1")

    @router.get("/tasks/{n}/asset", response_class=FileResponse)
    def asset(n: int) -> FileResponse:
        handle.ready()
        task = open_story(handle.journal, n)
        if task is None:
            raise Problem(Code.NOT_FOUND, f"the journal has no task {n}; it may have been pruned")
        path = kept.path(n, task.task_id)
        if not path.is_file():
            raise Problem(Code.NOT_FOUND, why_not(n, ended=task.outcome is not None))
        return FileResponse(path, media_type=MEDIA_SPZ, filename=f"task-{n}.spz")

    return router


def why_not(n: int, *, ended: bool) -> str:
    """Why there is no asset of a task that the journal knows."""
    if not ended:
        return f"task {n} has not ended yet: its asset is kept when it has"
    return (
        f"no asset of task {n} is kept: nothing was submitted for it, or too much since "
        "(SN17_KEEP_ASSETS and SN17_KEEP_ASSETS_MAX_BYTES of the miner)"
    )
