"""Answers in the forms that the original has: chunked errors, framework pages, no Retry-After."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from fastapi import Request
from pydantic import BaseModel, ValidationError

_PREFIX: Final = {400: "Bad request: ", 401: "Unauthorized request: ", 503: "Service unavailable: "}
_COMPRESSED_FROM: Final = 1024
_PIECE: Final = 64 * 1024


class Refusal(Exception):  # noqa: N818 (an answer, not a failure)
    """A handler's error: text where ``content`` is a sentence, JSON where it is fields."""

    def __init__(self, status: int, content: str | Mapping[str, Any]) -> None:
        super().__init__(str(content))
        self.status = status
        self.content = content

    def response(self) -> web.Response:
        if isinstance(self.content, str):
            text = _PREFIX.get(self.status, "") + self.content
            answer = web.Response(status=self.status, text=text, content_type="text/plain", charset="utf-8")
        else:
            answer = web.json_response(dict(self.content), status=self.status)
        answer.enable_chunked_encoding()
        return answer


class NoHandler(Exception):  # noqa: N818 (an answer, not a failure)
    """404, 405 or 429 before a handler ran: its form depends on Accept."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status

    def response(self, accept: str) -> web.Response:
        known = HTTPStatus(self.status)
        name, brief = known.phrase, known.description or known.phrase
        if "application/json" in accept:
            body = {"error": {"code": self.status, "name": name, "brief": brief}}
            return web.json_response(body, status=self.status)
        page = f"<!DOCTYPE html><html><body><h1>{self.status}: {name}</h1><p>{brief}</p></body></html>"
        return web.Response(status=self.status, text=page, content_type="text/html")


def bad_field(field: str, message: str) -> Refusal:
    return Refusal(400, {"error": "invalid_field", "field": field, "message": message})


def coded(status: int, code: str, message: str) -> Refusal:
    return Refusal(status, {"error": code, "message": message})


def json_answer(request: web.Request, body: BaseModel) -> web.Response:
    """200 without absent fields; compressed where it is long and the client takes gzip."""
    text = body.model_dump_json(exclude_none=True)
    answer = web.Response(text=text, content_type="application/json", charset="utf-8")
    if len(text) >= _COMPRESSED_FROM and "gzip" in request.headers.get("accept-encoding", ""):
        answer.enable_compression(web.ContentCoding.gzip)
    return answer


def text_answer(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/plain", charset="utf-8")


def parse_uuid(text: str, name: str) -> str:
    """Raises Refusal."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise Refusal(400, f"deserialize error: {name} is no UUID") from None


def mistake(error: ValidationError) -> Refusal:
    """Field and mistake."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return Refusal(400, f"{place}: {first['msg']}")


class Body:
    """The body of a request for the readers of the service library, and how much of it came."""

    def __init__(self, request: web.Request) -> None:
        self._pieces = request.content.iter_chunked(_PIECE)
        self._announced = request.content_length or 0
        self._received = 0
        headers = [(name.lower(), value) for name, value in request.raw_headers]
        self.request = Request({"type": "http", "method": request.method, "headers": headers}, self._receive)

    @property
    def unread(self) -> int:
        """Bytes that were announced and not taken in."""
        return self._announced - self._received

    async def _receive(self) -> dict[str, Any]:
        pieces: AsyncIterator[bytes] = aiter(self._pieces)
        try:
            piece = await anext(pieces)
        except StopAsyncIteration:
            return {"type": "http.request", "body": b"", "more_body": False}
        self._received += len(piece)
        return {"type": "http.request", "body": piece, "more_body": True}
