"""What a cluster needs from the machine, and the one sentence that says what is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[4]

DEBIAN_PACKAGES = {
    "buildah": "buildah",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "ctr": "containerd",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "iptables": "iptables",
    "linux.uml": "user-mode-linux",
    "modprobe": "kmod",
    "mount": "mount",
    "nsenter": "util-linux",
    "runc": "runc",
    "setpriv": "util-linux",
    "socat": "socat",
}


class MissingError(Exception):
    """This machine cannot run what was asked for; the message says in one sentence what to do about it."""


def require_tools(groups: Iterable[str]) -> Mapping[str, str]:
    """Paths of all tools in the cache by name.

    Raises:
        MissingError: a tool of one of `groups` (folders under `tools/`) is not built yet.
    """
    builder = REPOSITORY / "dev" / "tools" / "build.py"
    if not builder.exists():
        raise MissingError(f"{builder} is not there: the cluster tests run from a clone of the repository")
    answer = subprocess.run(
        [sys.executable, str(builder), "--paths"], capture_output=True, text=True, check=True
    )
    paths: dict[str, dict[str, str | None]] = json.loads(answer.stdout)
    if missing := [name for name in groups if None in paths[name].values()]:
        raise MissingError(
            f"the cluster tools ({', '.join(missing)}) are not built: run `make tools`, which needs Go 1.26"
        )
    return {name: path for group in paths.values() for name, path in group.items() if path}


def require_commands(commands: Iterable[str], path: str | None = None) -> None:
    """Raises MissingError unless every command (a key of DEBIAN_PACKAGES) is on `path`, or on the PATH."""
    if missing := sorted({name for name in commands if shutil.which(name, path=path) is None}):
        packages = sorted({DEBIAN_PACKAGES[name] for name in missing})
        raise MissingError(
            f"{', '.join(missing)} not found: run dev/cluster/install-debian.sh as root,"
            f" or install the packages {' '.join(packages)}"
        )


def require_root(purpose: str) -> None:
    """Raises MissingError for any user but root."""
    if os.geteuid() != 0:
        raise MissingError(
            f"{purpose} needs root (network namespaces, mounts, cgroups): run it as root,"
            " or name a cluster of yours in SN17_KUBECONFIG"
        )
