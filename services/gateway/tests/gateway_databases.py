"""A real Postgres in a temporary folder, where Debian's package is installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DEADLINE = 90.0


def programs() -> Path:
    """The folder of initdb and pg_ctl; skips the test where there is none."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    pytest.skip("no Postgres on this machine: apt-get install postgresql")


class Postgres:
    """One cluster on a port of its own; root hands it to the user postgres, which it demands."""

    def __init__(self, folder: Path) -> None:
        self._bin = programs()
        self._data = folder / "data"
        self._log = folder / "log"
        self._as: dict[str, str] = {}
        if os.getuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
            self._as = {"user": "postgres", "group": "postgres"}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        failed = self._call(
            "initdb", "-D", self._data, "-U", "sn17", "-A", "trust", "--no-sync", "-E", "UTF8"
        )
        assert failed is None, failed

    @property
    def url(self) -> str:
        return f"postgresql://sn17:unused@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Listens when this returns. After a kill the last processes of the old one may still be leaving."""
        deadline = time.monotonic() + DEADLINE
        while (failed := self._started()) is not None:
            assert time.monotonic() < deadline, failed
            time.sleep(0.1)

    def _started(self) -> str | None:
        options = f"-p {self.port} -k {self._data} -c listen_addresses=127.0.0.1 -c max_connections=60"
        return self._call(
            "pg_ctl", "-D", self._data, "-l", self._log, "-w", "-t", "60", "-o", options, "start"
        )

    def kill(self) -> None:
        """SIGKILL to all its processes, the first one first: the next start recovers."""
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        others = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for process in (pid, *map(int, others)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def _call(self, program: str, *arguments: object) -> str | None:
        """What it says when it fails."""
        command = [str(self._bin / program), *map(str, arguments)]
        done = subprocess.run(
            command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=90, check=False,
            **self._as,  # type: ignore[call-overload]
        )  # fmt: skip
        return None if done.returncode == 0 else done.stderr.decode() or f"{program}: {done.returncode}"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running one."""
    programs()
    with tempfile.TemporaryDirectory(prefix="sn17-postgres-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = Postgres(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.kill()
