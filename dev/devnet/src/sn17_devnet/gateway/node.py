"""One node: its server, its memory, and what happens to a request before and after its handler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from sn17_contract.gateway import GatewayInfo, Leader, Load, Route
from sn17_service.bodies import BodyError

from sn17_devnet.faults import Fault, FaultKind, FaultPlan
from sn17_devnet.gateway.answers import Body, NoHandler, Refusal, json_answer, text_answer
from sn17_devnet.gateway.client_api import ClientApi
from sn17_devnet.gateway.memory import Lifetimes, Memory
from sn17_devnet.gateway.numbers import metrics_text
from sn17_devnet.gateway.shared import Shared
from sn17_devnet.gateway.worker_api import WorkerApi
from sn17_devnet.server import Server, cut

KEEP_ALIVE_SECONDS: Final = 75.0
#: With more of a body unread after an early error, the connection is closed and no header says so.
UNREAD_BYTES: Final = 200_000
METRICS: Final = "/metrics"

Handler = Callable[[web.Request, Body], Awaitable[web.Response]]


class Node:
    """Tasks and results are in ``memory``, which is new after each start of ``server``."""

    def __init__(self, shared: Shared, index: int) -> None:
        settings = shared.settings
        self._shared = shared
        self.index = index
        self.faults = FaultPlan((), index, settings.seed)
        self._log = logging.getLogger(f"sn17.devnet.gateway{index}")
        self.memory = self._fresh_memory()
        self.server = Server(
            self._handle,
            host=settings.host,
            port=settings.node_port + index if settings.node_port else 0,
            max_body_bytes=settings.max_asset_bytes,
            keep_alive=KEEP_ALIVE_SECONDS,
            load=self._forget,
            log=self._log,
        )
        clients, workers = (
            ClientApi(shared, index, lambda: self.memory),
            WorkerApi(shared, lambda: self.memory),
        )
        self._routes: dict[tuple[str, str], Handler] = {
            ("POST", Route.ADD_TASK): clients.add_task,
            ("GET", Route.GET_STATUS): clients.get_status,
            ("GET", Route.GET_RESULT): clients.get_result,
            ("POST", Route.GET_TASKS): workers.get_tasks,
            ("POST", Route.ADD_RESULT): workers.add_result,
            ("GET", Route.GET_LOAD): self._load,
            ("GET", Route.GET_LEADER): self._leader,
            ("GET", Route.ID): self._id,
            ("GET", METRICS): self._metrics,
        }
        self._paths = {path for _, path in self._routes}

    def info(self) -> GatewayInfo:
        """As workers are told."""
        now = int(self._shared.clock())
        return GatewayInfo(
            node_id=self.index + 1,
            domain="localhost",
            ip=self._shared.ip,
            name=f"node-{self.index + 1}",
            http_port=self.server.port,
            available_tasks=len(self.memory.queue),
            last_task_acquisition=int(self.memory.last_pull),
            last_update=now,
        )

    def _fresh_memory(self) -> Memory:
        settings = self._shared.settings
        lifetimes = Lifetimes(settings.task_seconds, settings.result_seconds)
        return Memory(self._shared.database, lifetimes, self._shared.clock, self._shared.new_id)

    def _forget(self) -> None:
        self.memory = self._fresh_memory()

    # --- requests -----------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path.startswith("//"):
            path = path[1:]
        path = path.removesuffix("/") or "/"
        if (fault := self.faults.draw(path, "before")) and (broken := await self._have(fault, request, b"{")):
            return broken
        body = Body(request)
        answer = await self._answered(request, path, body)
        if fault := self.faults.draw(path, "after"):
            whole = answer.body if isinstance(answer.body, bytes) else b"{"
            if broken := await self._have(fault, request, whole):
                return broken
        if answer.status >= 400 and body.unread > UNREAD_BYTES:
            await answer.prepare(request)
            await answer.write_eof()
            if request.transport is not None:
                request.transport.close()
        return answer

    async def _answered(self, request: web.Request, path: str, body: Body) -> web.Response:
        try:
            return await self._handler(request.method, path)(request, body)
        except Refusal as refusal:
            answer = refusal.response()
        except BodyError as error:
            answer = Refusal(400, str(error)).response()
        except NoHandler as error:
            answer = error.response(request.headers.get("accept", ""))
        except ConnectionError:
            cut(request)
        self._log.debug("refused", extra={"route": path, "status": answer.status})
        return answer

    def _handler(self, method: str, path: str) -> Handler:
        handler = self._routes.get((method, path))
        if handler is not None:
            return handler
        wrong_method = path in self._paths or path == "/" or method in ("HEAD", "OPTIONS")
        raise NoHandler(405 if wrong_method else 404)

    async def _have(self, fault: Fault, request: web.Request, body: bytes) -> web.Response | None:
        """Have the fault; what it returns is sent in place of the answer."""
        self._log.info("fault", extra={"kind": fault.kind.value, "route": request.path, "when": fault.when})
        match fault.kind:
            case FaultKind.SLOW:
                await asyncio.sleep(fault.seconds)
            case FaultKind.STATUS:
                return web.Response(status=fault.status, text="injected fault")
            case FaultKind.GARBAGE:
                return web.Response(body=body[: max(1, len(body) // 2)], content_type="application/json")
            case FaultKind.RESTART:
                self.server.restart_soon(fault.seconds)
                cut(request)
            case FaultKind.RESET | FaultKind.UNVALIDATED:
                cut(request)
        return None

    # --- about the node -----------------------------------------------------------------------------

    async def _load(self, request: web.Request, body: Body) -> web.Response:
        self._shared.count(request.remote or "", self._shared.limits.results)
        return json_answer(request, Load(gateways=self._shared.infos()))

    async def _leader(self, request: web.Request, body: Body) -> web.Response:
        self._shared.count(request.remote or "", self._shared.limits.results)
        first = self._shared.infos()[0]
        leader = Leader(leader_id=first.node_id, domain=first.domain, ip=first.ip, http_port=first.http_port)
        return json_answer(request, leader)

    async def _id(self, request: web.Request, body: Body) -> web.Response:
        return text_answer(str(self.index + 1))

    async def _metrics(self, request: web.Request, body: Body) -> web.Response:
        return text_answer(metrics_text(self.memory, self._shared.database, self.index))
