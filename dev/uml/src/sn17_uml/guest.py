"""Boots the kernel, runs one command, powers off."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sn17_cluster.requirements import MissingError, require_commands, require_root

KERNEL: Final = "linux.uml"
COMMANDS: Final = (KERNEL, "ip", "mount", "setpriv")
MACHINES: Final = ("x86_64", "i686")
CONSOLE_LINES: Final = 60

# Each process of the guest is one of the machine. All of them end with the first one of their namespace, and
# that one with the test run. It is a shell since a kernel that panics aborts, which a first process does not.
OWN_PROCESSES: Final = (
    *("setpriv", "--pdeathsig", "KILL", "--"),
    *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
    *("sh", "-c", 'ulimit -c 0; "$@"; exit $?', "sh"),
)

_INIT: Final = """\
#!/bin/sh
# The first process of the guest; if it ended before the power is off, the kernel would panic.
trap 'sync; echo o >/proc/sysrq-trigger; sleep 60' EXIT
set -e
PATH={path}
export PATH
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /dev/shm {shared}
mount -t tmpfs tmpfs /dev/shm
mount -t hostfs none {shared} -o {shared}
ip link set lo up
echo guest >/proc/sys/kernel/hostname
stty -opost </dev/tty1
cd {shared}
set +e
env -i {command} </dev/null >/dev/tty1 2>&1
echo $? >{code}
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command in the guest ended.

    code: its exit code. output: what it wrote to stdout and stderr. console: what the kernel said, the OOM
    killer's reports for example. seconds: boot, command and power-off together.
    """

    code: int
    output: str
    console: str
    seconds: float


class GuestError(Exception):
    """The guest ended, or was ended at its deadline, before the command did."""


def require() -> None:
    """Raises MissingError, with what to do about it, on a machine that cannot run the guest."""
    if platform.machine() not in MACHINES:
        raise MissingError(f"user-mode Linux runs on x86 only, and this machine is {platform.machine()}")
    require_root("user-mode Linux")
    require_commands(COMMANDS)


def run_in_guest(
    argv: Sequence[str],
    *,
    shared: Path,
    environment: Mapping[str, str] = MappingProxyType({}),
    memory_mib: int = 1024,
    deadline: float = 60.0,
) -> Outcome:
    """Run `argv` as root in a new guest, in the folder `shared`, which is the only one it can write to.

    environment: added to PATH, HOME, LANG and PYTHONDONTWRITEBYTECODE; nothing else is handed on.
    deadline: seconds for boot and command together.

    Raises:
        GuestError: the deadline passed, or the kernel ended by itself.
        MissingError: this machine cannot run the guest.
    """
    require()
    shared = shared.resolve()
    code = shared / "exit-code"
    code.unlink(missing_ok=True)
    init = shared / "init"
    init.write_text(_script(argv, shared, code, environment))
    init.chmod(0o755)
    started = time.monotonic()
    # Sockets of the kernel's own; their paths must be short.
    with tempfile.TemporaryDirectory(prefix="sn17-uml-") as folder:
        output, console = _boot(_kernel(init, folder, memory_mib), deadline)
    seconds = time.monotonic() - started
    try:
        return Outcome(int(code.read_text()), output, console, seconds)
    except (OSError, ValueError):
        raise GuestError(_report("the guest ended before the command did", output, console)) from None


def _kernel(init: Path, folder: str, memory_mib: int) -> list[str]:
    return [
        KERNEL,
        f"mem={memory_mib}M",
        "root=/dev/root",
        "rootfstype=hostfs",
        "rootflags=/",
        "ro",
        "quiet",
        f"init={init}",
        f"uml_dir={folder}/",
        "con=null",
        "con0=null,fd:2",
        "con1=null,fd:1",
    ]


def _script(argv: Sequence[str], shared: Path, code: Path, environment: Mapping[str, str]) -> str:
    settings = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        **environment,
    }
    command = shlex.join([*(f"{name}={value}" for name, value in settings.items()), *argv])
    return _INIT.format(
        path=shlex.quote(settings["PATH"]),
        shared=shlex.quote(str(shared)),
        code=shlex.quote(str(code)),
        command=command,
    )


def _boot(kernel: Sequence[str], deadline: float) -> tuple[str, str]:
    """Output of the command and of the kernel. Raises GuestError at the deadline."""
    process = subprocess.Popen(
        [*OWN_PROCESSES, *kernel],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    late = False
    try:
        output, console = process.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        late = True
        process.send_signal(signal.SIGKILL)
        output, console = process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()
        raise
    texts = output.decode(errors="replace"), console.decode(errors="replace")
    if late:
        raise GuestError(_report(f"the guest had not ended after {deadline:.0f} s", *texts))
    return texts


def _report(what: str, output: str, console: str) -> str:
    tail = "\n".join(console.splitlines()[-CONSOLE_LINES:])
    return f"{what}\n--- output\n{output}\n--- kernel\n{tail}"
