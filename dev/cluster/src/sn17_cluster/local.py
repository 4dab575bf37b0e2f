"""The whole cluster on this machine: a control plane and nodes, DNS, and volumes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sn17_cluster import namespaces as ns
from sn17_cluster.client import Cluster
from sn17_cluster.controlplane import ControlPlane
from sn17_cluster.node import CLUSTER_DNS, START_TIMEOUT, Address, Node
from sn17_cluster.processes import Supervisor
from sn17_cluster.requirements import require_commands, require_root, require_tools
from sn17_cluster.state import RunState

TOOL_GROUPS = ("kubernetes", "etcd", "helm4", "coredns", "prometheus", "pause")
COMMANDS = (
    "conntrack",
    "containerd",
    "ctr",
    "ip",
    "iptables",
    "mount",
    "nsenter",
    "runc",
    "setpriv",
    "socat",
)
VOLUMES_PER_NODE = 12
VOLUME_SIZE = "2Gi"
STORAGE_CLASS = "hostpath"

Object = dict[str, Any]


class LocalCluster:
    """A Kubernetes of `nodes` nodes in namespaces of its own. `start` it, use `cluster`, `stop` it.

    kubelet: fields that replace those of every kubelet's configuration.
    """

    def __init__(
        self, state: RunState, nodes: int = 1, *, kubelet: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """Raises MissingError when this machine lacks something."""
        require_root("a node")
        require_commands(COMMANDS)
        self.tools = require_tools(TOOL_GROUPS)
        self.state = state
        self._kubelet = kubelet
        self.supervisor = Supervisor(state)
        self._addresses = [Address(index) for index in range(nodes)]
        self._namespaces: list[ns.Namespaces] = []
        self.nodes: list[Node] = []

    @property
    def network(self) -> ns.Namespaces:
        """Where pods and Services are reachable."""
        return self._namespaces[0]

    @property
    def cluster(self) -> Cluster:
        """Administrator's access from this process."""
        return Cluster(
            self.plane.folder / "admin.kubeconfig",
            self.tools,
            runs_pods=True,
            network=self._namespaces[0].network,
            load=self.load,
        )

    def start(self) -> None:
        """Start everything; all nodes are Ready and names resolve when it returns.

        Raises:
            MissingError: the machine's control groups cannot hold a node.
            SetupError, ProcessDiedError, NotReadyError: something did not come up.
        """
        self._start_networks()
        first = self._namespaces[0]
        self.plane = ControlPlane(
            self.state,
            self.supervisor,
            address=self._addresses[0].node,
            bind="0.0.0.0",
            prefix=first.network,
            expose=lambda port: self._expose(first, port),
        )
        self.plane.start()
        for namespaces, address in zip(self._namespaces, self._addresses, strict=True):
            node = Node(self.state, self.supervisor, self.plane, namespaces, address, self._kubelet)
            self.nodes.append(node)
            node.start()
        self._start_dns(first)
        self.cluster.apply(*self._volumes())
        self.supervisor.wait("the nodes", self._nodes_ready, timeout=START_TIMEOUT)

    def stop(self) -> None:
        """End everything at once, containers included, and delete what the run has made: nothing is kept."""
        self.supervisor.kill_all()
        self.state.close()

    def load(self, archive: Path) -> None:
        """Import an image archive into every node. Raises SetupError."""
        for node in self.nodes:
            node.load(archive)

    def _start_networks(self) -> None:
        for address in self._addresses:
            folder = self.state.folder / f"n{address.index}"
            name = f"{address.name}.namespaces"
            self._namespaces.append(ns.create(self.supervisor, name, folder, self.tools["pause"]))
        first, *others = self._namespaces
        ns.bridge(first, self._addresses[0].node)
        for address, other in zip(self._addresses[1:], others, strict=True):
            ns.join(first, other, address.index, address.node)
        for source, namespaces in zip(self._addresses, self._namespaces, strict=True):
            for target in self._addresses:
                if target != source:
                    ns.route(namespaces, target.pods, via=target.node)

    def _expose(self, namespaces: ns.Namespaces, port: int) -> None:
        # A socket in the file system is reached from every network namespace, so the same kubeconfig works
        # on both sides; nothing but the API server is reachable this way, and only from this machine.
        socket = self.state.folder / "api.sock"
        inside = ["socat", f"UNIX-LISTEN:{socket},fork,unlink-early,mode=0600", f"TCP:127.0.0.1:{port}"]
        outside = ["socat", f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr", f"UNIX-CONNECT:{socket}"]
        self.supervisor.start("api-inside", inside, prefix=namespaces.network)
        self.supervisor.start("api-outside", outside)

    def _start_dns(self, namespaces: ns.Namespaces) -> None:
        address = self._addresses[0].node
        user = self.plane.authority.issue("system:coredns", ["system:masters"])
        # No forwarder: a name outside the cluster is refused at once instead of being looked for.
        corefile = self.state.folder / "Corefile"
        corefile.write_text(
            f"""\
.:53 {{
    bind {address}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {self.plane.kubeconfig("coredns", user)}
        ttl 5
    }}
    cache 5
}}
"""
        )
        self.supervisor.start(
            "coredns", [self.tools["coredns"], "-conf", str(corefile)], prefix=namespaces.network
        )
        self.cluster.apply(*_dns_service(address))

    def _volumes(self) -> Iterator[Object]:
        yield {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        }
        for address in self._addresses:
            for number in range(VOLUMES_PER_NODE):
                folder = self.state.folder / "volumes" / f"{address.name}-{number}"
                folder.mkdir(parents=True)
                # fsGroup is not applied to hostPath volumes, and the pods' users are many.
                folder.chmod(0o777)
                yield _volume(address.name, number, folder)

    def _nodes_ready(self) -> bool:
        conditions = [node["status"].get("conditions", []) for node in self.cluster.get("nodes")]
        ready = [
            each
            for each in conditions
            if {"Ready": "True"}.items() <= {c["type"]: c["status"] for c in each}.items()
        ]
        return len(ready) == len(self._addresses)


def _dns_service(address: str) -> list[Object]:
    metadata = {"name": "kube-dns", "namespace": "kube-system"}
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata}
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]}],
        "ports": ports,
    }
    return [{**service, "spec": {"clusterIP": CLUSTER_DNS, "ports": ports}}, endpoints]


def _volume(node: str, number: int, folder: Path) -> Object:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{node}-{number}"},
        "spec": {
            "capacity": {"storage": VOLUME_SIZE},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": STORAGE_CLASS,
            "hostPath": {"path": str(folder), "type": "Directory"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


@contextlib.contextmanager
def local_cluster(
    nodes: int = 1, *, kubelet: Mapping[str, Any] = MappingProxyType({})
) -> Iterator[LocalCluster]:
    """A cluster of one's own for as long as the block lasts."""
    state = RunState.create()
    try:
        local = LocalCluster(state, nodes, kubelet=kubelet)
    except BaseException:
        state.close()
        raise
    try:
        local.start()
        yield local
    finally:
        local.stop()
