"""A real cluster of two nodes to break: its processes, its containers as the machine sees them, its network.

The nodes share this machine's file system, so a volume without node affinity stands for network storage: a
pod that is moved to the other node finds its files there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
from sn17_cluster.client import Cluster, CommandError
from sn17_cluster.images import write_archive
from sn17_cluster.local import LocalCluster
from sn17_cluster.node import Node
from sn17_cluster.release import PROMETHEUS, PROMETHEUS_TAG
from sn17_cluster.requirements import REPOSITORY, MissingError
from sn17_cluster.rest import ApiClient
from sn17_cluster.state import RunState
from sn17_http import own_client

from sn17_chaos.disks import SmallDisk
from sn17_chaos.faults import CannotInjectError

CLONE_NEWNET = 0x40000000
CGROUPS = Path("/sys/fs/cgroup/memory")
SHARED_CLASS = "shared"
SHARED_VOLUMES = tuple(f"shared-{number}" for number in range(8))
SHARED_MEBIBYTES = 96
THREADS = 8
FAST_KUBELET: Mapping[str, Any] = {
    "featureGates": {"KubeletCrashLoopBackOffMax": True},
    # The back-off between restarts grows to 5 minutes otherwise, and forgets only after 10.
    "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},
    "syncFrequency": "5s",
}
POLL_SECONDS = 0.5


def _enter(network: str) -> None:
    """Move the calling thread, and it alone, into a network namespace."""
    library = ctypes.CDLL(None, use_errno=True)
    with Path(network).open() as namespace:
        if library.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {network}")


class Inside:
    """HTTP from within the cluster's network, where pods are reached by their addresses."""

    def __init__(self, holder: int) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "inside", _enter, (f"/proc/{holder}/ns/net",))
        self._client = own_client(timeout=2.0)

    def request(self, method: str, url: str, **options: Any) -> httpx2.Response:
        """Raises httpx2.HTTPError."""
        return self._pool.submit(self._client.request, method, url, **options).result()

    def json(self, url: str) -> Any:
        """Raises httpx2.HTTPError, ValueError."""
        return self.request("GET", url).raise_for_status().json()

    def all(self, urls: Mapping[str, str]) -> dict[str, Any]:
        """Answers by name, asked for at once; None where there was none."""

        def ask(url: str) -> Any:
            try:
                return self._client.get(url, timeout=1.0).raise_for_status().json()
            except (httpx2.HTTPError, ValueError):
                return None

        return dict(zip(urls, self._pool.map(ask, urls.values()), strict=True))

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


class Bed:
    """The cluster with the images on its nodes. Made by ``bed``."""

    def __init__(self, local: LocalCluster, disks: Mapping[str, SmallDisk], no_disks: str) -> None:
        self.local = local
        self.disks = disks
        self.no_disks = no_disks
        self.dark: set[str] = set()
        """Nodes that have been injected dead: whatever becomes of their workers has a cause."""
        self.cluster: Cluster = local.cluster
        self.api = ApiClient(self.cluster.kubeconfig, timeout=5.0)
        self.inside = Inside(local.network.holder)

    @property
    def nodes(self) -> list[Node]:
        return self.local.nodes

    # --- set up ---------------------------------------------------------------------------------

    def load_images(self, archives: Sequence[Path] = ()) -> None:
        """Give the nodes these images, or ours as they are built now. Raises MissingError."""
        for each in archives or build_images():
            self.local.load(each)
        archive = self.local.state.folder / "prometheus.tar"
        binary = {"/bin/prometheus": Path(self.local.tools["prometheus"])}
        name = f"{PROMETHEUS}:{PROMETHEUS_TAG}"
        self.local.load(
            write_archive(archive, name, binary, entrypoint=["/bin/prometheus"], folders=["/tmp"])
        )

    def make_shared_volumes(self) -> None:
        """Volumes that any node can mount."""
        for name in SHARED_VOLUMES:
            self.cluster.apply(
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolume",
                    "metadata": {"name": name},
                    "spec": {
                        "capacity": {"storage": "2Gi"},
                        "accessModes": ["ReadWriteOnce"],
                        "storageClassName": SHARED_CLASS,
                        "hostPath": {"path": str(self.volume_folder(name)), "type": "Directory"},
                    },
                }
            )
        provisioner = {"provisioner": "kubernetes.io/no-provisioner"}
        kind = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": SHARED_CLASS}}
        self.cluster.apply({**kind, **provisioner})

    def volume_folder(self, name: str) -> Path:
        return Path(self.local.state.folder) / "shared" / name

    # --- containers as processes of this machine ------------------------------------------------

    def pids(self, pod: Mapping[str, Any], container: str) -> list[int]:
        """Processes of a pod's running container; none when it does not run."""
        for status in pod["status"].get("containerStatuses", ()):
            identity = str(status.get("containerID") or "").removeprefix("containerd://")
            if status["name"] == container and identity:
                for node in self.nodes:
                    for path in (CGROUPS / node.cgroup).glob(f"**/{identity}/cgroup.procs"):
                        with contextlib.suppress(OSError):
                            return [int(line) for line in path.read_text().split()]
        return []

    def signal(self, pod: Mapping[str, Any], container: str, number: signal.Signals) -> list[int]:
        """Send a signal to all processes of a container; whom it reached."""
        found = self.pids(pod, container)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return found

    def kill_containers(self, node: Node) -> None:
        """End every process in the control groups of a node: what a power cut leaves of its pods."""
        for path in (CGROUPS / node.cgroup).glob("**/cgroup.procs"):
            with contextlib.suppress(OSError):
                for line in path.read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(line), signal.SIGKILL)

    def emptydir(self, pod: Mapping[str, Any], volume: str) -> Path:
        """Where the node keeps an emptyDir of a pod. Raises CannotInjectError when it is not on a disk."""
        for node in self.nodes:
            base = node.folder / "kubelet/pods" / pod["metadata"]["uid"] / "volumes/kubernetes.io~empty-dir"
            if (base / volume).is_dir():
                return Path(base / volume)
        raise CannotInjectError(f"the volume {volume} is not to be found on a node's disk")

    def wait(self, what: str, found: Callable[[], Any], seconds: float) -> Any:
        """The first true answer within a deadline. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(CommandError, httpx2.HTTPError, OSError, ValueError, KeyError):
                if answer := found():
                    return answer
            if time.monotonic() > end:
                raise TimeoutError(f"{what}: not within {seconds:.0f} s")
            time.sleep(POLL_SECONDS)

    def node_ready(self, name: str) -> bool:
        conditions = self.api.get(f"/api/v1/nodes/{name}")["status"]["conditions"]
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def close(self) -> None:
        self.inside.close()
        self.api.close()


def build_images() -> list[Path]:
    """Archives of the images of this working tree, or those that SN17_IMAGE_ARCHIVES names (`:` between).

    Raises MissingError when they cannot be built.
    """
    if given := os.environ.get("SN17_IMAGE_ARCHIVES"):
        return [Path(path) for path in given.split(os.pathsep)]
    builder = [sys.executable, str(REPOSITORY / "dev/tools/images.py"), "--archives", "--tag=release"]
    answer = subprocess.run(builder, stdout=subprocess.PIPE, text=True, check=False)
    if answer.returncode:
        raise MissingError("the images could not be built; the reason stands above (see `make images`)")
    return [Path(line) for line in answer.stdout.splitlines() if line.startswith("/")]


def small_disks(folder: Path) -> tuple[dict[str, SmallDisk], str]:
    """A small disk per shared volume, or why there is none. Namespaces made later have them too."""
    disks: dict[str, SmallDisk] = {}
    for name in SHARED_VOLUMES:
        (folder / name).mkdir(parents=True)
        try:
            disks[name] = SmallDisk(folder / name, SHARED_MEBIBYTES)
        except CannotInjectError as error:
            (folder / name).chmod(0o777)
            return disks, str(error)
        (folder / name).chmod(0o777)
    return disks, ""


@contextlib.contextmanager
def bed(nodes: int = 2, *, archives: Sequence[Path] = ()) -> Iterator[Bed]:
    """A cluster to break, for as long as the block lasts. Raises MissingError."""
    with contextlib.ExitStack() as stack:
        state = RunState.create()
        stack.callback(state.close)
        local = LocalCluster(state, nodes, kubelet=FAST_KUBELET)
        disks, no_disks = small_disks(state.folder / "shared")
        for disk in disks.values():
            stack.callback(disk.unmount)
        stack.callback(local.supervisor.kill_all)
        local.start()
        made = Bed(local, disks, no_disks)
        stack.callback(made.close)
        made.load_images(archives)
        made.make_shared_volumes()
        yield made


def unique(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(3)}"
