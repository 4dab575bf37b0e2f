"""A node of a gateway whose answers a test chooses: what the real one does only when it is in trouble."""

from __future__ import annotations

import base64
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from aiohttp import web
from miner_fakes import Server, reset
from sn17_contract.gateway import DEFAULT_MODEL, GONE
from sn17_protocol.gateway import check_signature

IMAGE = base64.b64encode(b"\x89PNG picture").decode()


@dataclass
class Received:
    """One call of ``add_result``: its fields, and when it came."""

    fields: dict[str, str]
    asset: bytes | None

    @property
    def task(self) -> str:
        return self.fields["id"]


@dataclass
class FakeNode(Server):
    """``waiting`` tasks are handed out in order. ``pull_script`` and ``result_script`` change next answers:
    a status, ``reset`` before anything is done, ``reset_after`` when it is stored already.
    """

    node_id: int = 1
    clock_shift: float = 0.0
    """Seconds by which this node's clock is ahead of ours."""
    listed: list[dict[str, Any]] | None = None
    """Nodes that it tells of; None: itself."""
    waiting: deque[dict[str, Any]] = field(default_factory=deque)
    given: dict[str, dict[str, Any]] = field(default_factory=dict)
    stored: dict[str, bytes | None] = field(default_factory=dict)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    asked_status: list[str] = field(default_factory=list)
    pull_script: deque[str] = field(default_factory=deque)
    result_script: deque[str] = field(default_factory=deque)
    winner: str | None = None
    """Worker id that clients are told of, in place of ours."""

    def routes(self, app: web.Application) -> None:
        app.router.add_post("/get_tasks", self.get_tasks)
        app.router.add_post("/add_result", self.add_result)
        app.router.add_get("/get_status", self.get_status)

    def now(self) -> float:
        return time.time() + self.clock_shift

    def task(self, **changes: Any) -> str:
        """A task that waits; its id."""
        task = {"id": str(uuid.uuid4()), "prompt": "a red cube", "model": DEFAULT_MODEL, "seed": 7, **changes}
        self.waiting.append({k: v for k, v in task.items() if v is not None})
        return str(task["id"])

    def restart(self) -> None:
        """As 404's gateway: queue and assignments are gone."""
        self.waiting.clear()
        self.given.clear()

    def info(self) -> dict[str, Any]:
        return {
            "node_id": self.node_id, "domain": "127.0.0.1", "ip": "127.0.0.1", "name": "fake",
            "http_port": self.port, "available_tasks": len(self.waiting), "last_task_acquisition": 0,
            "last_update": 0,
        }  # fmt: skip

    def _refused(self, fields: dict[str, Any]) -> web.Response | None:
        wrong = check_signature(fields["worker_hotkey"], fields["signature"], fields["timestamp"], self.now())
        return None if wrong is None else self._text(401, f"Unauthorized request: {wrong}")

    def _text(self, status: int, text: str, **headers: str) -> web.Response:
        date = formatdate(self.now(), usegmt=True)
        return web.Response(status=status, text=text, headers={"Date": date, **headers})

    async def get_tasks(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.pulls.append(body)
        await self.changes.happened()
        step = self.pull_script.popleft() if self.pull_script else "work"
        if step == "reset":
            return reset(request)
        if step.isdecimal():
            return self._text(int(step), "made to fail")
        if step == "garbage":
            return web.json_response({"tasks": [{"id": 5}, "x"], "gateways": [{"node_id": "?"}]})
        refused = self._refused(body)
        if refused is not None:
            return refused
        tasks = []
        while self.waiting and len(tasks) < body["requested_task_count"]:
            task = self.waiting.popleft() | {"assignment_token": str(uuid.uuid4())}
            self.given[task["id"]] = {**task, "worker_id": body["worker_id"]}
            tasks.append(task)
        return web.json_response(
            {"tasks": tasks, "gateways": [self.info()] if self.listed is None else self.listed}
        )

    async def add_result(self, request: web.Request) -> web.Response:
        form = await request.post()
        asset = form.get("asset")
        content = asset.file.read() if isinstance(asset, web.FileField) else None
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        self.received.append(Received(fields, content))
        await self.changes.happened()
        step = self.result_script.popleft() if self.result_script else "work"
        if step == "reset":
            return reset(request)
        if step.isdecimal():
            return self._text(int(step), "made to fail", **({"Retry-After": "0"} if step == "429" else {}))
        refused = self._refused(fields)
        if refused is not None:
            return refused
        task = self.given.get(fields["id"])
        if task is None or fields["id"] in self.stored:
            return web.json_response({"error": GONE, "message": "over"}, status=410)
        if (fields["assignment_token"], fields["worker_id"]) != (task["assignment_token"], task["worker_id"]):
            return self._text(401, "Unauthorized request: not assigned")
        self.stored[fields["id"]] = content
        await self.changes.happened()
        return reset(request) if step == "reset_after" else web.Response(text="Ok")

    async def get_status(self, request: web.Request) -> web.Response:
        task = request.query["id"]
        self.asked_status.append(task)
        if task not in self.stored:
            return web.json_response({"status": "NoResult"})
        return web.json_response(
            {"status": "Success", "worker_id": self.winner or self.given[task]["worker_id"]}
        )
