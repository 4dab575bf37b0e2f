"""One supervised child process: start, readiness, restart, stop.

The restart rule is kubelet's: the first restart comes at once, later ones back off from a base delay by
doubling up to a cap, and a process that ran long enough is forgiven.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sn17_contract.backoff import Backoff
from sn17_contract.files import WrongShapeError
from sn17_contract.ready import ReadyFile

BACKOFF = Backoff(first=1.0, cap=30.0)
FORGIVEN_AFTER_SECONDS = 60.0


class ProcessFailedError(RuntimeError):
    """A child ended before it was ready, or did not get ready in time."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A Python module to run as a child, and how to treat its end."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    restart: bool = True
    forgiven_after: float = FORGIVEN_AFTER_SECONDS
    """A process that ran so many seconds is restarted as if it had never failed."""


def backoff_seconds(quick_exits: int) -> float:
    """Delay before the next start after ``quick_exits`` exits in a row that came too soon."""
    if quick_exits <= 1:
        return 0.0
    return BACKOFF.seconds(quick_exits - 1)


class ManagedProcess:
    """A child with its log file, its ready file and its restarts.

    After the first start the ports it found are pinned, so that a restarted child is found at the same
    address, as a restarted container is.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        state_dir: Path,
        *,
        on_event: Callable[[str, str], None] = lambda name, text: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec
        self.log_path = state_dir / "logs" / f"{spec.name}.log"
        self.ready_path = state_dir / "run" / f"{spec.name}.json"
        self.restarts = 0
        self.last_exit_code: int | None = None
        self._on_event = on_event
        self._monotonic = monotonic
        self._process: asyncio.subprocess.Process | None = None
        self._ready: ReadyFile | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[int] | None = None
        for path in (self.log_path, self.ready_path):
            path.parent.mkdir(parents=True, exist_ok=True)

    @property
    def ready(self) -> ReadyFile:
        """Ports and identity of the running incarnation; raises before the first readiness."""
        if self._ready is None:
            raise ProcessFailedError(f"{self.spec.name} is not ready yet")
        return self._ready

    async def start(self, timeout: float = 60.0) -> ReadyFile:
        """Start the child and wait until it listens.

        Raises:
            ProcessFailedError: it ended, or made no progress for ``timeout`` seconds (neither used the
                processor nor wrote to its log); the message carries the last lines of its log. Also for a
                ready file of another schema.
        """
        self.ready_path.unlink(missing_ok=True)
        self._task = asyncio.create_task(self._supervise(), name=f"supervise-{self.spec.name}")
        deadline, known = self._monotonic() + timeout, self._progress()
        while not await self._is_ready():
            if (seen := self._progress()) != known:
                deadline, known = self._monotonic() + timeout, seen
            if self._task.done():
                raise ProcessFailedError(
                    f"{self.spec.name} ended with exit code {self.last_exit_code} before it was ready:\n"
                    f"{self.tail()}"
                )
            if self._monotonic() > deadline:
                await self.stop(grace=1.0)
                raise ProcessFailedError(
                    f"{self.spec.name} made no progress for {timeout:.0f} s while starting:\n{self.tail()}"
                )
            await asyncio.sleep(0.05)
        return self.ready

    async def wait(self) -> int:
        """Exit code of the child once it has ended for good."""
        assert self._task is not None, "wait() before start()"
        return await asyncio.shield(self._task)

    async def stop(self, grace: float = 10.0) -> None:
        """SIGTERM, then SIGKILL after ``grace`` seconds; never restarted afterwards."""
        self._stopping.set()
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), grace)
            except TimeoutError:
                self._on_event(self.spec.name, f"did not stop within {grace:.0f} s and was killed")
                self.kill()
        if self._task is not None:
            with contextlib.suppress(ProcessFailedError):
                await self._task

    def _progress(self) -> tuple[int, int]:
        """Bytes logged and tenths of seconds of processor time: what grows while a child gets on."""
        logged = self.log_path.stat().st_size if self.log_path.exists() else 0
        used = 0
        if self._process is not None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(") ")[2].split()
                used = (int(fields[11]) + int(fields[12])) * 10 // os.sysconf("SC_CLK_TCK")
        return logged, used

    def kill(self) -> None:
        """End this incarnation at once; the supervisor starts the next one."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def abandon(self) -> None:
        """End it at once and for good."""
        self._stopping.set()
        self.kill()

    def tail(self, lines: int = 15) -> str:
        """The last lines of the log file."""
        try:
            text = self.log_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    async def _supervise(self) -> int:
        quick_exits = 0
        while True:
            started = self._monotonic()
            with self.log_path.open("ab") as log:
                self._process = await self._spawn(log)
                code = await self._process.wait()
            self.last_exit_code = code
            if self._stopping.is_set() or not self.spec.restart or self._ready is None:
                return code
            quick_exits = 1 if self._monotonic() - started >= self.spec.forgiven_after else quick_exits + 1
            delay = backoff_seconds(quick_exits)
            self._on_event(self.spec.name, f"exited with code {code}, restarted after {delay:.0f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            if self._stopping.is_set():
                return code
            self.restarts += 1

    async def _spawn(self, log: IO[bytes]) -> asyncio.subprocess.Process:
        env = {**os.environ, **self.spec.env, "SN17_READY_FILE": str(self.ready_path)}
        env["SN17_DIE_WITH_PARENT"] = "1"
        if self._ready is not None:
            env["SN17_PORT"] = str(self._ready.port or 0)
            env["SN17_OPS_PORT"] = str(self._ready.ops_port)
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self.spec.module,
            *self.spec.arguments,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # A terminal sends Ctrl-C to its whole process group: the children are ended by us, in order.
            process_group=0,
        )

    async def _is_ready(self) -> bool:
        try:
            return self._load_ready()
        except WrongShapeError as error:
            await self.stop(grace=1.0)
            raise ProcessFailedError(f"{self.spec.name}: {error}") from None

    def _load_ready(self) -> bool:
        try:
            content = self.ready_path.read_bytes()
        except FileNotFoundError:
            return False
        self._ready = ReadyFile.parse(content, self.ready_path)
        return True
