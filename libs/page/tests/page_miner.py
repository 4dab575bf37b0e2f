"""Answers of a miner for the page's tests, and an application that serves the page in front of them."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import numpy as np
from sn17_splats import Splats, encode_spz

NOW = 1_800_000_000.0
TOKEN = "a-token-of-the-miner"


def task(n: int, **changes: Any) -> dict[str, Any]:
    """A task as the miner's ``/v1/tasks`` has it."""
    attempt = {
        "key": f"key-{n}",
        "worker": "trellis-0",
        "seed": 1000 + n,
        "state": "fixed",
        "started_at": NOW - 20,
        "finished_at": NOW - 12,
        "signal": "repaired" if n % 2 else "healthy",
        "score": None,
        "confidence": None,
        "failure": None,
        "error": None,
        "lane": "exact",
    }
    base = {
        "n": n,
        "task_id": f"task-{n}",
        "validator": "5Validator",
        "uid": 27,
        "kind": "text",
        "prompt": f"a red cube, number {n}",
        "enhancement": "none",
        "state": "done",
        "outcome": "accepted",
        "reason": None,
        "score": 0.91,
        "pulled_at": NOW - 21,
        "finished_at": NOW - 10,
        "submits": 1,
        "attempts": [attempt],
        "events": None,
        "door": "validators",
        "kept": True,
    }
    return base | changes


def tally(**changes: Any) -> dict[str, Any]:
    base = {
        "ended": 4,
        "outcomes": {"accepted": 3, "rejected": 1},
        "reasons": {},
        "success": 0.75,
        "yield": 0.75,
        "in_time": 1.0,
    }
    return base | changes


def task_list(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    window = tally(
        hours=24,
        validators=[tally(validator="5Validator", uid=27)],
        gateways=[tally(door="mine", ended=1, outcomes={"accepted": 1}, success=1.0)],
    )
    return {
        "tasks": tasks,
        "counts": {"done": len(tasks)},
        "windows": [tally(hours=1, validators=[]), window],
    }


def worker(**changes: Any) -> dict[str, Any]:
    status = {
        "worker": "trellis-0",
        "version": "0",
        "boot_id": "b",
        "life_id": "l1",
        "state": "ready",
        "reason": None,
        "job": None,
        "memory": {"unreclaimable_bytes": 6, "working_set_bytes": 7, "limit_bytes": 12},
        "phase": None,
        "start_seconds": 4.0,
        "models": ["text"],
        "gaussians_mean": 24_000.0,
        "model_processes": 1,
        "recycling": None,
        "last_recycle": None,
    }
    return {
        "url": "http://trellis-0:10006",
        "name": "trellis-0",
        "state": "ready",
        "free": True,
        "reason": None,
        "status": status | changes,
    }


def places(workers: list[dict[str, Any]]) -> dict[str, Any]:
    return {"validators": [], "workers": workers, "not_pulling": None, "gateways": []}


def splats(count: int = 2000, seed: int = 0) -> Splats:
    """Coloured gaussians on a sphere."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, 3))
    points *= 0.4 / np.linalg.norm(points, axis=1, keepdims=True)
    return Splats(
        positions=points.astype(np.float32),
        log_scales=np.full((count, 3), np.log(0.02), np.float32),
        rotations=np.tile(np.array([1, 0, 0, 0], np.float32), (count, 1)),
        opacity_logits=np.full(count, 3.0, np.float32),
        f_dc=(points * 2).astype(np.float32),
    )


class FakeMiner:
    """``/v1/tasks``, ``/v1/validators`` and assets; ``down`` makes it refuse connections."""

    def __init__(self) -> None:
        self.tasks: list[dict[str, Any]] = [task(n) for n in range(3, 0, -1)]
        self.workers: list[dict[str, Any]] = [worker()]
        self.assets: dict[int, bytes] = {n: encode_spz(splats(seed=n)) for n in (1, 2)}
        self.down = False
        self.asked: list[str] = []
        self.hosts: set[str] = set()

    def transport(self) -> httpx2.MockTransport:
        return httpx2.MockTransport(self.answer)

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request.url.path)
        self.hosts.add(request.url.netloc.decode())
        if self.down:
            raise httpx2.ConnectError("refused")
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return httpx2.Response(401)
        path = request.url.path
        if path == "/v1/tasks":
            return self._json(task_list(self.tasks[: int(request.url.params["limit"])]))
        if path == "/v1/validators":
            return self._json(places(self.workers))
        n = int(path.split("/")[3])
        return httpx2.Response(200, content=self.assets[n]) if n in self.assets else httpx2.Response(404)

    @staticmethod
    def _json(body: Any) -> httpx2.Response:
        return httpx2.Response(200, content=json.dumps(body).encode())
