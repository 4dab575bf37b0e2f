"""A client and a worker of a gateway, as plain as the published ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import numpy as np
from bittensor_wallet import Keypair
from sn17_http import own_client
from sn17_protocol.gateway import sign_time
from sn17_splats import Splats, encode_spz

DEADLINE = 30.0


def splat_bytes(seed: int = 0, n: int = 64) -> bytes:
    """A small valid SPZ, another one for each seed."""
    rng = np.random.default_rng(seed)
    columns = [rng.normal(size=shape).astype(np.float32) for shape in ((n, 3), (n, 3), (n, 4), (n,), (n, 3))]
    return encode_spz(Splats(*columns))


class Client:
    """``key`` may be None."""

    def __init__(self, url: str, key: str | None) -> None:
        headers = {} if key is None else {"x-api-key": key}
        self.http = own_client(base_url=url, headers=headers, timeout=DEADLINE)

    def add(self, prompt: str = "a red robot", **fields: Any) -> httpx2.Response:
        return self.http.post("/add_task", json={"prompt": prompt, **fields})

    def add_form(self, parts: list[tuple[str, Any]], **headers: str) -> httpx2.Response:
        """Parts in this order; a value is text, or (file name, bytes, media type)."""
        files = [(name, value if isinstance(value, tuple) else (None, value)) for name, value in parts]
        return self.http.post("/add_task", files=files, headers=headers)

    def task(self, prompt: str = "a red robot", **fields: Any) -> str:
        answer = self.add(prompt, **fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def status(self, task: str) -> dict[str, Any]:
        answer = self.http.get("/get_status", params={"id": task})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def result(self, task: str, **query: str) -> httpx2.Response:
        return self.http.get("/get_result", params={"id": task, **query})


@dataclass
class FleetWorker:
    """One worker process of a hotkey."""

    url: str
    worker_id: str = "w1"
    uri: str = "//Worker"
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self.keypair = Keypair.create_from_uri(self.uri)
        self.http = own_client(base_url=self.url, timeout=DEADLINE)

    @property
    def hotkey(self) -> str:
        return str(self.keypair.ss58_address)

    def signed(self) -> dict[str, str]:
        signature, timestamp = sign_time(self.keypair, self.clock())
        return {
            "worker_hotkey": self.hotkey,
            "worker_id": self.worker_id,
            "signature": signature,
            "timestamp": timestamp,
        }

    def pull_answer(self, **changes: Any) -> httpx2.Response:
        """``changes`` replace fields of the body; None removes one."""
        body = {**self.signed(), "requested_task_count": 8, "model": "404-3dgs", **changes}
        return self.http.post(
            "/get_tasks", json={name: value for name, value in body.items() if value is not None}
        )

    def pull(self, **changes: Any) -> list[dict[str, Any]]:
        answer = self.pull_answer(**changes)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["tasks"])

    def head(self, task: str, status: str = "success", **fields: str) -> list[tuple[str, str]]:
        """The six required parts, in 404's order."""
        signed = self.signed()
        values = {
            "id": task,
            "signature": signed["signature"],
            "timestamp": signed["timestamp"],
            "worker_hotkey": signed["worker_hotkey"],
            "worker_id": signed["worker_id"],
            "status": status,
            **fields,
        }
        return list(values.items())

    def send(self, parts: list[tuple[str, Any]]) -> httpx2.Response:
        files = [
            (name, ("result.spz", value) if isinstance(value, bytes) else (None, value))
            for name, value in parts
        ]
        return self.http.post("/add_result", files=files)

    def deliver(self, offer: dict[str, Any], asset: bytes) -> httpx2.Response:
        token = [("assignment_token", offer["assignment_token"])]
        return self.send([*self.head(offer["id"]), *token, ("asset", asset)])

    def fail(self, offer: dict[str, Any], reason: str) -> httpx2.Response:
        return self.send([*self.head(offer["id"], "failure"), ("reason", reason)])
