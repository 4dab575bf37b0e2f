"""Signals, parents and hanging parts, with real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sn17_http import own_request

SCRIPT = Path(__file__).with_name("service_process.py")
DEADLINE = 30.0

Start = Callable[..., subprocess.Popen[str]]


def wait_for(what: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **settings: object) -> subprocess.Popen[str]:
        env = {
            **os.environ,
            "SN17_OPS_PORT": "0",
            "SN17_READY_FILE": str(tmp_path / "ready.json"),
            **{f"SN17_{name.upper()}": str(value) for name, value in settings.items()},
        }
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *arguments], env=env, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ready(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "ready.json"
    wait_for(file.exists)
    values: dict[str, Any] = json.loads(file.read_text())
    return values


def test_sigterm_finishes_the_work_and_exits_0(start: Start, tmp_path: Path) -> None:
    process = start()
    values = ready(tmp_path)
    assert values["pid"] == process.pid
    answer = own_request("GET", f"http://127.0.0.1:{values['ops_port']}/health")
    assert answer.json()["boot_id"] == values["boot_id"]
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert "finished its work" in log


def test_work_that_does_not_end_is_cut_off_after_the_grace(start: Start, tmp_path: Path) -> None:
    process = start(behaviour="hang", grace_seconds=0.3)
    ready(tmp_path)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert "finished its work" not in log


def test_a_second_signal_leaves_at_once(start: Start, tmp_path: Path) -> None:
    process = start(behaviour="hang", grace_seconds=600)
    values = ready(tmp_path)
    process.send_signal(signal.SIGTERM)
    url = f"http://127.0.0.1:{values['ops_port']}/ready"
    wait_for(lambda: own_request("GET", url).status_code == 503)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 128 + signal.SIGTERM


def test_probes_answer_while_the_main_loop_is_blocked(start: Start, tmp_path: Path) -> None:
    """No ready file is written then, so the port is chosen beforehand."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start(behaviour="block", ops_port=port)

    def healthy() -> bool:
        try:
            return own_request("GET", f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200
        except httpx2.TransportError:
            return False

    wait_for(healthy)
    assert "sn17_boot_info" in own_request("GET", f"http://127.0.0.1:{port}/metrics", timeout=5).text


def test_a_failed_background_task_ends_the_process(start: Start) -> None:
    process = start(behaviour="fail")
    _, log = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert "kaput" in log


def test_a_taken_port_is_said_and_exits_1(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start(port=port)
        _, log = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in log


def test_a_child_dies_with_its_killed_parent(start: Start, tmp_path: Path) -> None:
    parent = start("parent", die_with_parent="true")
    child = int(ready(tmp_path)["pid"])
    assert child != parent.pid
    parent.kill()
    parent.wait(DEADLINE)
    wait_for(lambda: not _alive(child))


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
