"""The data port: routes, their documentation and their errors."""

from __future__ import annotations

import logging
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from sn17_contract.gateway import Route
from sn17_contract.http import Code
from sn17_page import page_router

from sn17_gateway.gateway import Gateway
from sn17_gateway.http import schema
from sn17_gateway.http.address import TolerantPaths
from sn17_gateway.http.client_api import ClientApi
from sn17_gateway.http.errors import Refusal, install_errors
from sn17_gateway.http.guard import Guard
from sn17_gateway.http.page import page_of
from sn17_gateway.http.worker_api import WorkerApi
from sn17_gateway.storage.database import StorageError

#: Each route has its own, smaller limit, and answers as 404's clients know it.
_NO_LIMIT: Final = 2**60


def build_app(gateway: Gateway) -> FastAPI:
    """The application of the data port."""
    app = gateway.service.new_app("sn17 gateway", _NO_LIMIT, probes=True)
    install_errors(app, gateway.metrics.refused)
    # Every malformed form is counted as a refusal; a line for each would let clients fill the log.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)

    async def storage_failed(request: Request, error: Exception) -> Response:
        gateway.trouble.failed(error)
        request.scope["sn17.code"] = Code.OVERLOADED
        gateway.metrics.refused(request.scope["path"], 503)
        return Refusal(503, "the storage does not answer; try again").response()

    for kind in (StorageError, OSError):
        app.add_exception_handler(kind, storage_failed)
    guard = Guard(gateway)
    clients, workers = ClientApi(gateway, guard), WorkerApi(gateway, guard)
    routes: tuple[tuple[str, Route, Any], ...] = (
        ("POST", Route.ADD_TASK, clients.add_task),
        ("GET", Route.GET_STATUS, clients.get_status),
        ("GET", Route.GET_RESULT, clients.get_result),
        ("POST", Route.GET_TASKS, workers.get_tasks),
        ("POST", Route.ADD_RESULT, workers.add_result),
        ("GET", Route.GET_LOAD, workers.get_load),
        ("GET", Route.GET_LEADER, workers.get_leader),
        ("GET", Route.ID, workers.node_id),
    )
    for method, path, handler in routes:
        app.api_route(path.value, methods=[method], response_class=Response, **schema.ROUTES[path])(handler)
    app.get("/health", summary="Whether the process serves", response_class=JSONResponse)(_health)
    if gateway.settings.page:
        app.include_router(page_router(page_of(gateway, guard)))
    app.add_middleware(TolerantPaths)
    return app


async def _health() -> dict[str, str]:
    """The process serves."""
    return {"status": "healthy"}
