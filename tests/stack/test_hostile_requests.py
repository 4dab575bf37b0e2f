"""Requests that nobody should send, to every HTTP port of every service: memory is bounded, work goes on."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

MIB = 1 << 20
GROWTH_MIB = 64
SLOW_CONNECTIONS = 60
HEAD_SECONDS = "3"
DEADLINE = 60.0
START_SECONDS = 200.0
"""A busy machine takes its time to start all of them."""

MALFORMED = {
    "nothing but noise": os.urandom(4096),
    "tls": bytes.fromhex("16030100f4010000f00303") + os.urandom(200),
    "no version": b"GET\r\n\r\n",
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "long target": b"GET /" + b"a" * MIB + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "long header": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * MIB + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
    "negative length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "length and chunks": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
    "bad chunk": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    "endless chunk": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
    "a terabyte": b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 1099511627776\r\n\r\n",
    "null bytes": b"GET /\x00 HTTP/1.1\r\nHost: \x00\r\n\r\n",
    "dots": b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
}


@dataclass(frozen=True)
class Port:
    """A port that listens. ``health``: a path that answers 200 there or on the process's ops port."""

    name: str
    port: int
    pid: int
    health: str


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Port]]:
    folder = tmp_path_factory.mktemp("hostile")
    command = [sys.executable, "-m", "sn17", "up", "--backend", "procedural"]
    command += ["--max-gaussians", "30000", "--workers", "1"]
    environment = {**os.environ, "SN17_HEADER_TIMEOUT_SECONDS": HEAD_SECONDS}
    with contextlib.ExitStack() as stack:
        up = subprocess.Popen(
            [*command, "--state-dir", str(folder)], stdout=subprocess.DEVNULL, env=environment
        )
        stack.callback(up.wait)
        stack.callback(up.send_signal, signal.SIGTERM)
        operator = stack.enter_context(_operator(folder, environment))
        files = [folder / f"run/{name}.json" for name in ("validators", "fixer", "trellis-1", "miner")]
        _until(lambda: all(file.exists() for file in (*files, operator)), START_SECONDS)
        found = []
        for file in (*files, operator):
            ready = json.loads(file.read_text())
            health = f"http://127.0.0.1:{ready['ops_port']}/health"
            kinds = [kind for kind in ("port", "ops_port") if ready.get(kind)]
            found += [Port(f"{file.stem} {kind}", ready[kind], ready["pid"], health) for kind in kinds]
        validators = found[0]
        info = json.loads((folder / "validators/devnet.json").read_text())
        pid, health = validators.pid, validators.health
        found += [Port(f"validator at {each}", each, pid, health) for each in _axon_ports(info)]
        _until(lambda: all(_healthy(port) for port in found))
        yield found


def _axon_ports(info: dict[str, Any]) -> list[int]:
    with urlopen(info["snapshot_url"]) as answer:
        neurons = json.load(answer)["neurons"]
    return [neuron["port"] for neuron in neurons if neuron["serving"]]


@contextlib.contextmanager
def _operator(folder: Path, environment: dict[str, str]) -> Iterator[Path]:
    """The operator's process, which waits for an API server that is not there."""
    cluster = {"name": "x", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
    config = {"clusters": [cluster], "contexts": [context], "users": [{"name": "x", "user": {}}]}
    kubeconfig, ready = folder / "kubeconfig", folder / "operator.json"
    kubeconfig.write_text(
        json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "x", **config})
    )
    own = {"KUBECONFIG": str(kubeconfig), "SN17_OPS_PORT": "0", "SN17_READY_FILE": str(ready)}
    with subprocess.Popen(
        [sys.executable, "-m", "sn17_operator"],
        env={**environment, **own, "SN17_DIE_WITH_PARENT": "true"},
        stderr=(folder / "operator.log").open("w"),
    ) as process:
        try:
            yield ready
        finally:
            # Else whatever goes wrong meanwhile waits for its end for ever.
            process.kill()


def _until(found: Any, seconds: float = DEADLINE) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "not within the deadline"
        time.sleep(0.1)


def _healthy(port: Port) -> bool:
    with contextlib.suppress(OSError), urlopen(port.health, timeout=10) as answer:
        return bool(answer.status == 200)
    return False


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // MIB


def _say(port: int, text: bytes) -> bytes:
    """Send as much of it as is taken; what comes back until the end or for 10 s."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(text)
        with contextlib.suppress(OSError):
            while part := connection.recv(65_536):
                answer += part
                if b"\r\n\r\n" in answer:
                    break
    return answer


@pytest.mark.timeout(300)
def test_malformed_and_oversized_requests_are_refused_and_cost_nothing(ports: list[Port]) -> None:
    before = {port.pid: _resident(port.pid) for port in ports}
    for port in ports:
        for name, text in MALFORMED.items():
            answer = _say(port.port, text)
            accepted = answer.startswith(b"HTTP/1.1 2")
            assert not accepted, f"{port.name} took {name}: {answer[:80]!r}"
    _until(lambda: all(_healthy(port) for port in ports))
    for port in ports:
        grown = _resident(port.pid) - before[port.pid]
        assert grown < GROWTH_MIB, f"{port.name} grew by {grown} MiB"


@pytest.mark.timeout(300)
def test_slow_senders_are_cut_while_others_are_served(ports: list[Port]) -> None:
    before = {port.pid: _resident(port.pid) for port in ports}
    head = b"POST / HTTP/1.1\r\nHost: x\r\nX-Slow: "
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for port in ports:
            for _ in range(SLOW_CONNECTIONS):
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", port.port)))
                connection.sendall(head)
                connection.setblocking(False)
                selector.register(connection, selectors.EVENT_READ, port)
        assert all(_healthy(port) for port in ports)
        end = time.monotonic() + DEADLINE
        while selector.get_map():
            left = {key.data.name for key in selector.get_map().values()}
            assert time.monotonic() < end, f"still open: {left}"
            for key, _ in selector.select(0.5):
                with contextlib.suppress(BlockingIOError):
                    if not _part(key.fileobj):
                        selector.unregister(key.fileobj)
            for key in list(selector.get_map().values()):
                with contextlib.suppress(OSError):
                    assert isinstance(key.fileobj, socket.socket)
                    key.fileobj.send(b"x")
    assert all(_healthy(port) for port in ports)
    for port in ports:
        grown = _resident(port.pid) - before[port.pid]
        assert grown < GROWTH_MIB, f"{port.name} grew by {grown} MiB"


def _part(connection: Any) -> bytes:
    try:
        return bytes(connection.recv(4096))
    except ConnectionError:
        return b""
