"""One layer around every application: request ids, limits, timeouts, counts, access log."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Callable
from typing import Final

from sn17_contract.http import HEADER_REQUEST_ID, Code
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sn17_service.logs import request_id
from sn17_service.problems import Problem, encode_headers, problem_of
from sn17_service.server import ABORT_EXTENSION

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/-]{1,128}")
_CONTENT_LENGTH: Final = re.compile(rb"[0-9]{1,18}")


class _RefusedError(Exception):
    """Unwinds the application after the layer decided on the answer."""


class _ClientStalledError(Exception):
    """The client does not read."""


class RequestLayer:
    """ASGI middleware of :meth:`sn17_service.Service.new_app`.

    A body above ``max_body_bytes`` is refused before it is read when Content-Length tells, else at the
    byte that is too much; a body that stalls is refused after ``body_timeout``; a client that does not
    take its answer is dropped after ``send_timeout``. Every refusal is counted by its code.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        log: logging.Logger,
        access_level: int,
        max_body_bytes: int,
        body_timeout: float,
        send_timeout: float,
        count_refusal: Callable[[Code], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._app = app
        self._log = log
        self._access_level = access_level
        self._max_body = max_body_bytes
        self._body_timeout = body_timeout
        self._send_timeout = send_timeout
        self._count = count_refusal
        self._monotonic = monotonic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(HEADER_REQUEST_ID.lower().encode(), b"")
        token = request_id.set(given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8))
        exchange = _Exchange(self, scope, receive, send)
        started = self._monotonic()
        try:
            await exchange.run(self._app, headers.get(b"content-length"))
        finally:
            code = exchange.code
            seconds = self._monotonic() - started
            extra: dict[str, object] = {"status": exchange.status, "seconds": round(seconds, 3)}
            if code is not None:
                extra["code"] = str(code)
            self._log.log(self._access_level, "%s %s", scope["method"], scope["path"], extra=extra)
            request_id.reset(token)


class _Exchange:
    def __init__(self, layer: RequestLayer, scope: Scope, receive: Receive, send: Send) -> None:
        self._layer = layer
        self._scope = scope
        self._raw_receive = receive
        self._raw_send = send
        self._received = 0
        self._body_done = False
        self._deadline: float | None = None
        self._refusal: Problem | None = None
        self.status: int | None = None
        self.code: Code | None = None

    async def run(self, app: ASGIApp, content_length: bytes | None) -> None:
        try:
            self._check_length(content_length)
            await app(self._scope, self._receive, self._send)
        except _RefusedError:
            pass
        except _ClientStalledError:
            await self._drop()
        except Exception as error:
            if not isinstance(error, Problem):
                self._layer._log.exception("unhandled error")
            if self.status is not None:
                raise
            self._refusal = problem_of(error)
        if self._refusal is not None and self.status is None:
            await self._answer(self._refusal)

    def _check_length(self, content_length: bytes | None) -> None:
        if content_length is None:
            return
        if not _CONTENT_LENGTH.fullmatch(content_length):
            raise Problem(Code.BAD_REQUEST, "Content-Length is not a number", status=400)
        if int(content_length) > self._layer._max_body:
            raise self._too_large()

    async def _receive(self) -> Message:
        if self._body_done:
            return await self._raw_receive()
        loop = asyncio.get_running_loop()
        if self._deadline is None:
            self._deadline = loop.time() + self._layer._body_timeout
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._raw_receive()
        except TimeoutError:
            self._refusal = Problem(
                Code.TIMEOUT, f"the body did not arrive within {self._layer._body_timeout:g} s; send it again"
            )
            raise _RefusedError from None
        if message["type"] != "http.request":
            return message
        self._received += len(message.get("body", b""))
        self._body_done = not message.get("more_body", False)
        if self._received > self._layer._max_body:
            self._refusal = self._too_large()
            raise _RefusedError
        return message

    async def _send(self, message: Message) -> None:
        if self._refusal is not None:
            return
        if message["type"] == "http.response.start":
            self._started(message["status"], self._scope.get("sn17.code"))
            message["headers"] = [
                *message.get("headers", []),
                (HEADER_REQUEST_ID.lower().encode(), (request_id.get() or "").encode()),
            ]
        try:
            async with asyncio.timeout(self._layer._send_timeout):
                await self._raw_send(message)
        except TimeoutError:
            raise _ClientStalledError from None

    async def _drop(self) -> None:
        self._layer._log.warning("the client did not take its answer and was dropped")
        abort = self._scope.get("extensions", {}).get(ABORT_EXTENSION)
        if abort is not None:
            abort()
            # Let the server notice before the application returns, or it reports an unfinished answer.
            await asyncio.sleep(0)

    async def _answer(self, problem: Problem) -> None:
        self._started(problem.status, problem.code)
        await self._raw_send(
            {"type": "http.response.start", "status": problem.status, "headers": encode_headers(problem)}
        )
        await self._raw_send({"type": "http.response.body", "body": problem.body()})

    def _started(self, status: int, code: Code | None) -> None:
        """Count before the answer leaves, so that who has it also finds it counted."""
        self.status = status
        self.code = code
        if code is not None:
            self._layer._count(code)

    def _too_large(self) -> Problem:
        return Problem(Code.TOO_LARGE, f"the body may have at most {self._layer._max_body} bytes")
