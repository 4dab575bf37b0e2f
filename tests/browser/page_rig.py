"""The real gateway with its page, in front of a miner that says what a test wants."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
from gateway_process import TOKEN as ADMIN_TOKEN
from gateway_process import GatewayProcess
from page_miner import TOKEN, FakeMiner, task
from sn17_http import own_request

WAIT_MS = 90_000
"""Deadline of every wait: drawing in software on a busy machine takes its time."""


class Rig:
    """``miner`` may be changed while the gateway runs."""

    def __init__(self, gateway: GatewayProcess, miner: FakeMiner) -> None:
        self.gateway = gateway
        self.miner = miner

    @property
    def url(self) -> str:
        return self.gateway.url

    @property
    def url_elsewhere(self) -> str:
        """The same gateway under a name that is not this machine's own."""
        return f"http://gen.example.com:{self.gateway.ports['port']}"

    def create_key(self, name: str) -> str:
        """A person's own key."""
        url = f"{self.gateway.ops_url}/admin/v1/keys"
        headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
        answer = own_request("POST", url, json={"name": name}, headers=headers, timeout=30)
        return str(answer.raise_for_status().json()["key"])


@contextmanager
def rig(folder: Path, **settings: Any) -> Iterator[Rig]:
    """Gateway and miner up; both end with the context."""
    miner = FakeMiner()
    miner.tasks = [task(2), task(1)]
    token = folder / "miner-token"
    token.write_text(TOKEN)
    with _served(miner) as url:
        gateway = GatewayProcess(folder, miner_url=url, miner_token_file=token, **settings)
        with gateway:
            yield Rig(gateway, miner)


@contextmanager
def _served(miner: FakeMiner) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            request = httpx2.Request("GET", f"http://miner{self.path}", headers=dict(self.headers))
            answer = miner.answer(request)
            self.send_response(answer.status_code)
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
