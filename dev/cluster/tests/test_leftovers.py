"""A killed run leaves processes, control groups and a folder; the next start clears these and no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sn17_cluster.plugin import unavailable
from sn17_cluster.requirements import MissingError
from sn17_cluster.state import ProcessId, RunState, cgroup_folders, clear_leftovers

OWNER = """
import os, sys
from sn17_cluster.state import RunState
from sn17_cluster.processes import Supervisor
state = RunState.create()
supervisor = Supervisor(state)
supervisor.start("child", ["sleep", "600"])
print(state.folder, supervisor.pid("child"), flush=True)
sys.stdin.read()
"""

CLUSTER_OWNER = """
import json, sys
from sn17_cluster.local import local_cluster
from sn17_cluster.requirements import MissingError
try:
    with local_cluster() as local:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pause"}, "spec": {"containers": [
            {"name": "main", "image": "docker.io/sn17/pause:1", "imagePullPolicy": "Never"}]}}
        local.cluster.apply(pod)
        local.cluster.kubectl("wait", "--for=condition=Ready", "pod/pause", "--timeout=60s")
        print(local.state.folder, local.supervisor.pid("node-0.containerd"), flush=True)
        sys.stdin.read()
except MissingError as missing:
    print("missing", missing, flush=True)
"""


class Owner:
    """A process that owns a run, as a test run would, until it is killed."""

    def __init__(self, code: str, base: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "SN17_CLUSTER_DIR": str(base)},
        )
        assert self.process.stdout is not None
        first, _, rest = self.process.stdout.readline().strip().partition(" ")
        if first == "missing":
            self.kill()
            unavailable(MissingError(rest))
        self.folder = Path(first)
        self.child = ProcessId.of(int(rest))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "b"


def test_a_child_dies_with_its_owner_and_the_next_start_clears_the_folder(base: Path) -> None:
    owner = Owner(OWNER, base)
    assert owner.child.alive()
    owner.kill()
    state = RunState.create(base)
    assert not owner.child.alive()
    assert [path.name for path in base.iterdir() if path.is_dir()] == [state.id]
    state.close()
    assert list(base.iterdir()) == []


def test_a_run_that_lives_is_left_alone(base: Path) -> None:
    owner = Owner(OWNER, base)
    assert clear_leftovers(base) == []
    assert owner.child.alive()
    assert owner.folder.exists()
    owner.kill()
    assert clear_leftovers(base) == [owner.folder.name]


def test_a_reused_process_id_is_not_killed(base: Path) -> None:
    state = RunState.create(base)
    me = ProcessId.of(os.getpid())
    state.record_process("gone", ProcessId(me.pid, me.started - 1))
    state.close()
    assert me.alive()


@pytest.mark.cluster
@pytest.mark.node
@pytest.mark.timeout(180)
def test_a_killed_cluster_is_cleared(tmp_path_factory: pytest.TempPathFactory) -> None:
    # Sockets have short paths, which pytest's folders are not.
    base = Path(f"/var/tmp/sn17-leftover-{os.getpid()}")
    owner = Owner(CLUSTER_OWNER, base)
    cgroup = f"sn17-{owner.folder.name}-0"
    assert cgroup_folders(cgroup)
    owner.kill()
    assert clear_leftovers(base) == [owner.folder.name]
    assert cgroup_folders(cgroup) == []
    assert str(owner.folder) not in Path("/proc/self/mountinfo").read_text()
    remaining = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(owner.folder) in _text(path)]
    assert remaining == []
    assert list(base.iterdir()) == []
    base.rmdir()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
