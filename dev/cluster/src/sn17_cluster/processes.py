"""Processes that die with their starter, are recorded on disk, and are ended by the recorded id alone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sn17_cluster.state import ProcessId, RunState

LOG_TAIL_LINES = 15
POLL_SECONDS = 0.05
PATIENCE = float(os.environ.get("SN17_CLUSTER_PATIENCE") or 1)
"""Deadlines are this many times as long, for machines that are slow in everything."""


class ProcessDiedError(Exception):
    """A part of the cluster ended by itself; the message holds the end of its log."""


class NotReadyError(Exception):
    """Something did not come up before its deadline."""


@dataclass(slots=True)
class _Service:
    argv: Sequence[str]
    prefix: Sequence[str]
    environment: Mapping[str, str] | None
    log: Path
    process: subprocess.Popen[bytes]
    stopped: bool = False


class Supervisor:
    """Starts and ends the processes of one run.

    Every process gets a parent-death signal, so a killed test run leaves none behind. The signal is sent when
    the *thread* that started the process ends: start processes from a thread that lives as long as they
    should.
    """

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._services: dict[str, _Service] = {}

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start `argv` as `name`, in the namespaces that the command `prefix` enters; log in `<run>/logs`.

        environment: the whole of it; None inherits this process's.
        """
        if name in self._services and self.alive(name):
            raise ValueError(f"{name} runs already")
        log = self._state.folder / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*prefix, "setpriv", "--pdeathsig", "KILL", "--", *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        self._state.record_process(name, ProcessId.of(process.pid))
        self._services[name] = _Service(argv, prefix, environment, log, process)

    def alive(self, name: str) -> bool:
        return self._services[name].process.poll() is None

    def pid(self, name: str) -> int:
        return self._services[name].process.pid

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one process that runs, SIGSTOP for example."""
        if self.alive(name):
            self._services[name].process.send_signal(number)

    def process(self, name: str) -> subprocess.Popen[bytes]:
        """To send it a signal; `stop` and `restart` end it."""
        return self._services[name].process

    def change(self, name: str, argv: Sequence[str]) -> None:
        """The arguments it is started with the next time."""
        self._services[name].argv = argv

    def running(self) -> list[str]:
        """Names of what was started and not stopped, in that order."""
        return [name for name, service in self._services.items() if not service.stopped]

    def log(self, name: str) -> Path:
        return self._services[name].log

    def log_tail(self, name: str) -> str:
        lines = self._services[name].log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def stop(self, name: str, *, kill: bool = False, grace: float = 10.0) -> None:
        """End one process: politely, or at once with `kill`; after `grace` seconds always."""
        service = self._services[name]
        service.stopped = True
        if service.process.poll() is None:
            service.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                service.process.wait(grace)
            except subprocess.TimeoutExpired:
                service.process.kill()
                service.process.wait()
        self._state.forget_process(name)

    def resume(self, name: str) -> None:
        """Start a stopped process again with the same arguments."""
        service = self._services.pop(name)
        self.start(name, service.argv, prefix=service.prefix, environment=service.environment)

    def restart(self, name: str, *, kill: bool = False) -> None:
        """End a process and start it again, as a crash or an upgrade would."""
        self.stop(name, kill=kill)
        self.resume(name)

    def stop_all(self, *, keep: Container[str] = ()) -> None:
        """End every process but those named in `keep`, the last started first."""
        for name in reversed(self.running()):
            if name not in keep:
                self.stop(name)
                del self._services[name]

    def kill_all(self) -> None:
        """End every process at once: for a run of which nothing is kept."""
        for service in self._services.values():
            service.process.kill()
        for service in self._services.values():
            service.process.wait()
        self._services.clear()

    def wait(self, what: str, ready: Callable[[], bool], *, timeout: float) -> None:
        """Poll `ready` until it is true.

        Raises:
            ProcessDiedError: a process that was not stopped has ended.
            NotReadyError: `timeout` seconds passed.
        """
        timeout *= PATIENCE
        deadline = time.monotonic() + timeout
        while not ready():
            for name in self.running():
                if not self.alive(name):
                    raise ProcessDiedError(f"{name} ended while waiting for {what}:\n{self.log_tail(name)}")
            if time.monotonic() > deadline:
                tails = "".join(f"\n--- {name}\n{self.log_tail(name)}" for name in self.running())
                raise NotReadyError(f"{what} not ready after {timeout:.0f} s{tails}")
            time.sleep(POLL_SECONDS)
