"""One node: containerd, kubelet and kube-proxy in namespaces and a control group of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sn17_cluster import cgroups
from sn17_cluster.controlplane import ControlPlane
from sn17_cluster.images import write_archive
from sn17_cluster.namespaces import Namespaces, run
from sn17_cluster.pki import KeyPair
from sn17_cluster.processes import Supervisor
from sn17_cluster.requirements import MissingError
from sn17_cluster.state import RunState

PAUSE_IMAGE = "docker.io/sn17/pause:1"
POD_RANGE = "198.18.0.0/16"
CLUSTER_DNS = "198.19.0.10"
CNI_PLUGINS = ("/usr/lib/cni", "/opt/cni/bin")
START_TIMEOUT = 90.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where node number `index` lives, in ranges for documentation and benchmarks (RFC 5737, RFC 2544)."""

    index: int

    @property
    def name(self) -> str:
        return f"node-{self.index}"

    @property
    def node(self) -> str:
        return f"192.0.2.{10 + self.index}"

    @property
    def pods(self) -> str:
        return f"198.18.{self.index}.0/24"


def cni_plugins() -> str:
    """The folder of the CNI plugins. Raises MissingError."""
    for folder in CNI_PLUGINS:
        if (Path(folder) / "bridge").exists():
            return folder
    raise MissingError(
        "the CNI plugins are not installed: run dev/cluster/install-debian.sh as root,"
        " or install the package containernetworking-plugins"
    )


class Node:
    """A node of `plane`. Its containers end when the run's record is cleared (`RunState.close`).

    kubelet: fields that replace those of its configuration; those of `featureGates` are added.
    """

    def __init__(
        self,
        state: RunState,
        supervisor: Supervisor,
        plane: ControlPlane,
        namespaces: Namespaces,
        address: Address,
        kubelet: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.address = address
        self._kubelet_changes = kubelet
        self.namespaces = namespaces
        self.folder = state.folder / f"n{address.index}"
        self.folder.mkdir(exist_ok=True)
        self.cgroup = f"sn17-{state.id}-{address.index}"
        self._state = state
        self._supervisor = supervisor
        self._plane = plane
        self._cni = cni_plugins()

    @property
    def socket(self) -> Path:
        return self.folder / "containerd.sock"

    def process(self, part: str) -> str:
        """The supervisor's name of this node's `containerd`, `kubelet` or `kube-proxy`."""
        return f"{self.address.name}.{part}"

    def start(self) -> None:
        """Start the node's programs; it is Ready some seconds later (see `LocalCluster`).

        Raises:
            MissingError: the machine's control groups cannot hold a node.
            ProcessDiedError, NotReadyError: containerd did not come up.
        """
        cgroups.create(self._state, self.cgroup)
        self._write_cni()
        self._start_part("containerd", ["containerd", f"--config={self._write_containerd()}"])
        self._supervisor.wait(
            f"containerd of {self.address.name}",
            self._containerd_answers,
            timeout=START_TIMEOUT,
        )
        archive = self.folder / "pause.tar"
        pause = Path(self._plane.tools["pause"])
        self.load(write_archive(archive, PAUSE_IMAGE, {"/pause": pause}, entrypoint=["/pause"]))
        self._start_part("kubelet", self._kubelet())
        self._start_part("kube-proxy", self._proxy())

    def power_off(self) -> None:
        """End its programs at once; its containers go on until somebody ends them."""
        for part in ("kubelet", "kube-proxy", "containerd"):
            self._supervisor.stop(self.process(part), kill=True)

    def power_on(self) -> None:
        """Start them again. kubelet ends when containerd is not ready for it: see `keep_on`."""
        for part in ("containerd", "kubelet", "kube-proxy"):
            self._supervisor.resume(self.process(part))

    def keep_on(self) -> None:
        """Start kubelet again if it has ended, as an init system does."""
        if not self._supervisor.alive(self.process("kubelet")):
            self._supervisor.resume(self.process("kubelet"))

    def load(self, archive: Path) -> None:
        """Import an image archive (docker or OCI). Raises SetupError."""
        run([*self._ctr(), "images", "import", str(archive)])

    def _start_part(self, part: str, argv: list[str]) -> None:
        # A cleaner environment than the caller's: proxies and certificate settings are not for the node.
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.folder)}
        self._supervisor.start(
            self.process(part), argv, prefix=self.namespaces.prefix, environment=environment
        )

    def _ctr(self) -> list[str]:
        return [*self.namespaces.prefix, "ctr", f"--address={self.socket}", "--namespace=k8s.io"]

    def _containerd_answers(self) -> bool:
        if not self.socket.exists():
            return False
        return subprocess.run([*self._ctr(), "version"], capture_output=True, check=False).returncode == 0

    def _write_json(self, name: str, content: dict[str, Any]) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(content, indent=1))
        return path

    def _write_cni(self) -> None:
        (self.folder / "cni").mkdir(exist_ok=True)
        bridge = {
            "type": "bridge",
            "bridge": "pods0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": str(self.folder / "ipam"),
                "ranges": [[{"subnet": self.address.pods}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        network = {"cniVersion": "0.4.0", "name": "sn17", "plugins": [bridge, portmap]}
        self._write_json("cni/10-sn17.conflist", network)

    def _write_containerd(self) -> Path:
        path = self.folder / "containerd.toml"
        cri = '[plugins."io.containerd.grpc.v1.cri"'
        # Negative OOM scores and huge pages are refused where the machine is itself a guest with few rights.
        path.write_text(
            f"""\
version = 2
root = "{self.folder}/containerd"
state = "{self.folder}/run"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
address = "{self.socket}"
{cri}]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
disable_hugetlb_controller = true
tolerate_missing_hugetlb_controller = true
netns_mounts_under_state_dir = true
{cri}.cni]
bin_dir = "{self._cni}"
conf_dir = "{self.folder}/cni"
{cri}.containerd]
snapshotter = "overlayfs"
{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
{cri}.containerd.runtimes.runc.options]
SystemdCgroup = false
"""
        )
        return path

    def _kubelet(self) -> list[str]:
        plane, name = self._plane, self.address.name
        user = plane.authority.issue(f"system:node:{name}", ["system:nodes"], [name, self.address.node])
        config = self._write_json("kubelet.json", self._kubelet_config(user))
        for folder in ("kubelet", "pod-logs"):
            (self.folder / folder).mkdir(exist_ok=True)
        # The machine's own resolver settings would send the pods' look-ups to servers out of reach.
        (self.folder / "resolv.conf").write_text("")
        return [
            plane.tools["kubelet"],
            f"--config={config}",
            f"--kubeconfig={plane.kubeconfig(f'kubelet-{name}', user)}",
            f"--root-dir={self.folder}/kubelet",
            f"--hostname-override={name}",
            f"--node-ip={self.address.node}",
        ]

    def _kubelet_config(self, serving: KeyPair) -> dict[str, Any]:
        config = self._usual_kubelet_config(serving)
        gates = {**config["featureGates"], **self._kubelet_changes.get("featureGates", {})}
        return {**config, **self._kubelet_changes, "featureGates": gates}

    def _usual_kubelet_config(self, serving: KeyPair) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            # Tolerates the sysctls and scores that a guest with few rights may not set.
            "featureGates": {"KubeletInUserNamespace": True},
            "oomScoreAdj": 0,
            "podLogsDir": str(self.folder / "pod-logs"),
            "volumePluginDir": str(self.folder / "volume-plugins"),
            "resolvConf": str(self.folder / "resolv.conf"),
            "tlsCertFile": str(serving.certificate),
            "tlsPrivateKeyFile": str(serving.key),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._plane.authority.certificate)},
            },
            "authorization": {"mode": "Webhook"},
            "clusterDNS": [CLUSTER_DNS],
            "clusterDomain": "cluster.local",
            # The disk is shared with whatever else the machine does: neither collect images nor evict for it.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {
                "memory.available": "50Mi",
                "nodefs.available": "1%",
                "imagefs.available": "1%",
                "nodefs.inodesFree": "1%",
            },
            "maxPods": 110,
            "serializeImagePulls": False,
            "nodeStatusUpdateFrequency": "5s",
        }

    def _proxy(self) -> list[str]:
        plane, name = self._plane, self.address.name
        user = plane.authority.issue("system:kube-proxy")
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(plane.kubeconfig("kube-proxy", user))},
            "hostnameOverride": name,
            "mode": "iptables",
            "clusterCIDR": POD_RANGE,
            # The machine-wide connection-tracking settings are not ours to change.
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        }
        return [plane.tools["kube-proxy"], f"--config={self._write_json('kube-proxy.json', config)}"]
