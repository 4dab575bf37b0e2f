"""Control groups of cgroup v2, and workers in them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import httpx2
import pytest
from sn17_http import own_request
from sn17_service import MemoryReader, memory_reader
from sn17_service.cgroups import CgroupV2Memory, MemoryEvents

ROOT = Path("/sys/fs/cgroup")
MIB = 1 << 20
DEADLINE = 150.0
CLONE_NEWNS = 0x0002_0000
CLONE_NEWCGROUP = 0x0200_0000
ENTER = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"']
SERVE = [sys.executable, "-m", "sn17_trellis", "serve"]


def wait_until(what: str, found: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """What `found` returns as soon as that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := found():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


@dataclass(frozen=True)
class Group:
    """A control group of the test's own, removed with its children at the end."""

    folder: Path

    def child(self, name: str) -> Group:
        """A group below, which can be limited as well; this one then holds no processes of its own."""
        (self.folder / "cgroup.subtree_control").write_text("+memory")
        (self.folder / name).mkdir()
        return Group(self.folder / name)

    def limit(self, mib: int) -> Group:
        (self.folder / "memory.max").write_text(str(mib * MIB))
        return self

    @property
    def events(self) -> MemoryEvents:
        return CgroupV2Memory(self.folder).events()

    def enter(self) -> None:
        """Move this process here."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        for path in sorted(self.folder.glob("**/cgroup.procs"), key=lambda path: -len(path.parts)):
            with contextlib.suppress(OSError):
                (path.parent / "cgroup.kill").write_text("1")
            wait_until("the group is empty", lambda path=path: not path.read_text())
            # Threads of a killed process may still be on their way out.
            wait_until("the group can be removed", lambda path=path: _removed(path.parent))


@pytest.fixture
def group() -> Iterator[Group]:
    try:
        usable = "memory" in (ROOT / "cgroup.controllers").read_text().split()
        if usable:
            (ROOT / "cgroup.subtree_control").write_text("+memory")
            folder = ROOT / f"sn17-test-{os.getpid()}"
            folder.mkdir()
    except OSError as error:
        pytest.skip(
            f"no control group of cgroup v2 can be made here ({error.strerror}): run it by `make e2e`"
        )
    if not usable:
        pytest.skip("cgroup v2 has no memory controller here: run it by `make e2e`")
    made = Group(folder)
    yield made
    made.remove()


@dataclass
class Worker:
    """A worker with the procedural backend; `faults` as in SN17_FAULTS."""

    group: Group
    place: Path
    faults: dict[str, Any]
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ready = self.place / "ready.json"
        env = {
            **os.environ,
            "SN17_PORT": "0",
            "SN17_OPS_PORT": "0",
            "SN17_READY_FILE": str(ready),
            "SN17_SPOOL_DIR": str(self.place / "spool"),
            "SN17_PROCEDURAL_MAX_GAUSSIANS": "8000",
            "SN17_FAULTS": json.dumps(self.faults),
            "SN17_SELF_RECYCLE_AFTER_SECONDS": "0.2",
            "SN17_LOG_FORMAT": "json",
            **self.settings,
        }
        self._log = (self.place / "log").open("w+")
        self.process = subprocess.Popen([*ENTER, str(self.group.folder), *SERVE], env=env, stderr=self._log)
        wait_until("the worker listens", lambda: ready.exists() or self.process.poll() is not None)
        assert ready.exists(), Path(self._log.name).read_text()
        values = json.loads(ready.read_text())
        self.url = f"http://127.0.0.1:{values['port']}"
        self.ops_url = f"http://127.0.0.1:{values['ops_port']}"
        wait_until("the worker is warm", lambda: self.state() != "warming")

    def state(self) -> str:
        return str(own_request("GET", f"{self.url}/v1/worker", timeout=DEADLINE).json()["state"])

    def metric(self, name: str) -> float:
        lines = own_request("GET", f"{self.ops_url}/metrics", timeout=DEADLINE).text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in Path(self._log.name).read_text().splitlines()]

    def logged(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["message"] == message]

    def generate(self, most: int) -> tuple[int, str | None]:
        """So many jobs at most, until one is not done: how many were, and why no more (None: no answer)."""
        for done in range(most):
            try:
                answer = own_request(
                    "POST", f"{self.url}/generate", data={"prompt": "a red cube"}, timeout=DEADLINE
                )
            except httpx2.TransportError:
                return done, None
            if answer.status_code != 200:
                return done, str(answer.json()["code"])
        return most, ""

    def end(self) -> int:
        """Its exit code, once it has ended by itself."""
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on:\n{Path(self._log.name).read_text()}") from None

    def close(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)
        self._log.close()


@dataclass
class Fork:
    """A copy of the test's process, in a group: it answers each line, and ends with its input."""

    pid: int
    _send: TextIO
    _receive: TextIO
    _code: int | None = None

    @classmethod
    def start(cls, group: Group, answer: Callable[[], Any], enter: Callable[[], None]) -> Fork:
        """`enter` runs in the group before the first answer."""
        requests, answers = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(requests[1])
                group.enter()
                enter()
                with open(requests[0]) as inputs, open(answers[1], "w") as outputs:
                    for _ in inputs:
                        print(json.dumps(answer()), file=outputs, flush=True)
                code = 0
            finally:
                os._exit(code)
        os.close(requests[0])
        os.close(answers[1])
        return cls(pid, open(requests[1], "w"), open(answers[0]))

    def read(self) -> Any:
        """Its answer; None if it ended instead."""
        print(file=self._send, flush=True)
        line = self._receive.readline()
        return json.loads(line) if line else None

    def alive(self) -> bool:
        return self._ended(os.WNOHANG) is None

    def end(self) -> int:
        """Its exit code, once it has ended; negative for a signal."""
        wait_until("the process ends", lambda: not self.alive())
        assert self._code is not None
        return self._code

    def close(self) -> None:
        if self.alive():
            os.kill(self.pid, signal.SIGKILL)
            self._ended(0)
        for pipe in (self._send, self._receive):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _ended(self, how: int) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, how)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code


@pytest.fixture
def forks() -> Iterator[list[Fork]]:
    made: list[Fork] = []
    yield made
    for fork in made:
        fork.close()


@pytest.fixture
def holder(group: Group, forks: list[Fork]) -> Callable[..., Fork]:
    """Makes a process in a group that holds so many MiB."""

    def make(group: Group, mib: int, *, succeeds: bool = True) -> Fork:
        held = []

        def hold() -> None:
            held.append(b"x" * (mib << 20))

        forks.append(Fork.start(group, lambda: len(held), hold))
        assert forks[-1].read() == (1 if succeeds else None)
        return forks[-1]

    return make


@pytest.fixture
def reader(group: Group, forks: list[Fork]) -> Callable[..., Fork]:
    """Makes a process in a group that answers with what it reads: reader, limit, MiB, level."""

    def make(group: Group, *, namespace: bool = False, mount: bool = False) -> Fork:
        made: list[MemoryReader] = []

        def enter() -> None:
            if namespace and ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWCGROUP | CLONE_NEWNS):
                raise OSError(ctypes.get_errno(), "unshare")
            if mount:
                subprocess.run(["umount", str(ROOT)], check=True)
                subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(ROOT)], check=True)
            made.append(memory_reader("auto"))

        def answer() -> list[Any]:
            reading = made[0].read()
            return [made[0].name, reading.limit, reading.unreclaimable // MIB, reading.level]

        forks.append(Fork.start(group, answer, enter))
        return forks[-1]

    return make


NewWorker = Callable[..., Worker]


@pytest.fixture
def new_worker(tmp_path: Path) -> Iterator[NewWorker]:
    made: list[Worker] = []

    def make(group: Group, faults: dict[str, Any], **settings: str) -> Worker:
        made.append(Worker(group, tmp_path, faults, {f"SN17_{k.upper()}": v for k, v in settings.items()}))
        return made[-1]

    yield make
    for worker in made:
        worker.close()
