"""`sn17 up` where a newcomer may start it: odd folders, dead proxies, no home, beside another one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

DEAD = "http://127.0.0.1:9"
BARE = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
"""What `env -i` leaves, and a path: no HOME, no USER, no locale."""
BEHIND_A_PROXY = {name: DEAD for lower in ("http_proxy", "https_proxy") for name in (lower, lower.upper())}
UP = ["-m", "sn17", "up", "--backend", "procedural", "--max-gaussians", "20000"]
SMALL = [*UP, "--validators", "1", "--workers", "1", "--tasks", "2"]
STRANGER = 54321
"""A user id that no password file knows."""


@pytest.mark.timeout(300)
def test_two_runs_at_once_in_one_odd_folder_behind_a_dead_proxy_without_a_home(tmp_path: Path) -> None:
    place = tmp_path / "run #1 %20 ü"
    place.mkdir()
    reports = [place / f"report {number}.json" for number in (1, 2)]
    running = [
        subprocess.Popen(
            [sys.executable, *SMALL, "--report", report.name],
            cwd=place,
            env=BARE | BEHIND_A_PROXY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for report in reports
    ]
    said = [process.communicate(timeout=280)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    for text, report in zip(said, reports, strict=True):
        assert "All 2 tasks are accounted for." in text
        assert json.loads(report.read_text())["unaccounted"] == []
    runs = sorted((place / ".sn17").iterdir())
    assert len(runs) == 2
    assert all((run / "miner" / "journal.sqlite").is_file() for run in runs)
    # Nothing strayed to a path that ends where a '#', '?' or '%' begins.
    assert [path.name for path in tmp_path.iterdir()] == [place.name]


@pytest.mark.timeout(300)
def test_a_user_whom_nobody_knows_can_run_it(tmp_path: Path) -> None:
    become = ["unshare", "--user", f"--map-user={STRANGER}", f"--map-group={STRANGER}"]
    probe = subprocess.run([*become, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"this machine lends no user namespace: {probe.stderr.strip()}")
    answer = subprocess.run(
        [*become, sys.executable, *SMALL],
        cwd=tmp_path,
        env=BARE,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "All 2 tasks are accounted for." in answer.stdout
