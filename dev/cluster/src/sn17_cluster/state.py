"""What a run has made outside its own folder, recorded before it is made, so that the next start can undo it.

A run owns `<base>/<id>/`, where base is `$SN17_CLUSTER_DIR` or `/var/tmp/sn17-cluster-<uid>`. While it lives
it holds a lock on `<base>/<id>.lock`; the kernel drops the lock when the owner dies, whatever killed it. A
folder whose lock can be taken is a leftover, and what its record names is cleared: nothing else is touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sn17_files import write_atomically

CGROUP_MOUNT = Path("/sys/fs/cgroup")
CLEAR_SECONDS = 15.0
POLL_SECONDS = 0.05


def base_folder() -> Path:
    return Path(os.environ.get("SN17_CLUSTER_DIR") or f"/var/tmp/sn17-cluster-{os.geteuid()}")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, told from a later one with the same number by its start time (clock ticks since boot)."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        return cls(pid, _start_time(pid) or 0)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal unless the process is gone."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def alive(self) -> bool:
        return self.started != 0 and _start_time(self.pid) == self.started


def _start_time(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] == "Z" else int(fields[19])


@dataclass(slots=True)
class _Record:
    processes: dict[str, tuple[int, int]] = field(default_factory=dict)
    cgroups: list[str] = field(default_factory=list)


class RunState:
    """The folder and the record of one run. Make it with `create`; end it with `close`."""

    def __init__(self, folder: Path, lock: IO[bytes]) -> None:
        self.folder = folder
        self._lock = lock
        self._record = _Record()

    @classmethod
    def create(cls, base: Path | None = None) -> RunState:
        """Clear the leftovers of killed runs, then start a new one."""
        base = base or base_folder()
        base.mkdir(mode=0o711, parents=True, exist_ok=True)
        clear_leftovers(base)
        while True:
            # Short: the sockets below the folder have paths of at most 107 bytes.
            folder = base / secrets.token_hex(4)
            lock = _try_lock(folder.with_suffix(".lock"))
            if lock is not None and not folder.exists():
                folder.mkdir(mode=0o711)
                state = cls(folder, lock)
                state._save()
                return state

    @property
    def id(self) -> str:
        return self.folder.name

    def record_process(self, name: str, process: ProcessId) -> None:
        self._record.processes[name] = (process.pid, process.started)
        self._save()

    def forget_process(self, name: str) -> None:
        self._record.processes.pop(name, None)
        self._save()

    def record_cgroup(self, name: str) -> None:
        """Call before making the folder `name` in the cgroup controllers."""
        self._record.cgroups.append(name)
        self._save()

    def _save(self) -> None:
        path = self.folder / "state.json"
        record = self._record
        content = {"processes": record.processes, "cgroups": record.cgroups}
        write_atomically(path, json.dumps(content, indent=1).encode())

    def close(self) -> None:
        """Undo everything the record names and delete the folder."""
        _clear(self.folder)
        self._lock.close()


def _try_lock(path: Path) -> IO[bytes] | None:
    lock = path.open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    # Its last owner may have deleted the file between opening and locking.
    if os.fstat(lock.fileno()).st_nlink == 0:
        lock.close()
        return None
    return lock


def clear_leftovers(base: Path) -> list[str]:
    """Clear the runs in `base` whose owner is dead; their ids."""
    cleared = []
    for path in sorted(base.glob("*.lock")):
        lock = _try_lock(path)
        if lock is None:
            continue
        if path.with_suffix("").exists():
            cleared.append(path.stem)
        _clear(path.with_suffix(""))
        lock.close()
    return cleared


def _clear(folder: Path) -> None:
    """Undo what a run has made. Its lock file goes last, so that what could not be undone is tried again."""
    try:
        saved = json.loads((folder / "state.json").read_text())
    except (FileNotFoundError, ValueError):
        saved = {}
    processes = [ProcessId(pid, started) for pid, started in saved.get("processes", {}).values()]
    processes += _shims(folder)
    for process in processes:
        process.signal(signal.SIGKILL)
    for name in saved.get("cgroups", []):
        _remove_cgroup(name)
    _unmount_below(folder)
    # The node's mounts end with the last process in its namespaces, and with them the folder can be deleted.
    deadline = time.monotonic() + CLEAR_SECONDS
    while folder.exists() and time.monotonic() < deadline:
        if not any(process.alive() for process in processes):
            shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            time.sleep(POLL_SECONDS)
    if not folder.exists():
        folder.with_suffix(".lock").unlink(missing_ok=True)


def _unmount_below(folder: Path) -> None:
    """End this machine's own mounts in the folder, such as a test's small disks."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in reversed(points):
        if point.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)


def _shims(folder: Path) -> list[ProcessId]:
    """containerd's shims leave their parent; the socket below `folder` in their arguments tells them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            arguments = path.read_bytes().split(b"\0")
            if b"containerd-shim" in arguments[0] and any(
                argument.startswith(os.fsencode(folder) + b"/") for argument in arguments
            ):
                found.append(ProcessId.of(int(path.parent.name)))
    return found


def cgroup_folders(name: str) -> list[Path]:
    """The folder `name` in every cgroup hierarchy it exists in."""
    candidates = [CGROUP_MOUNT / name, *(mount / name for mount in CGROUP_MOUNT.iterdir())]
    return [path for path in candidates if (path / "cgroup.procs").exists()]


def _remove_cgroup(name: str) -> None:
    for top in cgroup_folders(name):
        deadline = time.monotonic() + CLEAR_SECONDS
        while top.exists() and time.monotonic() < deadline:
            for process in _members(top):
                process.signal(signal.SIGKILL)
            # Deepest first; a folder with a dying process is busy for a moment.
            for path in sorted(top.rglob("*"), reverse=True):
                if path.is_dir():
                    with contextlib.suppress(OSError):
                        path.rmdir()
            with contextlib.suppress(OSError):
                top.rmdir()
            if top.exists():
                time.sleep(POLL_SECONDS)


def _members(top: Path) -> Iterator[ProcessId]:
    for path in [top / "cgroup.procs", *top.rglob("cgroup.procs")]:
        with contextlib.suppress(OSError):
            for line in path.read_text().split():
                yield ProcessId.of(int(line))
