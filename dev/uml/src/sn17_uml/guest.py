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
NODE_COMMANDS: Final = ("iptables", "modprobe")
NODE_PROGRAMS: Final = "/run/node/bin"
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
{more}
stty -opost </dev/tty1
cd {shared}
set +e
env -i {command} </dev/null >/dev/tty1 2>&1
echo $? >{code}
"""

# What kubelet, containerd and kube-proxy need beside. The kernel loads its modules from where Debian has put
# them; its nftables have no NAT, so `iptables` is the older one; kubelet does not start without a clock rate.
_NODE: Final = """\
for folder in /var/lib /var/log /mnt; do mount -t tmpfs tmpfs $folder; done
mkdir -p /mnt/lib/modules {programs}
mount --bind /usr/lib/uml/modules /mnt/lib/modules
printf '#!/bin/sh\\nexec modprobe -d /mnt "$@"\\n' >{programs}/load-module
chmod +x {programs}/load-module
echo {programs}/load-module >/proc/sys/kernel/modprobe
for module in overlay br_netfilter bridge veth iptable_nat iptable_filter nf_conntrack; do
    {programs}/load-module $module
done
for family in iptables ip6tables; do
    for tool in "" -save -restore; do
        ln -s "$(command -v $family-legacy$tool)" "{programs}/$family$tool"
    done
done
sed 's/^model name.*/&\\ncpu MHz : 1000.000/' /proc/cpuinfo >/run/node/cpuinfo
mount --bind /run/node/cpuinfo /proc/cpuinfo
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


def require(*, node: bool = False) -> None:
    """Raises MissingError, with what to do about it, on a machine that cannot run the guest."""
    if platform.machine() not in MACHINES:
        raise MissingError(f"user-mode Linux runs on x86 only, and this machine is {platform.machine()}")
    require_root("user-mode Linux")
    require_commands([*COMMANDS, *(NODE_COMMANDS if node else ())])


def run_in_guest(
    argv: Sequence[str],
    *,
    shared: Path,
    environment: Mapping[str, str] = MappingProxyType({}),
    memory_mib: int = 1024,
    deadline: float = 60.0,
    node: bool = False,
) -> Outcome:
    """Run `argv` as root in a new guest, in the folder `shared`, which is the only one it can write to.

    environment: added to PATH, HOME, LANG and PYTHONDONTWRITEBYTECODE; nothing else is handed on.
    deadline: seconds for boot and command together.
    node: prepare the guest for a Kubernetes node; its `/var/lib`, `/var/log` and `/mnt` are then empty.

    Raises:
        GuestError: the deadline passed, or the kernel ended by itself.
        MissingError: this machine cannot run the guest.
    """
    require(node=node)
    shared = shared.resolve()
    code = shared / "exit-code"
    code.unlink(missing_ok=True)
    init = shared / "init"
    init.write_text(_script(argv, shared, code, environment, node=node))
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


def _script(
    argv: Sequence[str], shared: Path, code: Path, environment: Mapping[str, str], *, node: bool
) -> str:
    path = os.environ.get("PATH", os.defpath)
    settings = {
        "PATH": f"{NODE_PROGRAMS}:{path}" if node else path,
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        **environment,
    }
    command = shlex.join([*(f"{name}={value}" for name, value in settings.items()), *argv])
    return _INIT.format(
        path=shlex.quote(settings["PATH"]),
        more=_NODE.format(programs=NODE_PROGRAMS) if node else "",
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
