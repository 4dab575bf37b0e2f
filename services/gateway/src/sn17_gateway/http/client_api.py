"""What clients call: ``add_task``, ``get_status``, ``get_result``."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Final

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from sn17_contract.gateway import HEADER_ORIGIN, HEADER_RESULT, MODELS, ORIGINS, StatusBody, TaskId
from sn17_contract.http import HEADER_IDEMPOTENCY_KEY, IDEMPOTENCY_KEY
from sn17_service.streams import pieces, spooled, zip_of
from sn17_splats import Limits

from sn17_gateway.assets import BadAsset, to_ply
from sn17_gateway.core.limits import OverLimit
from sn17_gateway.core.model import Asset, Named, State, Task
from sn17_gateway.core.tasks import Status, results, status
from sn17_gateway.gateway import Gateway
from sn17_gateway.http.errors import Refusal, bad_request, json_answer, limited, parse_uuid
from sn17_gateway.http.guard import Caller, Guard
from sn17_gateway.http.task_form import Wish, check_model, read_wish
from sn17_gateway.storage.store import Earlier, QueueFull

_KEY: Final = re.compile(IDEMPOTENCY_KEY)
_YES: Final = frozenset({"1", "true", "yes", "on"})
_NO: Final = frozenset({"0", "false", "no", "off"})
_LIMIT_RETRY_SECONDS: Final = 30.0
_NOT_FOUND: Final = "Result not found"


class ClientApi:
    """Handlers; each raises Refusal for what it does not take."""

    def __init__(self, gateway: Gateway, guard: Guard) -> None:
        self._gateway = gateway
        self._guard = guard
        self._settings = gateway.settings
        self._limits = Limits(gateway.settings.max_asset_bytes, gateway.settings.max_gaussians)

    async def add_task(self, request: Request) -> Response:
        """Take in a task; answers with its id, and with the same one when a request is repeated."""
        self._guard.count(request, self._guard.add_task)
        caller = await self._guard.caller_of_add_task(request)
        wish = await read_wish(request, self._settings)
        gateway, now = self._gateway, self._gateway.clock()
        named = _named(request, caller, wish)
        if named is not None and (earlier := await gateway.store.earlier(named)) is not None:
            return _again(earlier)
        if gateway.service.drain.current is not None:
            raise Refusal(503, "the gateway is being restarted")
        if await gateway.store.queue_full(now):
            raise self._full()
        check_model(wish, self._settings)
        task = self._task(request, caller, wish, now)
        if wish.image is not None and task.image is not None:
            await asyncio.to_thread(gateway.folder.write, task.image, wish.image)
        refused = await gateway.store.add(task, caller.allowance, named)
        if refused is not None:
            if task.image is not None:
                await asyncio.to_thread(gateway.folder.remove, [task.image])
            if isinstance(refused, Earlier):
                return _again(refused)
            raise self._full() if isinstance(refused, QueueFull) else _over(refused)
        gateway.metrics.tasks.labels(task.origin, "text" if task.prompt is not None else "image").inc()
        gateway.service.log.info("task taken in", extra={"task": task.id, "model": task.model})
        return json_answer(TaskId(id=task.id))

    async def get_status(self, request: Request) -> Response:
        """The state of a task; an unknown one looks like one that waits."""
        self._guard.count(request, self._guard.get_status)
        task_id = parse_uuid(request.query_params.get("id", ""), "id")
        gateway = self._gateway
        if self._settings.status_needs_owner:
            caller = await self._guard.caller(request)
            task = gateway.visible(await gateway.store.get(task_id), caller.owner)
        else:
            task = await gateway.store.get(task_id)
        body = _status_body(status(task, gateway.clock()), self._settings.hide_in_progress)
        return json_answer(body)

    async def get_result(self, request: Request) -> Response:
        """The first success by arrival, or all of them as a zip."""
        self._guard.count(request, self._guard.get_result)
        caller = await self._guard.caller(request)
        query = request.query_params
        task_id = parse_uuid(query.get("id", ""), "id")
        every = query.get("all", "false")
        if every not in ("true", "false"):
            raise bad_request("deserialize error: all must be true or false")
        gateway = self._gateway
        task = gateway.visible(await gateway.store.get(task_id), caller.owner)
        if task is None:
            raise Refusal(404, _NOT_FOUND)
        assets = self._assets(task)
        as_ply = MODELS[task.model].splat and not _compressed(query.get("compress"), query.get("format"))
        suffix = "glb" if not MODELS[task.model].splat else "ply" if as_ply else "spz"
        try:
            if every == "true":
                return await self._zip(assets, as_ply, suffix)
            return await self._one(assets[0], as_ply, suffix)
        except FileNotFoundError:
            gateway.service.log.error("the file of a result is missing", extra={"task": task.id})
            raise Refusal(404, _NOT_FOUND) from None
        except BadAsset as error:
            gateway.service.log.error("a result can't be converted: %s", error, extra={"task": task.id})
            raise Refusal(500, "Internal Server Error") from None

    def _task(self, request: Request, caller: Caller, wish: Wish, now: float) -> Task:
        origin = request.headers.get(HEADER_ORIGIN, "").lower()
        seed, task_id = wish.seed, self._gateway.new_id()
        return Task(
            id=task_id, model=wish.model, prompt=wish.prompt, params=wish.params,
            image=None if wish.image is None else f"{task_id}.image",
            seed=self._gateway.draw() if seed is None else seed,
            tags=caller.tags, owner=caller.owner, address=self._guard.address(request),
            origin=origin if origin in ORIGINS else "api", slots=self._settings.slots,
            created_at=now, expires_at=now + self._settings.task_seconds,
        )  # fmt: skip

    def _full(self) -> Refusal:
        return Refusal(503, f"the queue is full: {self._settings.queue_limit} tasks wait")

    def _assets(self, task: Task) -> Sequence[Asset]:
        """Files of the successes, by arrival; there is at least one."""
        now = self._gateway.clock()
        kept = results(task, now, self._settings.result_seconds)
        found = [delivery.asset for delivery in kept if delivery.asset is not None]
        if found:
            return found
        current = status(task, now)
        raise Refusal(404, f"Task failed: {current.reason}" if current.state is State.FAILURE else _NOT_FOUND)

    async def _one(self, asset: Asset, as_ply: bool, suffix: str) -> Response:
        folder = self._gateway.folder
        headers = {
            "content-disposition": f'attachment; filename="result.{suffix}"',
            HEADER_RESULT: asset.digest,
        }
        media = "model/gltf-binary" if suffix == "glb" else "application/octet-stream"
        if as_ply:
            size, file = await self._gateway.decode(
                lambda: spooled(to_ply(folder.read(asset.file), self._limits))
            )
        else:
            size, file = asset.size, await asyncio.to_thread(folder.open, asset.file)
        headers["content-length"] = str(size)
        return StreamingResponse(pieces(file), headers=headers, media_type=media)

    async def _zip(self, assets: Sequence[Asset], as_ply: bool, suffix: str) -> Response:
        folder = self._gateway.folder

        def entry(asset: Asset) -> Callable[[], bytes]:
            return lambda: (
                to_ply(folder.read(asset.file), self._limits) if as_ply else folder.read(asset.file)
            )

        entries = [(f"{number}.{suffix}", entry(asset)) for number, asset in enumerate(assets, 1)]
        file = await self._gateway.decode(zip_of, entries)
        headers = {"content-disposition": 'attachment; filename="results.zip"'}
        return StreamingResponse(pieces(file), headers=headers, media_type="application/zip")


def _named(request: Request, caller: Caller, wish: Wish) -> Named | None:
    key = request.headers.get(HEADER_IDEMPOTENCY_KEY)
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise bad_request(f"{HEADER_IDEMPOTENCY_KEY} must be 1 to 200 visible ASCII characters")
    return Named(f"{caller.owner or 'guest'}/{key}", wish.digest)


def _again(earlier: Earlier) -> Response:
    if not earlier.same:
        message = f"this {HEADER_IDEMPOTENCY_KEY} belongs to another request; use a new one"
        raise Refusal(409, {"error": "idempotency_conflict", "message": message})
    return json_answer(TaskId(id=earlier.task))


def _status_body(current: Status, hide_in_progress: bool) -> StatusBody:
    text = current.state.value
    if current.state is State.PARTIAL:
        text = f"{text}({current.successes})"
    elif current.state is State.IN_PROGRESS and hide_in_progress:
        text = State.NO_RESULT.value
    return StatusBody(status=text, worker_id=current.worker_id, reason=current.reason)


def _compressed(compress: str | None, legacy: str | None) -> bool:
    """Whether the client wants SPZ; the older ``format`` decides where it says ply or spz."""
    if legacy is not None and legacy.lower() in ("ply", "spz"):
        return legacy.lower() == "spz"
    if compress is None:
        return True
    word = compress.strip().lower()
    if word not in _YES | _NO:
        raise bad_request("compress must be 1, 0, true, false, yes, no, on or off")
    return word in _YES


def _over(limit: OverLimit) -> Refusal:
    if limit is OverLimit.CONCURRENT:
        return limited(limit.value, "Too many open tasks with this key", _LIMIT_RETRY_SECONDS)
    return limited(limit.value, "The daily limit of this key is reached", 60 * _LIMIT_RETRY_SECONDS)
