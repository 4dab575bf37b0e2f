"""Bodies within bounds: whole ones, and multipart read part by part as it arrives."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

#: Without quotes, as the clients and workers of gateways send it.
_BOUNDARY: Final = re.compile(r";\s*boundary=([0-9A-Za-z'()+_,./:=?-]{1,70})\s*(?:;|$)", re.IGNORECASE)
_MAX_NAME: Final = 64
_INCOMPLETE: Final = "incomplete multipart stream"


class BodyError(ValueError):
    """The body is too long, cut short or malformed; the message says what to do."""


def media_type(request: Request) -> str:
    """The content type without parameters, in lower case; empty where there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def pieces(request: Request) -> AsyncIterator[bytes]:
    """The body as it arrives."""
    try:
        async for piece in request.stream():
            yield piece
    except ClientDisconnect:
        raise BodyError("the client left before its body was whole") from None


async def whole_body(request: Request, limit: int) -> bytes:
    """At most ``limit`` bytes; a body that announces more is not read. Raises BodyError."""
    announced = request.headers.get("content-length", "0")
    if int(announced) > limit:
        raise BodyError(f"payload too large: at most {limit} bytes")
    body = bytearray()
    async for piece in pieces(request):
        body += piece
        if len(body) > limit:
            raise BodyError(f"payload too large: at most {limit} bytes")
    return bytes(body)


@dataclass(frozen=True, slots=True)
class _Head:
    name: str


class _End:
    """The end of a part."""


class MultipartReader:
    """Parts in their order: :meth:`next_part`, then :meth:`read` or :meth:`chunks` for its content.

    All methods raise BodyError for a form that is none or that is longer than ``limit`` bytes.
    """

    def __init__(self, request: Request, limit: int, too_long: str) -> None:
        if media_type(request) != "multipart/form-data":
            raise BodyError("the content type must be multipart/form-data")
        if int(request.headers.get("content-length", "0")) > limit:
            raise BodyError(too_long)
        found = _BOUNDARY.search(request.headers["content-type"])
        if not found:
            raise BodyError(f"{_INCOMPLETE}: the content type needs an unquoted boundary")
        self._pieces = pieces(request)
        self._limit = limit
        self._too_long = too_long
        self._received = 0
        self._events: deque[_Head | _End | bytes] = deque()
        self._field = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._complete = False
        self._parser = MultipartParser(
            found[1],
            {
                "on_part_begin": self._part_begins,
                "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": lambda data, start, end: self._events.append(bytes(data[start:end])),
                "on_part_end": lambda: self._events.append(_End()),
                "on_end": self._ends,
            },
        )

    async def next_part(self) -> str | None:
        """The name of the next part, or None behind the last one."""
        event = await self._next()
        if event is None:
            return None
        return event.name if isinstance(event, _Head) else None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The part's content."""
        while isinstance(event := await self._next(), bytes):
            yield event

    async def read(self, limit: int, name: str) -> bytes:
        """The part's content, at most ``limit`` bytes."""
        content = bytearray()
        async for piece in self.chunks():
            content += piece
            if len(content) > limit:
                raise BodyError(f"{name} may have at most {limit} bytes")
        return bytes(content)

    async def text(self, limit: int, name: str) -> str:
        """The part's content as UTF-8."""
        try:
            text = (await self.read(limit, name)).decode()
        except UnicodeDecodeError:
            raise BodyError(f"{name} is not UTF-8") from None
        if "\0" in text:
            raise BodyError(f"{name} must not hold a NUL character")
        return text

    async def _next(self) -> _Head | _End | bytes | None:
        while not self._events:
            if self._complete:
                return None
            try:
                piece = await anext(self._pieces)
            except StopAsyncIteration:
                raise BodyError(_INCOMPLETE) from None
            self._received += len(piece)
            if self._received > self._limit:
                raise BodyError(self._too_long)
            try:
                self._parser.write(piece)
            except FormParserError:
                raise BodyError("the multipart form is malformed") from None
        return self._events.popleft()

    def _part_begins(self) -> None:
        self._disposition = b""

    def _header_ends(self) -> None:
        if bytes(self._field).lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def _headers_end(self) -> None:
        kind, options = parse_options_header(self._disposition)
        name = options.get(b"name")
        if kind != b"form-data" or name is None or len(name) > _MAX_NAME:
            raise FormParserError("a part needs 'Content-Disposition: form-data' with a name")
        self._events.append(_Head(name.decode("utf-8", "replace")))

    def _ends(self) -> None:
        self._complete = True
