"""Small disks that can be filled, and a limit on what a running process may write."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from pathlib import Path

from sn17_chaos.faults import CannotInjectError

_BALLAST = "ballast"


class SmallDisk:
    """A tmpfs of ``mebibytes`` mounted on ``folder``. Raises CannotInjectError where that is not allowed."""

    def __init__(self, folder: Path, mebibytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        argv = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0700", "chaos", str(folder)]
        try:
            answer = subprocess.run(argv, capture_output=True, text=True, check=False)
        except OSError as error:
            raise CannotInjectError(f"there is no mount here: {error}") from error
        if answer.returncode:
            raise CannotInjectError(f"a tmpfs cannot be mounted: {answer.stderr.strip()}")
        self.folder = folder

    def fill(self) -> None:
        """Leave no byte free."""
        with (self.folder / _BALLAST).open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(1 << 16))
        with (self.folder / _BALLAST).open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(b"\0")

    def free(self) -> None:
        (self.folder / _BALLAST).unlink(missing_ok=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)


def forbid_writes(pid: int) -> None:
    """Let every write to a file fail in a running process (EFBIG), as a quota that is used up does."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    try:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    except PermissionError as error:
        raise CannotInjectError(f"limits of another process cannot be set: {error}") from error


def allow_writes(pid: int) -> None:
    """Undo ``forbid_writes``; a process that has ended since needs nothing."""
    with contextlib.suppress(ProcessLookupError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


def running(pid: int) -> bool:
    """Whether the process is there and not only waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"
