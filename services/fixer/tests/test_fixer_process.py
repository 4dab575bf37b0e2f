"""The fixer as a process of its own, as an operator runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixer_splats import shell
from sn17_http import own_client
from sn17_splats import encode_spz, write_ply

DEADLINE = 60.0


@pytest.fixture(scope="module")
def fixer(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, int]]]:
    ready: Path = tmp_path_factory.mktemp("fixer") / "ready.json"
    settings = {"SN17_PORT": "0", "SN17_OPS_PORT": "0", "SN17_READY_FILE": str(ready), "SN17_THREADS": "2"}
    process = subprocess.Popen([sys.executable, "-m", "sn17_fixer"], env={**os.environ, **settings})
    deadline = time.monotonic() + DEADLINE
    while not ready.exists():
        assert process.poll() is None, "the fixer ended"
        assert time.monotonic() < deadline, "the fixer does not listen"
        time.sleep(0.05)
    try:
        yield process, json.loads(ready.read_text())
    finally:
        process.kill()
        process.wait()


def test_it_fixes_over_http_reports_itself_and_ends_cleanly(fixer) -> None:
    process, ports = fixer
    splats = shell()
    with own_client(base_url=f"http://127.0.0.1:{ports['port']}", timeout=DEADLINE) as http:
        assert http.get("/health").json() == {"status": "healthy"}
        answer = http.post("/fix", content=write_ply(splats))
        assert answer.status_code == 200
        assert answer.content == encode_spz(splats)
        assert http.post("/fix", content=b"nonsense").json()["code"] == "bad_splat"
    with own_client(base_url=f"http://127.0.0.1:{ports['ops_port']}", timeout=DEADLINE) as ops:
        assert ops.get("/ready").status_code == 200
        metrics = ops.get("/metrics").text
    assert 'sn17_fixes_total{policy="measured",verdict="healthy"} 1.0' in metrics
    assert 'sn17_refusals_total{code="bad_splat"} 1.0' in metrics
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE) == 0


def test_a_wrong_setting_is_named() -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "sn17_fixer"], env={**os.environ, "SN17_POLICY": "flat"}, capture_output=True,
        text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert outcome.returncode == 2
    assert "SN17_POLICY" in outcome.stderr
