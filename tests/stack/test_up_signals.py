"""`sn17 up` in a real terminal: what Ctrl-C, SIGTERM, another run and wrong paths lead to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import Terminal

SMALL = ["--backend", "procedural", "--max-gaussians", "20000", "--validators", "1", "--workers", "1"]
UP = [sys.executable, "-m", "sn17", "up", *SMALL]


@pytest.mark.timeout(300)
def test_ctrl_c_in_a_terminal_ends_in_a_report(tmp_path: Path) -> None:
    terminal = Terminal([*UP, "--state-dir", str(tmp_path / "run")])
    terminal.until(r"generat|[1-9]\s+\d+%|accepted")
    terminal.press_ctrl_c()
    assert terminal.wait() == 0, terminal.text[-3000:]
    assert "what became of every task" in terminal.text
    assert "are accounted for" in terminal.text
    assert "Traceback" not in terminal.text


@pytest.mark.timeout(300)
def test_a_second_ctrl_c_ends_at_once_and_leaves_no_process(tmp_path: Path) -> None:
    # With the demo's slow generations there is something to hand in that takes a while.
    command = [*UP, "--demo", "--state-dir", str(tmp_path / "run")]
    terminal = Terminal(command, rows=50, columns=200)
    terminal.until(r"trellis-1 +busy")
    terminal.press_ctrl_c()
    terminal.until("Ctrl-C again: at once")
    terminal.press_ctrl_c()
    assert terminal.wait(60) == 130, terminal.text[-3000:]
    assert "Ended at once" in terminal.text
    assert "Traceback" not in terminal.text
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False)
    assert left.stdout == ""


@pytest.mark.timeout(300)
def test_ctrl_c_before_everything_has_started_is_one_sentence(tmp_path: Path) -> None:
    terminal = Terminal([*UP, "--state-dir", str(tmp_path / "run")])
    terminal.until("Starting 1 validators")
    terminal.press_ctrl_c()
    assert terminal.wait(60) == 130, terminal.text[-3000:]
    assert "Stopped before everything had started" in terminal.text
    assert "Traceback" not in terminal.text


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_timeout_and_service_managers_send_ends_in_a_report_too(
    tmp_path: Path, number: signal.Signals
) -> None:
    running = subprocess.Popen(
        [*UP, "--state-dir", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert running.stdout is not None
    shown = ""
    while "tasks ended" not in shown:
        line = running.stdout.readline()
        assert line, shown
        shown += line
    # `timeout` sends it to the whole group.
    os.killpg(running.pid, number)
    shown += running.communicate(timeout=120)[0]
    assert running.returncode == 0, shown
    assert "are accounted for" in shown
    assert "Traceback" not in shown


def refused(*options: str, cwd: Path) -> str:
    """What is said on one line by a run that ends with exit code 2 before anything starts."""
    done = subprocess.run([*UP, *options], capture_output=True, text=True, timeout=60, check=False, cwd=cwd)
    assert done.returncode == 2, done.stdout + done.stderr
    said = (done.stdout + done.stderr).strip()
    assert said.count("\n") == 0, said
    return said


@pytest.mark.timeout(300)
def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    first = subprocess.Popen([*UP, "--state-dir", "run"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None
        while "trellis-1: http" not in (line := first.stdout.readline()):
            assert line
        said = refused("--state-dir", "run", cwd=tmp_path)
        assert f"another sn17 up (process {first.pid}) uses it" in said
        assert "--state-dir" in said
    finally:
        first.terminate()
        first.communicate(timeout=120)


def test_paths_that_cannot_be_used_are_said_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for options, words in {
        ("--report", "missing/report.json"): "missing does not exist",
        ("--report", "."): "is a folder",
        ("--report", "file/report.json"): "does not exist",
        ("--state-dir", "file"): "file: File exists",
        ("--state-dir", "file/below"): "Not a directory",
        ("--state-dir", "/proc/nothing"): "/proc/nothing: ",
    }.items():
        assert words in refused(*options, cwd=tmp_path), options


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (50, 200)])
def test_a_full_disk_is_told_on_the_screen_while_nothing_happens(
    tmp_path: Path, rows: int, columns: int
) -> None:
    # More than any disk has: the miner takes no task then, as on a full one.
    full = {"SN17_DISK_MIN_FREE_BYTES": str(1 << 60)}
    command = [*UP, "--state-dir", str(tmp_path / "run")]
    terminal = Terminal(command, rows=rows, columns=columns, environment=full)
    terminal.until("The miner asks for no task: the disk has [0-9]+ MiB left")
    terminal.press_ctrl_c()
    assert terminal.wait() == 0, terminal.text[-3000:]
    assert "Traceback" not in terminal.text
