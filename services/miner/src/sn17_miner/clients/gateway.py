"""Calls to nodes of gateways as one of their workers: tasks, results, and once in a while a task's status."""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp
from bittensor_wallet import Keypair
from pydantic import BaseModel, ConfigDict, ValidationError
from sn17_contract.gateway import DEFAULT_MODEL, GatewayInfo, Route, StatusBody, TaskOffer
from sn17_protocol.gateway import FRESH_SECONDS, sign_time

from sn17_miner.clients.web import never_sent, read_bounded, short, within
from sn17_miner.core.receipt import GatewayError

_SMALL: Final = 1 << 20
_PER_TASK: Final = 4 << 20
"""Bytes of one offer at most: a picture of 2 MiB as base64, or a prompt that only the body's limit bounds."""
_STORED: Final = b"Ok"
_PIECE: Final = 1 << 16
_HOLD: Final = 0.5
"""Seconds before the asset follows, after an upload that broke. A node checks whose task it is before it
reads the asset, and where it then closes the connection, its answer is lost to whoever goes on sending."""
_LONGEST_RETRY_AFTER: Final = 120.0


class _Answer(BaseModel):
    """Each item is checked for itself, so that an odd one costs no other task."""

    model_config = ConfigDict(extra="ignore")

    tasks: list[Any]
    gateways: list[Any] = []


@dataclass(frozen=True, slots=True)
class Account:
    """In whose name a gateway is asked. ``tls`` None: the usual authorities."""

    keypair: Keypair
    worker_id: str
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """Tasks and nodes that could be read; ``unreadable`` says what was wrong with the others."""

    tasks: tuple[TaskOffer, ...]
    nodes: tuple[GatewayInfo, ...]
    unreadable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """Of one task: an ``asset`` (SPZ), or the ``reason`` of a failure, at most 255 bytes."""

    task_id: str
    worker_id: str
    token: str
    asset: bytes | None = None
    reason: str = ""


@dataclass(slots=True)
class GatewayClient:
    """``clock`` Unix seconds. A node that finds our time wrong is signed for by its clock from then on."""

    session: aiohttp.ClientSession
    clock: Callable[[], float]
    pull_timeout: float
    submit_timeout: float
    boundary: Callable[[], str] = lambda: uuid.uuid4().hex
    _shifts: dict[str, float] = field(default_factory=dict)

    async def pull(self, node: str, account: Account, count: int) -> Answered:
        """Ask for tasks; ``count`` 0 asks for the nodes only. Raises GatewayError."""

        async def call() -> bytes:
            body = {**self._signed(node, account), "requested_task_count": count, "model": DEFAULT_MODEL}
            return await self._ask(
                node, account, Route.GET_TASKS, self.pull_timeout, _SMALL + count * _PER_TASK, json=body
            )

        try:
            answer = _Answer.model_validate_json(await self._in_time(node, call))
        except ValidationError as error:
            raise GatewayError(None, f"unreadable answer: {error.error_count()} errors") from error
        tasks, bad_tasks = _readable(TaskOffer, answer.tasks[:count])
        nodes, bad_nodes = _readable(GatewayInfo, answer.gateways)
        extra = len(answer.tasks) - count
        more = [f"{extra} tasks more than the {count} asked for"] if extra > 0 else []
        return Answered(tuple(tasks), tuple(nodes), (*bad_tasks, *bad_nodes, *more))

    async def deliver(self, node: str, account: Account, result: Result, *, hold: bool = False) -> None:
        """Hand a result in. Returns when it is stored; raises GatewayError.

        ``hold`` after an upload that broke: give a refusal time to be read before the asset follows.
        """

        async def call() -> bytes:
            head, tail, boundary = self._form(node, account, result)
            parts = [head] if result.asset is None else [head, result.asset, tail]
            headers = {
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Content-Length": str(sum(map(len, parts))),
            }
            body = _pieces(parts, _HOLD if hold else 0.0)
            return await self._ask(
                node, account, Route.ADD_RESULT, self.submit_timeout, _SMALL, data=body, headers=headers
            )

        answer = await self._in_time(node, call)
        if answer.strip() != _STORED:
            raise GatewayError(None, "a 200 without the word that a result is stored")

    async def status(self, node: str, account: Account, task_id: str) -> StatusBody:
        """What clients are told of a task. Raises GatewayError."""
        body = await self._ask(
            node, account, f"{Route.GET_STATUS}?id={task_id}", self.pull_timeout, _SMALL, method="GET"
        )
        try:
            return StatusBody.model_validate_json(body)
        except ValidationError as error:
            raise GatewayError(None, f"unreadable answer: {error.error_count()} errors") from error

    # --- inside ---------------------------------------------------------------------------------

    def _signed(self, node: str, account: Account) -> dict[str, str]:
        signature, timestamp = sign_time(account.keypair, self.clock() + self._shifts.get(node, 0.0))
        return {
            "worker_hotkey": account.keypair.ss58_address,
            "worker_id": account.worker_id,
            "signature": signature,
            "timestamp": timestamp,
        }

    def _form(self, node: str, account: Account, result: Result) -> tuple[bytes, bytes, str]:
        """Everything before the asset, everything behind it, and the boundary (which must not be quoted)."""
        boundary = self.boundary()
        status = "success" if result.asset is not None else "failure"
        fields = {
            "id": result.task_id,
            **self._signed(node, account),
            "worker_id": result.worker_id,
            "assignment_token": result.token,
            "status": status,
        }
        if result.asset is None:
            fields["reason"] = result.reason
        head = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        end = f"--{boundary}--\r\n"
        if result.asset is None:
            return (head + end).encode(), b"", boundary
        head += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="asset"; filename="result.spz"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        return head.encode(), f"\r\n{end}".encode(), boundary

    async def _in_time(self, node: str, call: Callable[[], Any]) -> bytes:
        """Call; a refusal that the clocks explain is answered once with a time that fits."""
        try:
            return bytes(await call())
        except _SkewedError as error:
            self._shifts[node] = error.theirs - self.clock()
            return bytes(await call())

    async def _ask(
        self,
        node: str,
        account: Account,
        path: str,
        timeout: float,
        limit: int,
        *,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        **body: Any,
    ) -> bytes:
        signed_at = self.clock() + self._shifts.get(node, 0.0)
        try:
            async with self.session.request(
                method,
                node + path,
                headers={"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})},
                timeout=within(timeout),
                allow_redirects=False,
                ssl=account.tls or True,
                **body,
            ) as response:
                content = await read_bounded(response, limit)
                if response.status == 200:
                    return content
                raise _refusal(response, content, signed_at)
        except TimeoutError as error:
            raise GatewayError(None, f"no answer within {timeout:g} s", sent=not never_sent(error)) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise GatewayError(None, short(error), sent=not never_sent(error)) from error


class _SkewedError(GatewayError):
    """401 while our time is not within what the node's own clock allows; ``theirs`` Unix seconds."""

    def __init__(self, message: str, theirs: float) -> None:
        super().__init__(401, message)
        self.theirs = theirs


def _refusal(response: aiohttp.ClientResponse, content: bytes, signed_at: float) -> GatewayError:
    message = " ".join(content[:200].decode(errors="replace").split())
    theirs = _date(response.headers.get("Date"))
    if response.status == 401 and theirs is not None:
        age = theirs - (int(signed_at) - 1)
        if not 0 <= age <= FRESH_SECONDS:
            return _SkewedError(f"{message} (our clock differs by {theirs - signed_at:.0f} s)", theirs)
    told = response.headers.get("Retry-After", "")
    retry_after = min(float(told), _LONGEST_RETRY_AFTER) if told.isdecimal() else None
    return GatewayError(response.status, message, retry_after=retry_after)


async def _pieces(parts: Sequence[bytes], hold: float) -> AsyncIterator[bytes]:
    yield parts[0]
    if hold:
        await asyncio.sleep(hold)
    for part in parts[1:]:
        view = memoryview(part)
        for start in range(0, len(part), _PIECE):
            yield bytes(view[start : start + _PIECE])


def _readable(kind: type[Any], items: list[Any]) -> tuple[list[Any], list[str]]:
    good, bad = [], []
    for item in items:
        try:
            good.append(kind.model_validate(item))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            bad.append(f"{kind.__name__}: {'.'.join(map(str, first['loc']))}: {first['msg']}")
    return good, bad


def _date(header: str | None) -> float | None:
    try:
        return parsedate_to_datetime(header).timestamp() if header else None
    except ValueError:
        return None
