"""The supervisor, driven with real child processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sn17.up.process import (
    BACKOFF,
    ManagedProcess,
    ProcessFailedError,
    ProcessSpec,
    backoff_seconds,
)

CHILD = """
import json, os, pathlib, signal, sys, threading
ready = pathlib.Path(os.environ["SN17_READY_FILE"])
count = pathlib.Path(os.environ["COUNT_FILE"])
life = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(life))
print("life", life, "on port", os.environ.get("SN17_PORT", "0"), flush=True)
mode = sys.argv[1]
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
if mode == "fail":
    print("the model directory is missing", file=sys.stderr)
    sys.exit(2)
if mode != "silent":
    temporary = ready.with_suffix(".tmp")
    port = int(os.environ.get("SN17_PORT", "0")) or 4242
    schema = mode if mode == "sn17.ready/v9" else "sn17.ready/v1"
    ready_now = {"schema": schema, "port": port, "ops_port": 4343, "pid": os.getpid(), "boot_id": str(life)}
    temporary.write_text(json.dumps(ready_now))
    temporary.replace(ready)
if mode == "recycle-once" and life == 1:
    signal.sigwait({signal.SIGUSR1})
    sys.exit(75)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
threading.Event().wait()
"""


def make(tmp_path: Path, mode: str, events: list[str] | None = None) -> ManagedProcess:
    (tmp_path / "child_under_test.py").write_text(CHILD)
    spec = ProcessSpec(
        name="child",
        module="child_under_test",
        arguments=(mode,),
        env={"PYTHONPATH": str(tmp_path), "COUNT_FILE": str(tmp_path / "count")},
    )
    sink = events if events is not None else []
    return ManagedProcess(spec, tmp_path / "state", on_event=lambda name, text: sink.append(f"{name} {text}"))


async def test_starts_is_ready_and_stops(tmp_path: Path) -> None:
    child = make(tmp_path, "serve")
    ready = await child.start()
    assert (ready.port, ready.ops_port) == (4242, 4343)
    await child.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(ready.pid, 0)


async def test_a_ready_file_of_another_schema_is_refused(tmp_path: Path) -> None:
    child = make(tmp_path, "sn17.ready/v9")
    with pytest.raises(ProcessFailedError, match=r"child: .* has the schema 'sn17\.ready/v9'") as refused:
        await child.start()
    assert "\n" not in str(refused.value)
    assert child.last_exit_code == -signal.SIGTERM


async def test_an_exit_is_answered_by_a_restart_at_the_same_port(tmp_path: Path) -> None:
    events: list[str] = []
    child = make(tmp_path, "recycle-once", events)
    ready = await child.start()
    os.kill(ready.pid, signal.SIGUSR1)
    await _until(lambda: child.ready_path.exists() and _boot_id(child) == "2")
    assert child.restarts == 1
    assert child.last_exit_code == 75
    assert "on port 4242" in child.log_path.read_text().splitlines()[1]
    assert events == ["child exited with code 75, restarted after 0 s"]
    await child.stop()


async def test_a_failed_start_carries_the_log(tmp_path: Path) -> None:
    child = make(tmp_path, "fail")
    with pytest.raises(ProcessFailedError, match=r"(?s)exit code 2.*the model directory is missing"):
        await child.start()


async def test_silence_is_given_up_and_the_child_is_gone(tmp_path: Path) -> None:
    child = make(tmp_path, "silent")
    with pytest.raises(ProcessFailedError, match="made no progress for"):
        await child.start(timeout=0.5)
    assert child.last_exit_code is not None


async def test_a_child_that_ignores_sigterm_is_killed_and_it_is_said(tmp_path: Path) -> None:
    events: list[str] = []
    child = make(tmp_path, "stubborn", events)
    ready = await child.start()
    await child.stop(grace=0.3)
    assert child.last_exit_code == -signal.SIGKILL
    assert "was killed" in events[-1]
    with pytest.raises(ProcessLookupError):
        os.kill(ready.pid, 0)


@given(st.integers(min_value=0, max_value=200))
def test_backoff_never_shrinks_and_is_capped(exits: int) -> None:
    assert 0 <= backoff_seconds(exits) <= backoff_seconds(exits + 1) <= BACKOFF.cap


def _boot_id(child: ManagedProcess) -> str:
    return str(json.loads(child.ready_path.read_text())["boot_id"])


async def _until(condition: object, seconds: float = 20.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
