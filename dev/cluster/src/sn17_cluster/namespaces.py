"""A network and a mount namespace of a node's own.

They are held by one process (`pause`) and vanish with the last process in them, mounts included. The network
has `lo` and a bridge that carries the node's address, nothing else: no packet can leave it. Folders that the
node's programs keep at fixed places (`/var/lib/kubelet`, `/run/containerd`, ...) are covered by folders of
the run, so that a kubelet or containerd of the machine itself is never met.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sn17_cluster.processes import Supervisor

COVERED = ("/var/lib/kubelet", "/var/lib/cni", "/run/containerd")
BRIDGE = "node0"
UPLINK = "node0"


class SetupError(Exception):
    """The machine refused a step of setting up a node; the message holds the command and its answer."""


@dataclass(frozen=True, slots=True)
class Namespaces:
    """The namespaces held by process `holder`."""

    holder: int

    @property
    def prefix(self) -> Sequence[str]:
        """The command prefix that enters both. (`ip netns exec` would hide the cgroup mounts.)"""
        return ["nsenter", f"--target={self.holder}", "--net", "--mount", "--"]

    @property
    def network(self) -> Sequence[str]:
        """The command prefix that enters the network alone."""
        return ["nsenter", f"--target={self.holder}", "--net", "--"]

    def run(self, *argv: str) -> None:
        """Run a command inside. Raises SetupError unless it exits with 0."""
        run([*self.prefix, *argv])


def run(argv: Sequence[str]) -> None:
    """Run a command of the set-up. Raises SetupError unless it exits with 0."""
    answer = subprocess.run(argv, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise SetupError(f"{' '.join(argv)}: {(answer.stderr or answer.stdout).strip()}")


def create(supervisor: Supervisor, name: str, folder: Path, pause: str) -> Namespaces:
    """New namespaces with loopback up and the covered folders empty."""
    supervisor.start(name, ["unshare", "--net", "--mount", "--propagation", "slave", "--", pause])
    namespaces = Namespaces(supervisor.pid(name))
    holder = Path(f"/proc/{namespaces.holder}")
    supervisor.wait(
        f"the namespaces of {name}",
        lambda: (holder / "exe").resolve().name == Path(pause).name,
        timeout=10,
    )
    for target in COVERED:
        Path(target).mkdir(parents=True, exist_ok=True)
        source = folder / "covered" / target.strip("/").replace("/", "-")
        source.mkdir(parents=True, exist_ok=True)
        namespaces.run("mount", "--bind", str(source), target)
    namespaces.run("ip", "link", "set", "lo", "up")
    # Written by a program inside: /proc/sys/net shows the network of whoever looks.
    namespaces.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    return namespaces


def bridge(namespaces: Namespaces, address: str) -> None:
    """The first node's network: a bridge with `address`, and a default route that ends there."""
    namespaces.run("ip", "link", "add", BRIDGE, "type", "bridge")
    _bring_up(namespaces, BRIDGE, address)


def join(first: Namespaces, other: Namespaces, index: int, address: str) -> None:
    """Connect another node to the first one's bridge."""
    peer = f"peer{index}"
    first.run("ip", "link", "add", peer, "type", "veth", "peer", "name", UPLINK, "netns", str(other.holder))
    first.run("ip", "link", "set", peer, "master", BRIDGE, "up")
    _bring_up(other, UPLINK, address)


def route(namespaces: Namespaces, pods: str, via: str) -> None:
    """Send packets for another node's pods to that node."""
    namespaces.run("ip", "route", "add", pods, "via", via)


def _bring_up(namespaces: Namespaces, device: str, address: str) -> None:
    namespaces.run("ip", "address", "add", f"{address}/24", "dev", device)
    namespaces.run("ip", "link", "set", device, "up")
    # kube-proxy and the API server look for the address that a default route goes out from.
    namespaces.run("ip", "route", "add", "default", "dev", device)
