"""The OpenAPI description of routes whose bodies are read by hand."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel
from sn17_contract.gateway import (
    HEADER_KEY,
    AddTaskBody,
    GetTasksBody,
    Leader,
    Load,
    Offers,
    Route,
    StatusBody,
    TaskId,
)
from sn17_contract.http import HEADER_IDEMPOTENCY_KEY, IDEMPOTENCY_KEY

from sn17_gateway.http.result_form import ASSET, LIMITS, REQUIRED
from sn17_gateway.http.task_form import PART_LIMITS

_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_TEXT: Final = {"text/plain": {"schema": {"type": "string"}}}
_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"anyOf": [{"type": "string"}, {"type": "object"}]},
        "field": {"type": "string"},
        "message": {"type": "string"},
    },
}
_KEY: Final = {
    "name": HEADER_KEY, "in": "header", "required": True, "schema": {"type": "string", "format": "uuid"},
}  # fmt: skip
_REPEAT: Final = {
    "name": HEADER_IDEMPOTENCY_KEY, "in": "header", "required": False,
    "schema": {"type": "string", "pattern": f"^{IDEMPOTENCY_KEY}$"},
}  # fmt: skip
_ID: Final = {"name": "id", "in": "query", "required": True, "schema": {"type": "string", "format": "uuid"}}


def _route(
    summary: str,
    answer: type[BaseModel] | dict[str, Any],
    errors: tuple[int, ...],
    *,
    parameters: tuple[dict[str, Any], ...] = (),
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    content = (
        answer if isinstance(answer, dict) else {"application/json": {"schema": answer.model_json_schema()}}
    )
    extra: dict[str, Any] = {"parameters": list(parameters)}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": body}
    refusals = {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {
                **_TEXT,
                "application/json": {"schema": _ERROR},
                "text/html": {"schema": {"type": "string"}},
            },
        }
        for status in errors
    }
    return {
        "summary": summary,
        "responses": {200: {"description": "Done", "content": content}, **refusals},
        "openapi_extra": extra,
    }


def _query(name: str, values: list[str]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": {"type": "string", "enum": values}}


def _form(required: Iterable[str], texts: Iterable[str], file: str) -> dict[str, Any]:
    properties = {
        **{name: {"type": "string"} for name in texts},
        file: {"type": "string", "format": "binary"},
    }
    return {"schema": {"type": "object", "required": list(required), "properties": properties}}


ROUTES: Final[dict[Route, dict[str, Any]]] = {
    Route.ADD_TASK: _route(
        "Take in a prompt or a picture", TaskId, (400, 401, 409, 429, 503), parameters=(_KEY, _REPEAT),
        body={
            "application/json": {"schema": AddTaskBody.model_json_schema()},
            "multipart/form-data": _form((), ("prompt", *PART_LIMITS), "image"),
        },
    ),
    Route.GET_STATUS: _route(
        "The state of a task", StatusBody, (400, 401, 429, 503),
        parameters=(_ID, {**_KEY, "required": False}),
    ),
    Route.GET_RESULT: _route(
        "The result as SPZ, PLY or GLB, or all results as a zip",
        {"application/octet-stream": _BINARY, "model/gltf-binary": _BINARY, "application/zip": _BINARY},
        (400, 401, 404, 429, 500, 503),
        parameters=(
            _KEY, _ID, _query("compress", ["0", "1", "true", "false", "yes", "no", "on", "off"]),
            _query("format", ["ply", "spz"]), _query("all", ["true", "false"]),
        ),
    ),
    Route.GET_TASKS: _route(
        "Tasks for a worker", Offers, (400, 401, 429, 503),
        body={"application/json": {"schema": GetTasksBody.model_json_schema()}},
    ),
    Route.ADD_RESULT: _route(
        "Take in a worker's result", _TEXT, (400, 401, 410, 429, 503),
        body={
            "multipart/form-data": _form(REQUIRED, LIMITS, ASSET)
        },
    ),
    Route.GET_LOAD: _route("The nodes", Load, (429,)),
    Route.GET_LEADER: _route("The first node", Leader, (429,)),
    Route.ID: _route("The node's number", _TEXT, (429,)),
}  # fmt: skip
