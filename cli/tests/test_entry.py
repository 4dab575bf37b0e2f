"""Whatever happens to a command: one sentence, the exit code of the table, and never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from sn17_contract.tasks import TaskKind
from sn17_miner.journal.journal import Journal

SN17 = [sys.executable, "-m", "sn17"]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("state")
    journal = Journal(folder / "journal.sqlite")
    for n in range(400):
        journal.task_pulled(
            task_id=f"t{n}",
            validator=f"5V{n}",
            kind=TaskKind.TEXT,
            prompt="ein grüner Würfel " * 5,
            threshold=0.6,
            throttle=30,
            assigned_at=1,
        )
    journal.close()
    return folder


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "SN17": f"{sys.executable} -m sn17", **environment},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("more", ["", "--json", "explain 1"])
def test_a_reader_that_has_gone_is_no_fault(state: Path, more: str) -> None:
    done = shell(f"$SN17 tasks {more} --limit 400 --state-dir {state} | head -c 1; exit ${{PIPESTATUS[0]}}")
    if more == "explain 1":
        done = shell(f"$SN17 tasks explain 1 --state-dir {state} | true; exit ${{PIPESTATUS[0]}}")
    assert done.returncode in (0, 141), done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["--help", "tasks --help", "tasks --limit 400 --json --state-dir $STATE"])
def test_a_full_disk_behind_standard_output_is_told(state: Path, command: str) -> None:
    done = shell(f"$SN17 {command} > /dev/full", STATE=str(state))
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_streams_that_are_closed_stop_nothing(state: Path, closed: str) -> None:
    assert shell(f"$SN17 tasks --state-dir {state} {closed}").returncode == 0


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "latin-1"},
        {"TERM": "dumb"},
        {"NO_COLOR": "1", "COLUMNS": "40"},
        {"HOME": "", "COLUMNS": "nonsense"},
    ],
    ids="-".join,
)
@pytest.mark.parametrize("command", ["--help", "tasks --help", "tasks --state-dir $STATE", "frobnicate"])
def test_whatever_the_terminal_can_show_something_is_shown(
    state: Path, command: str, environment: Mapping[str, str]
) -> None:
    done = shell(f"$SN17 {command}", STATE=str(state), **environment)
    assert done.returncode == (2 if command == "frobnicate" else 0), done.stderr
    assert "Traceback" not in done.stderr
    assert "\\u25" not in done.stdout + done.stderr


def test_a_fault_is_one_sentence_and_shows_where_only_when_asked(tmp_path: Path) -> None:
    script = tmp_path / "faulty.py"
    script.write_text(
        "import sn17.entry as entry\n"
        "def fault(): raise TypeError('two\\nlines')\n"
        "entry._commands = fault\n"
        "entry.main()\n"
    )
    for environment, lines in ({}, 1), ({"SN17_TRACEBACK": "1"}, 8):
        done = shell(f"{sys.executable} {script}", **environment)
        assert done.returncode == 70
        assert "a fault of sn17: TypeError: two lines" in done.stderr
        assert ("Traceback" in done.stderr) == bool(environment)
        assert done.stderr.count("\n") >= lines


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGINT, 130, "ended by Ctrl-C"),
        (signal.SIGTERM, 143, "ended by SIGTERM"),
        (signal.SIGHUP, 129, "ended by SIGHUP"),
    ],
)
def test_a_signal_ends_a_waiting_command_with_one_sentence(number: int, code: int, words: str) -> None:
    script = "import sn17.entry as entry, time, sys\n"
    script += "def wait():\n    sys.stdout.write('ready\\n'); sys.stdout.flush(); time.sleep(60)\n"
    script += "entry._commands = wait\nentry.main()\n"
    running = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    running.send_signal(number)
    _, error = running.communicate(timeout=60)
    assert (running.returncode, error) == (code, f"sn17: {words}\n")


def test_a_second_signal_ends_a_clean_up_that_hangs() -> None:
    script = (
        "import sn17.entry as entry, time, sys\n"
        "def wait():\n"
        "    try:\n"
        "        print('ready', flush=True); time.sleep(60)\n"
        "    finally:\n"
        "        print('cleaning', flush=True); time.sleep(60)\n"
        "entry._commands = wait\n"
        "entry.main()\n"
    )
    running = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    for expected in ("ready\n", "cleaning\n"):
        assert running.stdout.readline() == expected
        running.send_signal(signal.SIGINT)
    assert running.wait(30) == 130


def test_a_clean_up_that_hangs_is_ended_by_itself() -> None:
    script = (
        "import sn17.interrupts as i, sn17.entry as entry, time\n"
        "i.PATIENCE_SECONDS = 0.2\n"
        "def wait():\n"
        "    try:\n"
        "        print('ready', flush=True); time.sleep(60)\n"
        "    finally:\n"
        "        time.sleep(60)\n"
        "entry._commands = wait\n"
        "entry.main()\n"
    )
    running = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    running.send_signal(signal.SIGTERM)
    assert running.wait(30) == 143
