"""A command in a real terminal, and the person before it."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

BEGUN = re.compile(r"\x1b(\[[0-9;?]*|[()])?$")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]")


def unmeasured() -> dict[str, str]:
    """This environment without coverage, which brings files and signal handlers into every process."""
    return {name: text for name, text in os.environ.items() if not name.startswith("COVERAGE_")}


class Terminal:
    """A command in a pseudo-terminal of its own, which it has as its controlling terminal."""

    def __init__(
        self,
        command: list[str],
        *,
        rows: int = 24,
        columns: int = 80,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.command, self.text, self.raw = command, "", ""
        # A read may end within a character or an escape sequence.
        self._decoded, self._begun = codecs.getincrementaldecoder("utf-8")("replace"), ""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            if cwd is not None:
                os.chdir(cwd)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            # Readline, which pytest loads, leaves a size of its own in the environment below Python's.
            kept = {name: text for name, text in unmeasured().items() if name not in ("COLUMNS", "LINES")}
            os.execve(command[0], command, {**kept, "TERM": "xterm", **(environment or {})})

    def until(self, pattern: str, seconds: float = 150) -> str:
        """Read until the screen has shown ``pattern``; its match."""
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern, self.text)) is None:
            if time.monotonic() > deadline or not self._read(1.0):
                pytest.fail(f"{pattern!r} was never shown:\n{self.text[-3000:]}")
        return found[0]

    def press_ctrl_c(self) -> None:
        os.write(self.master, b"\x03")

    def wait(self, seconds: float = 120) -> int:
        """The exit code; all that is still shown is read."""
        deadline = time.monotonic() + seconds
        while self._read(1.0):
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                pytest.fail(f"it did not end:\n{self.text[-3000:]}")
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def _read(self, seconds: float) -> bool:
        """False at the end of the output."""
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        shown = self._decoded.decode(data)
        self.raw += shown
        shown = self._begun + shown
        found = BEGUN.search(shown)
        self._begun = "" if found is None else found[0]
        self.text += ESCAPES.sub("", shown.removesuffix(self._begun))
        return bool(data)
