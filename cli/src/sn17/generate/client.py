"""The gateway's client API, with its answers sorted into what can be done about them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError
from sn17_contract.gateway import DEFAULT_MODEL, HEADER_KEY, Route, StatusBody, TaskId
from sn17_contract.http import HEADER_IDEMPOTENCY_KEY

from sn17.generate.wishes import Wish
from sn17.splat.sniffing import Format

T = TypeVar("T", bound=BaseModel)
_BUSY: Final = frozenset({429, 500, 502, 503, 504})
_NOT_FOUND: Final = 404
_NO_KEY: Final = frozenset({401, 402, 403})
_LONGEST_WAIT: Final = 60.0
_DEFAULT_WAIT: Final = 2.0
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class GatewayError(Exception):
    """Any answer or silence that is no success."""


class RefusedError(GatewayError):
    """Asking again would not help. ``key``: the key is not taken, so nothing else would be either."""

    def __init__(self, message: str, *, key: bool = False) -> None:
        super().__init__(message)
        self.key = key


class LaterError(GatewayError):
    """The gateway asks for patience, ``seconds`` of it."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class LostError(GatewayError):
    """The connection is lost. ``sent``: the request may have arrived all the same."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


@dataclass(frozen=True, slots=True)
class GatewayClient:
    """``client`` has the gateway's address. Every call raises a GatewayError."""

    client: httpx2.AsyncClient
    key: str

    async def add(self, wish: Wish, request: str) -> str:
        """Hand a task in; its id, which is the same for the same ``request`` at a gateway of ours."""
        fields: dict[str, Any] = {"model": DEFAULT_MODEL}
        if wish.seed is not None:
            fields["seed"] = wish.seed
        if wish.image is not None:
            texts = {name: str(value) for name, value in fields.items()}
            body: dict[str, Any] = {"data": texts, "files": {"image": ("image", wish.image)}}
        else:
            body = {"json": {"prompt": wish.prompt, **fields}}
        headers = {HEADER_IDEMPOTENCY_KEY: request}
        answer = await self._call("POST", Route.ADD_TASK, headers=headers, **body)
        return _read(TaskId, answer).id

    async def status(self, task: str) -> StatusBody:
        """How far a task is; one that the gateway does not know looks like one that waits."""
        return _read(StatusBody, await self._call("GET", Route.GET_STATUS, params={"id": task}))

    async def result(self, task: str, kind: Format) -> bytes:
        """The asset, as PLY where that is wanted and as the subnet's SPZ else."""
        params = {"id": task, "compress": "0" if kind is Format.PLY else "1"}
        return (await self._call("GET", Route.GET_RESULT, params=params)).content

    async def _call(
        self, method: str, route: Route, headers: Mapping[str, str] = _NO_HEADERS, **options: Any
    ) -> httpx2.Response:
        sent = {HEADER_KEY: self.key, **headers}
        try:
            answer = await self.client.request(method, route.value, headers=sent, **options)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise LostError(_reason(error), sent=False) from error
        except httpx2.TransportError as error:
            raise LostError(_reason(error), sent=True) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise RefusedError(f"{self.client.base_url}: {_reason(error)}", key=True) from error
        if answer.is_success:
            return answer
        said = _said(answer)
        if answer.status_code in _BUSY and "daily" not in said:
            raise LaterError(said, _wait(answer))
        raise RefusedError(said, key=answer.status_code in _NO_KEY)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _said(answer: httpx2.Response) -> str:
    """The text of a refusal, whichever of its forms it has."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return f"{answer.status_code}: {answer.json()['message']}"
    if "html" in answer.headers.get("content-type", ""):
        return f"{answer.status_code}: a web page, so this is no gateway"
    return f"{answer.status_code}: {' '.join(answer.text[:300].split()) or answer.reason_phrase}"


def _wait(answer: httpx2.Response) -> float:
    try:
        return min(max(float(answer.headers["retry-after"]), 0.1), _LONGEST_WAIT)
    except (KeyError, ValueError):
        return _DEFAULT_WAIT


def _read(shape: type[T], answer: httpx2.Response) -> T:
    try:
        return shape.model_validate_json(answer.content)
    except ValidationError as error:
        raise RefusedError("the answer is not a gateway's: is this its data port?", key=True) from error
