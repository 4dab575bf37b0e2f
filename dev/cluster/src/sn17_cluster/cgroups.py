"""The control group below which a node keeps its pods."""

from __future__ import annotations

import os
from pathlib import Path

from sn17_cluster.requirements import MissingError
from sn17_cluster.state import CGROUP_MOUNT, RunState

CONTROLLERS = {"cpu", "cpuset", "memory", "pids"}
# A kernel for one processor has no cpusets; kubelet and runc do without.
NEEDED = CONTROLLERS - {"cpuset"}


def create(state: RunState, name: str) -> None:
    """Make the folder `name` in every hierarchy, and record it first.

    Raises:
        MissingError: this machine's control groups cannot hold a node.
    """
    state.record_cgroup(name)
    if (CGROUP_MOUNT / "cgroup.controllers").exists():
        _create_unified(name)
    else:
        _create_per_controller(name)


def _create_unified(name: str) -> None:
    available = set((CGROUP_MOUNT / "cgroup.controllers").read_text().split())
    enabled = set((CGROUP_MOUNT / "cgroup.subtree_control").read_text().split())
    if missing := sorted(NEEDED - available):
        raise MissingError(f"the cgroup controllers {', '.join(missing)} are not available to a node here")
    wanted = CONTROLLERS & available
    try:
        if missing := sorted(wanted - enabled):
            (CGROUP_MOUNT / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in missing))
        folder = CGROUP_MOUNT / name
        folder.mkdir()
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in sorted(wanted)))
        (folder / "cpu.weight").write_text(str(100 * (os.cpu_count() or 1)))
    except OSError as error:
        raise MissingError(
            f"cgroup v2 refuses to delegate {', '.join(sorted(wanted))} ({error.strerror}):"
            " inside a container run it with a private cgroup namespace whose root has no processes"
        ) from error


def _create_per_controller(name: str) -> None:
    hierarchies = [path for path in CGROUP_MOUNT.iterdir() if _is_v1(path)]
    names = {each for path in hierarchies for each in path.name.split(",")}
    if missing := sorted(CONTROLLERS - names):
        raise MissingError(f"the cgroup controllers {', '.join(missing)} are not mounted in {CGROUP_MOUNT}")
    for path in {path.resolve() for path in hierarchies}:
        folder = path / name
        folder.mkdir(exist_ok=True)
        # Against the machine's other processes each pod would else get a share of what one of them gets.
        if (folder / "cpu.shares").exists():
            (folder / "cpu.shares").write_text(str(1024 * (os.cpu_count() or 1)))
        # A new cpuset is empty and refuses processes until it is given processors and memory.
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (folder / setting).exists():
                (folder / setting).write_text((path / setting).read_text())


def _is_v1(path: Path) -> bool:
    return path.is_dir() and (path / "cgroup.procs").exists() and (path / "release_agent").exists()
