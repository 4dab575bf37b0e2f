"""The guest itself: what it shows of the machine, what comes back, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sn17_cluster.plugin import unavailable
from sn17_cluster.requirements import MissingError
from sn17_uml import GuestError, require, run_in_guest

pytestmark = [pytest.mark.cluster, pytest.mark.node]


@pytest.fixture
def guest() -> None:
    try:
        require()
    except MissingError as missing:
        unavailable(missing)


def processes() -> set[str]:
    """Process ids of kernels that run on this machine."""
    answer = subprocess.run(["pgrep", "-f", "linux.uml mem="], capture_output=True, text=True, check=False)
    return set(answer.stdout.split())


@pytest.mark.usefixtures("guest")
def test_output_exit_code_and_environment_come_back(tmp_path: Path) -> None:
    script = 'echo "$1 $GREETING"; echo error >&2; cat /sys/fs/cgroup/cgroup.controllers; id -u; exit 7'
    argv = ["sh", "-c", script, "sh", "it's"]
    outcome = run_in_guest(argv, shared=tmp_path, environment={"GREETING": "a b"})
    assert outcome.code == 7
    assert outcome.output == "it's a b\nerror\ncpu io memory pids\n0\n"
    assert "Power" in outcome.console


@pytest.mark.usefixtures("guest")
def test_only_the_shared_folder_can_be_written(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    script = (
        f"echo kept >kept; echo lost >{tmp_path}/lost; echo lost >/etc/lost; echo there >/tmp/x; cat /tmp/x"
    )
    outcome = run_in_guest(["sh", "-c", script], shared=shared)
    assert outcome.code == 0
    assert outcome.output.endswith("there\n")
    assert (shared / "kept").read_text() == "kept\n"
    assert not (tmp_path / "lost").exists()
    assert not Path("/etc/lost").exists()


@pytest.mark.usefixtures("guest")
def test_a_guest_that_hangs_is_ended_at_its_deadline_with_all_its_processes(tmp_path: Path) -> None:
    before = processes()
    with pytest.raises(GuestError, match=r"not ended after 6 s\n--- output\nstarted\n"):
        run_in_guest(["sh", "-c", "echo started; yes >/dev/null"], shared=tmp_path, deadline=6)
    assert processes() <= before


@pytest.mark.usefixtures("guest")
def test_a_kernel_that_panics_is_told_from_a_command_that_fails(tmp_path: Path) -> None:
    with pytest.raises(GuestError, match=r"(?s)ended before the command did.*sysrq triggered crash"):
        run_in_guest(["sh", "-c", "echo c >/proc/sysrq-trigger"], shared=tmp_path)


@pytest.mark.usefixtures("guest")
def test_a_guest_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    before = processes()
    code = "import sys; from pathlib import Path; from sn17_uml import run_in_guest\n"
    code += "run_in_guest(['sh', '-c', 'echo up >up; sync; sleep 100'], shared=Path(sys.argv[1]))"
    starter = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "up").exists():
        assert starter.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert processes() > before
    starter.kill()
    starter.wait()
    while processes() > before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_machine_without_the_kernel_is_told_what_to_install(tmp_path: Path) -> None:
    code = "from sn17_uml import require\ntry: require()\nexcept Exception as e: print(e)"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "linux.uml" in answer.stdout
    assert "install-debian.sh as root" in answer.stdout
    assert "user-mode-linux" in answer.stdout
