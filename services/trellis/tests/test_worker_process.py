"""Workers as processes of their own, with faults that really happen to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from sn17_http import own_request
from sn17_splats import SplatError, read_ply

Wait = Callable[[Callable[[], object]], None]
PROMPT = {"prompt": "two large blue domes on a red plate"}
MIB = 1024 * 1024
DEADLINE = 60.0


def test_a_leak_is_refused_at_the_mark_and_cured_by_the_workers_own_end(new_process: Any) -> None:
    """No operator, no kill: the arm 'guard on, operator off' of the proof, with a process' own memory."""
    settings = {
        "model_process": "off",
        "memory_limit_bytes": 400 * MIB,
        "faults": {"leak_mib_per_generation": 40},
        "self_recycle_after_seconds": 0.3,
    }
    worker = new_process(**settings)
    answers: list[httpx2.Response] = []
    while worker.process.poll() is None and len(answers) < 40:
        try:
            answers.append(worker.post())
        except httpx2.TransportError:
            break
        if answers[-1].status_code != 200:
            break
    assert [answer.status_code for answer in answers[:3]] == [200, 200, 200]
    assert answers[-1].status_code == 503
    assert answers[-1].json()["code"] in ("memory_refused", "draining")
    assert worker.wait() == 75
    assert "self_recycle" in worker.log()
    again = new_process(**settings)
    assert again.state()["state"] == "ready"
    assert "sn17_self_recycles_total 1.0" in own_request("GET", f"{again.ops_url}/metrics").text
    assert again.post().status_code == 200


def test_gaussians_decay_as_memory_fills(new_process: Any) -> None:
    worker = new_process(
        memory_limit_bytes=400 * MIB,
        guard="off",
        faults={"leak_mib_per_generation": 40, "gaussian_decay": True},
    )
    counts = [int(worker.post().headers["sn17-gaussians"]) for _ in range(9)]
    assert counts[0] > 5 * counts[-1]
    assert counts == sorted(counts, reverse=True)
    assert worker.state()["gaussians_mean"] < counts[0]


def test_a_killed_worker_gives_the_kept_result_after_its_restart(new_process: Any) -> None:
    worker = new_process()
    first = worker.post("task/1")
    assert first.status_code == 200
    worker.process.send_signal(signal.SIGKILL)
    worker.wait()
    again = new_process()
    answer = again.post("task/1")
    assert answer.content == first.content
    assert answer.headers["sn17-seed"] == first.headers["sn17-seed"]


def test_a_crash_breaks_the_connection_and_the_next_life_serves(new_process: Any) -> None:
    worker = new_process(model_process="off", faults={"crash_after": 1})
    assert worker.post().status_code == 200
    with pytest.raises(httpx2.TransportError):
        worker.post()
    assert worker.wait() == -signal.SIGKILL
    assert new_process(model_process="off").post().status_code == 200


def test_sigterm_in_the_middle_of_a_job_delivers_it(new_process: Any, wait_until: Wait) -> None:
    worker = new_process(faults={"slow_seconds": 1.0})
    answers: list[httpx2.Response] = []
    poster = threading.Thread(target=lambda: answers.append(worker.post()))
    poster.start()
    wait_until(lambda: worker.state()["job"] is not None)
    worker.process.send_signal(signal.SIGTERM)
    poster.join(DEADLINE)
    assert worker.wait() == 0
    assert answers[0].status_code == 200
    assert len(read_ply(answers[0].content)) == int(answers[0].headers["sn17-gaussians"])


def test_a_hanging_job_is_visible_and_does_not_keep_the_process(new_process: Any, wait_until: Wait) -> None:
    worker = new_process(model_process="off", faults={"hang_after": 0}, grace_seconds=0.3, stall_seconds=0.5)
    with pytest.raises(httpx2.ReadTimeout):
        own_request("POST", f"{worker.url}/generate", data=PROMPT, timeout=0.5)
    assert worker.state()["state"] == "busy"
    wait_until(lambda: own_request("GET", f"{worker.ops_url}/health").status_code == 503)
    assert "worker_thread" in own_request("GET", f"{worker.ops_url}/health").json()["problems"]
    assert worker.post().json()["code"] == "busy"
    worker.process.send_signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_half_answers_and_garbage_are_what_they_say(new_process: Any) -> None:
    worker = new_process(faults={"half_answer_every": 2, "garbage_every": 3})
    assert len(read_ply(worker.post().content)) > 0
    with pytest.raises(httpx2.RemoteProtocolError):
        worker.post()
    garbage = worker.post()
    assert garbage.status_code == 200
    with pytest.raises(SplatError):
        read_ply(garbage.content)
    assert own_request("GET", f"{worker.url}/version").json()["faults"] is True


def test_a_half_answer_with_a_key_is_whole_the_next_time(new_process: Any) -> None:
    worker = new_process(faults={"half_answer_every": 2})
    worker.post()
    with pytest.raises(httpx2.RemoteProtocolError):
        worker.post("t/1", seed="5")
    assert len(read_ply(worker.post("t/1", seed="5").content)) > 0


def test_the_commands_explain_themselves() -> None:
    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sn17_trellis", *arguments],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    assert "serve" in run("--help").stdout
    listing = run("serve", "--help").stdout
    for name in ("SN17_BACKEND", "SN17_SPOOL_DIR", "SN17_FAULTS__LEAK_MIB_PER_GENERATION", "SN17_GUARD"):
        assert name in listing
    wrong = run("serve", SN17_FAULTS='{"leek": 1}')
    assert wrong.returncode == 2
    assert "SN17_FAULTS__LEEK" in wrong.stderr


def test_the_model_that_makes_the_assets_is_a_label_of_a_metric(new_process: Any) -> None:
    """A board that compares it with what was there before shows when a checkpoint changed."""
    worker = new_process(procedural_max_gaussians=40_000)
    text = own_request("GET", f"{worker.ops_url}/metrics").text
    (line,) = [each for each in text.splitlines() if each.startswith("sn17_model_info{")]
    assert line.startswith('sn17_model_info{model="procedural/')
    assert "max=40000" in line
    assert line.endswith(" 1.0")
