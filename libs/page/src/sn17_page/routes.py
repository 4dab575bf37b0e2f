"""The page's files and routes: ``/``, ``/page/static/...`` and ``/page/v1/...``."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import mimetypes
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel
from sn17_contract.tasks import TaskList, ValidatorList
from sn17_splats import Limits, SplatError, decode_spz, write_ply
from sn17_splats.spz import spz_payload

from sn17_page.miner import AssetMissingError, MinerReader, MinerUnavailableError
from sn17_page.safety import HEADERS, open_to_all
from sn17_page.views import PageState, Queue, page_state

MAX_ASSETS: Final = 200
_LIMITS: Final = Limits(256 * 1024 * 1024, 5_000_000)
_NO_MINER: Final = "no miner is set: SN17_MINER_URL of the gateway names its ops port"


class Session(BaseModel):
    """``GET /page/v1/session``: whether a key is asked for, and the guests' key where it is not."""

    login: bool
    guest_key: str | None


class Missing(BaseModel):
    """Why there is no asset."""

    detail: str


@dataclass(frozen=True, slots=True)
class Page:
    """What the page needs of the service that serves it.

    ``authorize`` raises for a request without a valid key. ``guest_key`` is told to browsers on this machine
    only. ``miner`` is None where no miner is set.
    """

    node: str
    listens_on: str
    authorize: Callable[[Request], Awaitable[object]]
    guest_key: str | None
    queue: Callable[[], Queue | None]
    clock: Callable[[], float]
    miner: MinerReader | None

    def is_open(self, request: Request) -> bool:
        """Whether this request needs no key."""
        forwarded = any(name in request.headers for name in ("x-forwarded-for", "forwarded"))
        return open_to_all(self.listens_on, request.headers.get("host", ""), forwarded)

    async def check(self, request: Request) -> None:
        """Raises what ``authorize`` raises."""
        if not self.is_open(request):
            await self.authorize(request)


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    media: str
    tag: str


def static_files() -> dict[str, _File]:
    """Every file below ``static``, by its path there."""
    found = {}
    root = resources.files("sn17_page") / "static"
    waiting = [("", root)]
    while waiting:
        prefix, folder = waiting.pop()
        for entry in folder.iterdir():
            name = f"{prefix}{entry.name}"
            if entry.is_dir():
                waiting.append((f"{name}/", entry))
                continue
            body = entry.read_bytes()
            media = mimetypes.guess_type(name)[0] or "application/octet-stream"
            found[name] = _File(body, media, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return found


def page_router(page: Page) -> APIRouter:
    """Routes of the page. Its files are open: they hold nothing but the program."""
    router = APIRouter(include_in_schema=False)
    files = static_files()

    @router.get("/")
    async def index(request: Request) -> Response:
        return _answer(files["index.html"], request)

    @router.get("/page/static/{name:path}")
    async def static(name: str, request: Request) -> Response:
        file = files.get(name)
        return Response(status_code=404, headers=HEADERS) if file is None else _answer(file, request)

    @router.get("/page/v1/session")
    async def session(request: Request, response: Response) -> Session:
        response.headers.update(_fresh())
        is_open = page.is_open(request)
        return Session(login=not is_open, guest_key=page.guest_key if is_open else None)

    @router.get("/page/v1/state")
    async def state(
        request: Request, response: Response, limit: Annotated[int, Query(ge=1, le=MAX_ASSETS)] = 50
    ) -> PageState:
        await page.check(request)
        response.headers.update(_fresh())
        tasks, places, trouble = await _ask_miner(page.miner, limit)
        return page_state(page.node, page.clock(), page.queue(), tasks, places, trouble)

    @router.get("/page/v1/assets/{n}.{form}")
    async def asset(
        request: Request, n: Annotated[int, Path(ge=1, le=2**53)], form: Literal["spz", "ply", "view"]
    ) -> Response:
        await page.check(request)
        if page.miner is None:
            return _missing(404, _NO_MINER)
        try:
            body = await page.miner.asset(n)
            if form != "spz":
                body = await asyncio.to_thread(_CONVERTERS[form], body)
        except AssetMissingError as error:
            return _missing(404, str(error))
        except MinerUnavailableError as error:
            return _missing(503, str(error))
        except SplatError as error:
            return _missing(502, f"the kept asset cannot be read: {error}")
        headers = {**HEADERS, "cache-control": "private, max-age=600"}
        headers["content-disposition"] = f'attachment; filename="task-{n}.{form}"'
        return Response(body, media_type="application/octet-stream", headers=headers)

    return router


async def _ask_miner(
    miner: MinerReader | None, limit: int
) -> tuple[TaskList | None, ValidatorList | None, str | None]:
    if miner is None:
        return None, None, _NO_MINER
    try:
        tasks, places = await asyncio.gather(miner.tasks(limit), miner.places())
    except MinerUnavailableError as error:
        return None, None, str(error)
    return tasks, places, None


def _to_ply(spz: bytes) -> bytes:
    return write_ply(decode_spz(spz, _LIMITS), normals=False)


def _to_niantic_spz(spz: bytes) -> bytes:
    """The same payload in gzip, which the viewer reads, instead of the subnet's zstd."""
    return gzip.compress(spz_payload(decode_spz(spz, _LIMITS)).data, 1, mtime=0)


_CONVERTERS: Final = {"ply": _to_ply, "view": _to_niantic_spz}


def _answer(file: _File, request: Request) -> Response:
    headers = {**HEADERS, "etag": file.tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    return Response(file.body, media_type=file.media, headers=headers)


def _fresh() -> dict[str, str]:
    return {**HEADERS, "cache-control": "no-store"}


def _missing(status: int, why: str) -> Response:
    body = Missing(detail=why).model_dump_json()
    return Response(body, status, _fresh(), "application/json")
