"""Cordon and recycle against an API server that holds pods and the operator's status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

LABELS = {"app.kubernetes.io/part-of": "sn17", "app.kubernetes.io/component": "trellis"}


class Held:
    """A worker, a pod of the miner and one of somebody else, none of them ready."""

    def __init__(self) -> None:
        labels: dict[str, dict[str, str]] = {
            "w1": LABELS,
            "miner-0": LABELS | {"app.kubernetes.io/component": "miner"},
            "foreign": {"app.kubernetes.io/component": "trellis"},
            "bare": {},
        }
        not_ready = {"conditions": [{"type": "Ready", "status": "False"}]}
        self.pods = {
            name: {"metadata": {"name": name, "labels": own}, "status": not_ready}
            for name, own in labels.items()
        }
        self.workers: list[dict[str, str]] = []
        self.patched: list[str] = []
        self.config = Path()

    def get(self, path: str) -> Any:
        """The object or list at a path; None where there is none."""
        if "sn17miners" in path:
            return {"items": [{"metadata": {"name": "m"}, "status": {"workers": self.workers}}]}
        if "labelSelector" in path:
            return {"items": [self.pods["w1"]]}
        return self.pods.get(path.rsplit("/", 1)[-1])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Held]:
    held = Held()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(held.get(self.path))

        def do_PATCH(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            held.patched.append(self.path.rsplit("/", 1)[-1])
            self._answer(held.get(self.path))

        def _answer(self, found: Any) -> None:
            body = json.dumps(found or {"message": "not found", "code": 404}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    config = {
        "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": f"http://127.0.0.1:{listening.server_port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "ns"}}],
    }
    file = tmp_path / "config"
    file.write_text(json.dumps(config))
    held.config = file
    yield held
    listening.shutdown()
    listening.server_close()


def run(server: Held, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KUBECONFIG": str(server.config)}
    command = [sys.executable, "-m", "sn17", *arguments]
    return subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("command", ["cordon", "recycle"])
@pytest.mark.parametrize("pod", ["miner-0", "foreign", "bare"])
def test_what_is_not_a_worker_of_a_release_is_refused(server: Held, command: str, pod: str) -> None:
    result = run(server, command, pod, "--wait", "0")
    assert result.returncode == 1
    assert f"{pod} is not a worker of a release; namespace ns has: w1" in result.stdout
    assert server.patched == []


def test_a_pod_that_is_not_ready_anyway_is_not_yet_cordoned(server: Held) -> None:
    result = run(server, "cordon", "w1", "--wait", "0.01")
    assert result.returncode == 1
    assert "will be cordoned when the operator sees it" in result.stdout
    assert "is the operator running?" in result.stdout
    assert server.patched == ["w1"]


def test_a_cordon_that_the_operator_has_noted_is_done(server: Held) -> None:
    server.workers = [{"name": "w1", "state": "Cordoned"}]
    result = run(server, "cordon", "w1")
    assert result.returncode == 0, result.stdout
    assert "w1 is cordoned" in result.stdout


def test_a_wish_is_told_of_as_json_with_the_same_exit_code(server: Held) -> None:
    waits = run(server, "cordon", "w1", "--wait", "0", "--json")
    assert (waits.returncode, json.loads(waits.stdout)["done"]) == (0, False)
    server.workers = [{"name": "w1", "state": "Cordoned"}]
    done = run(server, "cordon", "w1", "--json")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout) == {"name": "w1", "done": True, "message": "w1 is cordoned"}
    paused = run(server, "pause", "--reason", "a test", "--json")
    assert json.loads(paused.stdout) == {"name": "m", "done": True, "message": "m is paused: a test"}
