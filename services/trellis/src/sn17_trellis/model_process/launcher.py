"""How model processes come to be: by the fork server on Linux, elsewhere by a new interpreter each."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol

from sn17_service import become_subreaper, reap_orphans

from sn17_trellis.model_process.forkserver import MAX_MESSAGE
from sn17_trellis.settings import WorkerSettings

START_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.02
DEVICE_CHECK: Final = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""Lets torch ask for devices without touching one, so that a fork afterwards is sound."""

log = logging.getLogger("sn17.trellis.launcher")


class LaunchFailed(RuntimeError):  # noqa: N818
    """No model process could be started; the message says why."""


class Handle:
    """A started process. ``status`` as of :mod:`subprocess` once it has been reaped."""

    def __init__(self, pid: int, kill: Callable[[], None]) -> None:
        self.pid = pid
        self.kill = kill
        self.status: int | None = None
        self._ended = threading.Event()

    def ended(self, status: int) -> None:
        self.status = status
        self._ended.set()

    def wait(self, seconds: float) -> bool:
        """Wait until it has been reaped; false if it has not in time."""
        return self._ended.wait(seconds)


class Launcher(Protocol):
    """Starts model processes; used by one thread, which must outlive them."""

    def prepare(self) -> None:
        """Do beforehand what can be. Raises LaunchFailed."""
        ...

    def start(self, life_id: str) -> tuple[Connection, Handle]:
        """Raises LaunchFailed."""
        ...

    def pids(self) -> tuple[int, ...]:
        """Helper processes besides the models themselves."""
        ...

    def tidy(self) -> None:
        """Reap processes that came to this one because their parent has ended."""
        ...

    def close(self) -> None:
        """End every process that it started."""
        ...


class SpawnLauncher:
    """A new interpreter for each model process: slower, and no fork anywhere."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._processes: list[subprocess.Popen[bytes]] = []

    def prepare(self) -> None:
        """Nothing can be."""

    def start(self, life_id: str) -> tuple[Connection, Handle]:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "sn17_trellis.model_process.spawned", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                process_group=0,
                env={**os.environ, **DEVICE_CHECK},
            )
        connection = Connection(ours.detach())
        connection.send_bytes(json.dumps(self._settings.model_dump(mode="json")).encode())
        self._processes.append(process)
        handle = Handle(process.pid, process.kill)
        threading.Thread(
            target=lambda: handle.ended(process.wait()), name=f"wait-{life_id}", daemon=True
        ).start()
        return connection, handle

    def pids(self) -> tuple[int, ...]:
        return ()

    def tidy(self) -> None:
        reap_orphans({process.pid for process in self._processes})

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


class ForkServer:
    """The client of :mod:`sn17_trellis.model_process.forkserver`; starts it again when it has died."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lock = threading.Lock()
        self._started = threading.Condition(self._lock)
        self._pids: dict[str, int] = {}
        self._handles: dict[int, Handle] = {}
        self._statuses: dict[int, int] = {}
        self._orphans: dict[int, Handle] = {}
        become_subreaper()

    def prepare(self) -> None:
        self._ensure()

    def start(self, life_id: str) -> tuple[Connection, Handle]:
        control = self._ensure()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(control, [json.dumps({"start": life_id}).encode()], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise LaunchFailed(f"the fork server is gone: {error.strerror}") from error
        with self._lock:
            known = self._started.wait_for(
                lambda: life_id in self._pids or self._control is not control, START_SECONDS
            )
            if not known or life_id not in self._pids:
                ours.close()
                raise LaunchFailed("the fork server ended before it started a model process")
            pid = self._pids.pop(life_id)
            handle = Handle(pid, lambda: self._kill(pid))
            if pid in self._statuses:
                handle.ended(self._statuses.pop(pid))
            else:
                self._handles[pid] = handle
        return Connection(ours.detach()), handle

    def pids(self) -> tuple[int, ...]:
        process = self._process
        return () if process is None or process.returncode is not None else (process.pid,)

    def tidy(self) -> None:
        with self._lock:
            awaited = {*self._handles, *self._orphans}
        reap_orphans({*self.pids(), *awaited})

    def close(self) -> None:
        with self._lock:
            process, control = self._process, self._control
        if control is not None:
            with contextlib.suppress(OSError):
                control.shutdown(socket.SHUT_RDWR)
        if process is not None:
            try:
                process.wait(1.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _ensure(self) -> socket.socket:
        with self._lock:
            if self._control is not None:
                return self._control
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "sn17_trellis.model_process.forkserver",
                    str(theirs.fileno()),
                    str(os.getpid()),
                ],
                pass_fds=[theirs.fileno()],
                process_group=0,
                env={**os.environ, **DEVICE_CHECK},
            )
        try:
            ours.send(json.dumps(self._settings.model_dump(mode="json")).encode())
        except OSError as error:
            raise LaunchFailed("the fork server does not start") from error
        with self._lock:
            self._control = ours
        threading.Thread(target=self._listen, args=(ours, process), name="forkserver", daemon=True).start()
        return ours

    def _kill(self, pid: int) -> None:
        """By its parent, which knows that the id is still that process."""
        with self._lock:
            control, alive = self._control, pid in self._handles
        if control is not None and alive:
            with contextlib.suppress(OSError):
                control.send(json.dumps({"kill": pid}).encode())

    def _listen(self, control: socket.socket, process: subprocess.Popen[bytes]) -> None:
        while True:
            try:
                packet = control.recv(MAX_MESSAGE)
            except OSError:
                packet = b""
            if not packet:
                break
            self._told(json.loads(packet))
        with self._lock:
            orphans, self._handles = self._handles, {}
            self._orphans |= orphans
            self._control = None
            self._started.notify_all()
        control.close()
        process.kill()
        status = process.wait()
        if orphans:
            log.error("the fork server ended (%d), and its model processes with it", status)
        self._await(orphans)

    def _await(self, orphans: dict[int, Handle]) -> None:
        """Reap models whose parent has died: they come to us, and the kernel has sent them SIGKILL.

        One that waits for a dead device ends late or never, and keeps none of the others waiting.
        """
        left = dict(orphans)
        while left:
            time.sleep(POLL_SECONDS)
            for pid, handle in list(left.items()):
                status = _ended(pid)
                if status is not None:
                    del left[pid]
                    handle.ended(status)
                    with self._lock:
                        self._orphans.pop(pid, None)

    def _told(self, told: dict[str, Any]) -> None:
        with self._lock:
            if "started" in told:
                self._pids[told["started"]] = told["pid"]
                self._started.notify_all()
            elif "ended" in told:
                handle = self._handles.pop(told["ended"], None)
                if handle is None:
                    self._statuses[told["ended"]] = told["status"]
                else:
                    handle.ended(told["status"])


def _ended(pid: int) -> int | None:
    """The status of a child that has ended, None while it has not."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return -signal.SIGKILL
    return os.waitstatus_to_exitcode(status) if found == pid else None


def new_launcher(settings: WorkerSettings) -> Launcher:
    """The one that fits this system."""
    return ForkServer(settings) if sys.platform == "linux" else SpawnLauncher(settings)
