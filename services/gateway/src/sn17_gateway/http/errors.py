"""Error answers as 404's clients and workers know them, with ``Retry-After`` where repeating helps."""

from __future__ import annotations

import html
import json
import math
import re
import uuid
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError
from sn17_contract.http import Code
from sn17_service.bodies import BodyError
from starlette.exceptions import HTTPException

_PREFIX: Final = {400: "Bad request: ", 401: "Unauthorized request: ", 503: "Service unavailable: "}
_CODES: Final = {
    400: Code.BAD_REQUEST, 401: Code.UNAUTHORIZED, 404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED,
    409: Code.CONFLICT, 410: Code.GONE, 429: Code.RATE_LIMITED, 503: Code.OVERLOADED,
}  # fmt: skip
_RETRY_SECONDS: Final = 5.0
_JSON: Final = "application/json; charset=utf-8"
_UUID: Final = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Refusal(Exception):  # noqa: N818 (an answer, not a failure)
    """An answer that refuses: text where ``content`` is a sentence, JSON where it is fields.

    Answers 429 and 503 say when to come again.
    """

    def __init__(
        self, status: int, content: str | Mapping[str, Any], *, retry_after: float | None = None
    ) -> None:
        super().__init__(str(content))
        self.status = status
        self.content = content
        self.retry_after = retry_after

    def response(self) -> Response:
        headers = {}
        if self.status in (429, 503):
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after or _RETRY_SECONDS)))
        if isinstance(self.content, str):
            text = _PREFIX.get(self.status, "") + self.content
            return Response(text, self.status, headers, media_type="text/plain")
        body = json.dumps(self.content, ensure_ascii=False)
        return Response(body, self.status, headers, media_type=_JSON)


def json_answer(body: BaseModel) -> Response:
    """200; absent fields are left out."""
    return Response(body.model_dump_json(exclude_none=True), media_type=_JSON)


def bad_request(message: str) -> Refusal:
    return Refusal(400, message)


def bad_field(field: str, message: str) -> Refusal:
    return Refusal(400, {"error": "invalid_field", "field": field, "message": message})


def limited(error: str, message: str, retry_after: float) -> Refusal:
    """429 with a code."""
    return Refusal(429, {"error": error, "message": message}, retry_after=retry_after)


class TooManyRequests(HTTPException):
    """429 of a limit by address and minute."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(429, "Too many requests", {"retry-after": str(max(1, math.ceil(retry_after)))})


def install_errors(app: FastAPI, count: Callable[[str, int], None]) -> None:
    """Answers of handlers keep their form; those that no handler made follow the client's Accept.

    ``count`` is told of each, with path and status.
    """

    async def refuse(request: Request, error: Exception) -> Response:
        if isinstance(error, BodyError):
            error = bad_request(str(error))
        if not isinstance(error, Refusal):
            raise error
        request.scope["sn17.code"] = _CODES.get(error.status, Code.INTERNAL)
        count(request.scope["path"], error.status)
        return error.response()

    async def general(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        # The root is known for its 405: health checks of load balancers rely on it.
        status = 405 if error.status_code == 404 and request.url.path == "/" else error.status_code
        request.scope["sn17.code"] = _CODES.get(status, Code.BAD_REQUEST)
        count(request.scope["path"], status)
        return general_answer(status, request.headers.get("accept", ""), error.headers)

    app.add_exception_handler(Refusal, refuse)
    app.add_exception_handler(BodyError, refuse)
    app.add_exception_handler(HTTPException, general)


def general_answer(status: int, accept: str, headers: Mapping[str, str] | None = None) -> Response:
    """404, 405 or 429 as JSON where the client prefers it, else as a page."""
    known = HTTPStatus(status)
    name, brief = known.phrase, known.description or known.phrase
    if "application/json" in accept.lower():
        body = json.dumps({"error": {"code": status, "name": name, "brief": brief}})
        return Response(body, status, dict(headers or {}), media_type=_JSON)
    page = (
        f"<!DOCTYPE html><html><head><title>{status}: {html.escape(name)}</title></head>"
        f"<body><h1>{status}: {html.escape(name)}</h1><p>{html.escape(brief)}</p></body></html>"
    )
    return Response(page, status, dict(headers or {}), media_type="text/html")


def mistake(error: ValidationError) -> str:
    """Field and mistake, never the value."""
    item = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in item["loc"])[:100]
    return f"{place}: {item['msg']}"[:300] if place else item["msg"][:300]


def parse_uuid(text: str, name: str) -> str:
    """The usual spelling of a UUID. Raises Refusal."""
    if not _UUID.fullmatch(text):
        raise bad_request(f"deserialize error: {name} must be a UUID")
    return str(uuid.UUID(text))
