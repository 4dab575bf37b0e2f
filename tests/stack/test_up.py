"""The whole stack as a newcomer starts it: real processes, the real protocol."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from sn17_splats import read_splat

#: Proxies that nothing answers at, of a kind that no client can use: local runs must not look at them.
PROXIES = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"), "socks5://127.0.0.1:9")

UP = [sys.executable, "-m", "sn17", "up", "--backend", "procedural", "--max-gaussians", "60000"]


@pytest.mark.timeout(240)
def test_every_task_ends_and_healthy_ones_are_accepted_whatever_proxy_is_named(tmp_path: Path) -> None:
    report_file = tmp_path / "report.json"
    command = [*UP, "--tasks", "6", "--state-dir", str(tmp_path / "run"), "--report", str(report_file)]
    environment = {**os.environ, **PROXIES}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 6 tasks are accounted for." in done.stdout

    report = json.loads(report_file.read_text())
    assert report["unaccounted"] == []
    assert sum(row["pulled"] for row in report["validators"]) == 6
    assert sum(row["outcomes"]["accepted"] for row in report["validators"]) == 6
    assert sum(worker["generations"] for worker in report["workers"]) == 6
    assert all(worker["memory_peak_bytes"] > 0 for worker in report["workers"])


@pytest.mark.timeout(300)
def test_a_leaking_model_process_is_renewed_at_work_and_no_task_is_lost(tmp_path: Path) -> None:
    report_file = tmp_path / "report.json"
    command = [*UP[:-2], "--demo", "--validators", "3", "--tasks", "39"]
    command += ["--state-dir", str(tmp_path / "run"), "--report", str(report_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    story = [line.split(": ")[1] for line in done.stdout.splitlines() if "  trellis-2: " in line]
    assert "another model process serves" in (tmp_path / "run" / "logs" / "trellis-2.log").read_text(), story
    # By a swap or a replacement, of the operator or its guard: what costs least is measured, and differs with
    # the load. Whoever watches is told.
    renewed = ("WorkerSwapped", "WorkerReplaced", "swap done", "replace done")
    assert any(what.startswith(renewed) for what in story), done.stdout
    assert not {"RecycleRequested", "WorkerRecycled", "exited"} & set(story), done.stdout
    neighbour = [line for line in done.stdout.splitlines() if "  trellis-1: " in line]
    taken = ("WorkerCordoned", "WorkerReplaced", "exited")
    assert not any(word in line for line in neighbour for word in taken), neighbour

    report = json.loads(report_file.read_text())
    assert report["unaccounted"] == []
    sick = report["workers"][1]
    assert sick["restarts"] == 0
    assert sick["memory_peak_bytes"] < sick["memory_limit_bytes"]


def _generate(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sn17", "generate", *arguments, "--state-dir", str(folder / "run")]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _generated(folder: Path, *arguments: str) -> tuple[int, str, str]:
    done = _generate(folder, *arguments)
    out, error = done.communicate(timeout=400)
    return done.returncode, out, error


def _generates(folder: Path) -> None:
    """The command's ways, against a stack whose miner does the work."""
    prompts = ["a red cube", "two small blue stars on a plate", "a wooden treasure chest"]
    (folder / "prompts").write_text("\n".join(prompts))
    code, out, error = _generated(folder, "--prompts", "prompts", "-o", "made", "--spz", "--seed", "7")
    assert (code, out) == (0, "3 of 3 made\n"), error
    assert "made (3 of 3)" in error
    made = sorted((folder / "made").iterdir())
    assert [path.name[:3] for path in made] == ["001", "002", "003"]
    assert all(len(read_splat(path.read_bytes())) >= 7_168 for path in made)

    picture = Image.new("RGBA", (128, 128))
    ImageDraw.Draw(picture).ellipse((24, 24, 104, 104), fill="red")
    picture.save(folder / "disc.png")
    code, out, error = _generated(folder, "--image", "disc.png", "-o", "disc.ply")
    assert code == 0, error
    assert len(read_splat((folder / "disc.ply").read_bytes())) >= 7_168

    code, _, error = _generated(folder, "no _ lines")
    assert code == 2
    assert "the prompt may hold letters" in error

    stopped = _generate(folder, prompts[0], "--seed", "7", "-o", "again.spz")
    assert stopped.stderr is not None
    while "waits for a worker" not in (line := stopped.stderr.readline()):
        assert line
    stopped.send_signal(signal.SIGINT)
    _, error = stopped.communicate(timeout=100)
    assert stopped.returncode == 130
    task = error.partition("again.spz: task ")[2].split()[0]
    code, _, error = _generated(folder, prompts[0], "--seed", "7", "-o", "again.spz")
    assert code == 0, error
    assert f"picks up task {task}" in error
    assert (folder / "again.spz").read_bytes() == made[0].read_bytes()


@pytest.mark.timeout(1200)
def test_the_gateway_takes_prompts_and_all_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    state = tmp_path / "run"
    parent = subprocess.Popen([*UP, "--state-dir", str(state)], stdout=subprocess.DEVNULL)
    names = ("validators", "fixer", "trellis-1", "trellis-2", "gateway", "miner")
    files = [state / "run" / f"{name}.json" for name in names]
    try:
        _until(lambda: all(file.exists() for file in files), 600)
        pids = [int(json.loads(file.read_text())["pid"]) for file in files]
        assert all(_alive(pid) for pid in pids)
        _generates(tmp_path)
        port = json.loads((state / "run" / "gateway.json").read_text())["port"]
        status = [sys.executable, "-m", "sn17", "status", "--state-dir", str(state)]
        told = subprocess.run(status, capture_output=True, text=True, timeout=60, check=False)
        assert f"gateway: http://127.0.0.1:{port}" in told.stdout, told.stdout + told.stderr
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    _until(lambda: not any(_alive(pid) for pid in pids), 30)


@pytest.mark.timeout(300)
def test_a_process_that_cannot_start_is_named_with_its_log(tmp_path: Path) -> None:
    command = [*UP, "--tasks", "1", "--state-dir", str(tmp_path / "run")]
    environment = {**os.environ, "SN17_GUARD": "perhaps"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=environment)
    assert done.returncode == 2, done.stdout + done.stderr
    named = re.match(r"sn17 up: (trellis-\d+) ended with exit code \d+ before it was ready:\n", done.stderr)
    assert named, done.stderr
    log = tmp_path / "run" / "logs" / f"{named[1]}.log"
    # The end of its log is shown, which tells the setting.
    assert "guard" in done.stderr.lower()
    assert log.read_text().splitlines()[-1] in done.stderr
    assert f"Logs: {log.parent}" in done.stderr


@pytest.mark.timeout(600)
@pytest.mark.skipif(find_spec("torch") is None, reason="the extra torch is not installed")
def test_the_engine_earns_accepted_submissions_on_its_small_checkpoint(tmp_path: Path) -> None:
    report_file = tmp_path / "report.json"
    command = [sys.executable, "-m", "sn17", "up", "--tasks", "3", "--workers", "1"]
    command += ["--state-dir", str(tmp_path / "run"), "--report", str(report_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(torch)" in done.stdout
    report = json.loads(report_file.read_text())
    assert sum(row["pulled"] for row in report["validators"]) == 3
    assert sum(row["outcomes"]["accepted"] for row in report["validators"]) >= 2


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def _until(condition: object, seconds: float) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)
