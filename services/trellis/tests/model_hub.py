"""A model hub on this machine, and the worker's commands against it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/some-model"
WEIGHTS = bytes(range(256)) * 2048
ROLES = ("sparse_structure_flow_model", "sparse_structure_decoder", "slat_flow_model", "slat_decoder_gs")
PIPELINE = json.dumps({"args": {"models": {role: f"ckpts/{role}" for role in (*ROLES, "slat_decoder_mesh")}}})


class Hub:
    """As much of the hub's API as a download needs; counts what it is asked and can cut a file short."""

    def __init__(self) -> None:
        self.files = {"pipeline.json": PIPELINE.encode(), "README.md": b"unneeded", "big.bin": b"unneeded"}
        for role in (*ROLES, "slat_decoder_mesh"):
            self.files[f"ckpts/{role}.json"] = b"{}"
            self.files[f"ckpts/{role}.safetensors"] = role.encode() + WEIGHTS
        self.repositories = {REPOSITORY: self.files}
        self.requests: list[tuple[str, str, str | None]] = []
        self.cut: str | None = None
        self.cuts = 0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def log_message(self, *_: Any) -> None:
                pass

            def _answer(self, *, body: bool) -> None:
                path = self.path.partition("?")[0]
                hub.requests.append((self.command, path, self.headers.get("Range")))
                if path.startswith("/api/models/"):
                    self._json(hub.describe(path.removeprefix("/api/models/")))
                    return
                repository, _, name = path[1:].partition(f"/resolve/{COMMIT}/")
                files = hub.repositories.get(repository, {})
                if name not in files:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "RevisionNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                content = files[name]
                etag = hashlib.sha256(content).hexdigest()
                wanted, status = content, 200
                if body and (asked := self.headers.get("Range")):
                    wanted, status = content[int(asked.removeprefix("bytes=").split("-")[0]) :], 206
                self.send_response(status)
                self.send_header("ETag", f'"{etag}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", str(len(wanted)))
                if status == 206:
                    start = len(content) - len(wanted)
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.end_headers()
                if not body:
                    return
                if hub.cut == name and hub.cuts:
                    hub.cuts -= 1
                    self.wfile.write(wanted[: len(wanted) // 2])
                    self.close_connection = True
                    return
                self.wfile.write(wanted)

            def _json(self, value: Any) -> None:
                content = json.dumps(value).encode()
                self.send_response(200 if value else 404)
                self.send_header("Content-Type", "application/json")
                if not value:
                    self.send_header("X-Error-Code", "RevisionNotFound")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def describe(self, path: str) -> Any:
        owner, name, *rest = path.split("/")
        files = self.repositories.get(f"{owner}/{name}")
        rest = rest or [""]
        if files is None:
            return None
        if len(rest) > 1 and rest[1] not in (COMMIT, "main"):
            return None
        if rest[0] == "tree":
            return [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
        siblings = [{"rfilename": each, "size": len(content)} for each, content in files.items()]
        repository = f"{owner}/{name}"
        return {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings, "tags": []}

    def downloads(self) -> list[str]:
        return [path for command, path, _ in self.requests if command == "GET" and "/resolve/" in path]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def command(folder: Path, hub: Hub, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "2",
    }
    return subprocess.run(
        [sys.executable, "-m", "sn17_trellis", *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
