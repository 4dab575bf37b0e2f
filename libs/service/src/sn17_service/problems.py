"""Errors as ``application/problem+json``: a code for machines, a sentence for people."""

from __future__ import annotations

import json
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sn17_contract.http import HEADER_REQUEST_ID, MEDIA_PROBLEM, Code
from starlette.exceptions import HTTPException

from sn17_service.logs import request_id

STATUS: Final[dict[Code, int]] = {
    Code.BUSY: 503,
    Code.DRAINING: 503,
    Code.WARMING_UP: 503,
    Code.MEMORY_REFUSED: 503,
    Code.DEGRADED: 503,
    Code.OVERLOADED: 503,
    Code.GPU_OUT_OF_MEMORY: 503,
    Code.JOB_KILLED_MODEL: 503,
    Code.EMPTY_STRUCTURE: 422,
    Code.STRUCTURE_TOO_LARGE: 422,
    Code.BAD_PROMPT: 422,
    Code.BAD_IMAGE: 422,
    Code.BAD_SPLAT: 422,
    Code.BAD_REQUEST: 422,
    Code.TOO_LARGE: 413,
    Code.UNAUTHORIZED: 401,
    Code.FORBIDDEN: 403,
    Code.BOOT_ID_MISMATCH: 409,
    Code.LIFE_ID_MISMATCH: 409,
    Code.NO_ROOM: 409,
    Code.DEVICE_BUSY: 409,
    Code.CONFLICT: 409,
    Code.GONE: 410,
    Code.RATE_LIMITED: 429,
    Code.NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.TIMEOUT: 408,
    Code.INTERNAL: 500,
}

_CODE_OF_STATUS: Final = {
    400: Code.BAD_REQUEST,
    401: Code.UNAUTHORIZED,
    403: Code.FORBIDDEN,
    404: Code.NOT_FOUND,
    405: Code.METHOD_NOT_ALLOWED,
    408: Code.TIMEOUT,
    413: Code.TOO_LARGE,
}


class ProblemBody(BaseModel):
    """Body of every error answer."""

    code: Code
    detail: str
    retry_after_seconds: float | None = None
    request_id: str | None = None


class Problem(Exception):  # noqa: N818
    """An answer that refuses; ``detail`` says what to do. The status follows from the code."""

    def __init__(
        self,
        code: Code,
        detail: str,
        *,
        status: int | None = None,
        retry_after_seconds: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.status = status if status is not None else STATUS[code]
        self.retry_after_seconds = retry_after_seconds
        self.headers = headers or {}

    def body(self) -> bytes:
        content = ProblemBody(
            code=self.code,
            detail=self.detail,
            retry_after_seconds=self.retry_after_seconds,
            request_id=request_id.get(),
        )
        return content.model_dump_json(exclude_none=True).encode()

    def all_headers(self) -> dict[str, str]:
        """Headers of the answer without Content-Length."""
        headers = {"content-type": MEDIA_PROBLEM, **self.headers}
        if self.retry_after_seconds is not None:
            headers["retry-after"] = str(max(1, round(self.retry_after_seconds)))
        return headers


class ProblemResponse(JSONResponse):
    """The answer of a :class:`Problem`; ``code`` stays readable for the layer that counts refusals."""

    media_type = MEDIA_PROBLEM

    def __init__(self, problem: Problem) -> None:
        headers = {k: v for k, v in problem.all_headers().items() if k != "content-type"}
        super().__init__(None, problem.status, headers)
        self.body = problem.body()
        self.headers["content-length"] = str(len(self.body))


PROBLEM_SCHEMA: Final = {
    "description": "Refused: code for machines, detail for people",
    "content": {
        MEDIA_PROBLEM: {
            "schema": {
                "title": "Problem",
                "type": "object",
                "required": ["code", "detail"],
                "properties": {
                    "code": {"type": "string", "enum": [code.value for code in Code]},
                    "detail": {"type": "string"},
                    "retry_after_seconds": {"type": "number"},
                    "request_id": {"type": "string"},
                },
            }
        }
    },
}
"""For the ``responses`` of a FastAPI application."""


def problem_of(error: Exception) -> Problem:
    """The answer to an exception that a route let through."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return Problem(Code.BAD_REQUEST, _sentence(error))
    if isinstance(error, HTTPException):
        fallback = Code.BAD_REQUEST if error.status_code < 500 else Code.INTERNAL
        code = _CODE_OF_STATUS.get(error.status_code, fallback)
        return Problem(code, str(error.detail), status=error.status_code, headers=dict(error.headers or {}))
    return Problem(Code.INTERNAL, "the service failed on this request; its log has the reason by request_id")


def install_problems(app: FastAPI) -> None:
    """Answer every handled exception of ``app`` with a problem."""

    async def handle(request: Request, error: Exception) -> ProblemResponse:
        problem = problem_of(error)
        request.scope["sn17.code"] = problem.code
        return ProblemResponse(problem)

    for kind in (Problem, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, handle)


def _sentence(error: RequestValidationError) -> str:
    """Field and mistake; never the value, it may be large or secret."""
    parts = []
    for item in error.errors()[:5]:
        place = ".".join(str(part) for part in item.get("loc", ())[1:]) or "body"
        parts.append(f"{place[:100]}: {str(item.get('msg', 'invalid'))[:200]}")
    return "; ".join(parts) or "the request is malformed"


def encode_headers(problem: Problem) -> list[tuple[bytes, bytes]]:
    """Raw ASGI headers for an answer that no framework is there to send."""
    headers = problem.all_headers() | {"content-length": str(len(problem.body())), "connection": "close"}
    current = request_id.get()
    if current:
        headers[HEADER_REQUEST_ID.lower()] = current
    return [
        (key.lower().encode("latin-1"), value.encode("latin-1", "replace")) for key, value in headers.items()
    ]


def compact_json(value: object) -> str:
    """JSON without white space, as headers and files want it."""
    return json.dumps(value, separators=(",", ":"), default=str)
