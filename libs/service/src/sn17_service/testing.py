"""For tests: a service in this process, on real sockets, with its own loop in a thread. Needs httpx2."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import httpx2
from fastapi import FastAPI
from sn17_http import own_request

from sn17_service.service import Service

DEADLINE_SECONDS = 30.0


class ServiceThread:
    """``start`` returns when both ports listen; use it as a context manager to stop it afterwards."""

    def __init__(self, service: Service, app: FastAPI | None, *, token: str | None = None) -> None:
        self.service = service
        self.exit_code: int | None = None
        self._app = app
        self._token = token
        self._error: BaseException | None = None
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="service", daemon=True)

    def __enter__(self) -> ServiceThread:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.exit_code is None:
            self.stop()

    def start(self) -> ServiceThread:
        async def up() -> None:
            self._up.set()

        self.service.on_start.append(up)
        self._thread.start()
        self._up.wait(DEADLINE_SECONDS)
        if self._error is not None:
            raise self._error
        return self

    def stop(self, code: int = 0, reason: str = "test") -> int:
        self.service.stop(code, reason)
        return self.join()

    def join(self) -> int:
        """Wait for the end; returns the exit code."""
        self._thread.join(DEADLINE_SECONDS)
        if self.exit_code is None:
            raise AssertionError("the service did not stop in time") from self._error
        return self.exit_code

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.service.port}"

    @property
    def ops_url(self) -> str:
        return f"http://127.0.0.1:{self.service.ops_port}"

    def data(self, method: str, path: str, **kwargs: Any) -> httpx2.Response:
        """A request to the data port."""
        return own_request(method, self.url + path, timeout=DEADLINE_SECONDS, **kwargs)

    def ops(self, method: str, path: str, *, token: str | None = "", **kwargs: Any) -> httpx2.Response:
        """A request to the ops port, by default with the right token; None sends none."""
        given = self._token if token == "" else token
        headers = {} if given is None else {"authorization": f"Bearer {given}"}
        return own_request(method, self.ops_url + path, headers=headers, timeout=DEADLINE_SECONDS, **kwargs)

    def raw(self) -> socket.socket:
        """A bare connection to the data port."""
        return socket.create_connection(("127.0.0.1", self.service.port or 0), timeout=DEADLINE_SECONDS)

    def metric(self, name: str, **labels: str) -> float | None:
        """A sample as a scrape would see it."""
        return self.service.registry.get_sample_value(name, labels)

    def _run(self) -> None:
        try:
            self.exit_code = asyncio.run(self.service.run(self._app))
        except BaseException as error:
            self._error = error
            self._up.set()
