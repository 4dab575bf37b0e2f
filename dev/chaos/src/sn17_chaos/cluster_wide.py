"""What can be broken under all releases at once: control plane, nodes, network."""

from __future__ import annotations

import contextlib
import signal
from collections import Counter
from collections.abc import Callable
from random import Random

from sn17_cluster.client import CommandError
from sn17_cluster.node import Node
from sn17_cluster.pki import signing_key

from sn17_chaos.cluster_bed import Bed
from sn17_chaos.faults import Register, Tier, Undo, ends_by_itself

WIDE: Register[Bed] = Register("cluster")
NODE_SECONDS = 120.0


Inject = Callable[[Bed, Random], Undo]


def _add(name: str, *, seconds: tuple[float, float] = (0.0, 0.0)) -> Callable[[Inject], Inject]:
    return WIDE.add(name, seconds=seconds, pairs=False, tier=Tier.CLUSTER)


def _restart(bed: Bed, name: str) -> Undo:
    bed.local.supervisor.restart(name, kill=True)
    return ends_by_itself


@_add("API server restarted")
def api_restarted(bed: Bed, rng: Random) -> Undo:
    """SIGKILL; every watch breaks."""
    bed.local.supervisor.restart("kube-apiserver", kill=True)
    bed.local.plane.wait_ready()
    return ends_by_itself


@_add("API server gone", seconds=(15.0, 25.0))
def api_gone(bed: Bed, rng: Random) -> Undo:
    """Away for longer than the operator's Lease lasts."""
    bed.local.supervisor.stop("kube-apiserver", kill=True)

    def undo() -> None:
        bed.local.supervisor.resume("kube-apiserver")
        bed.local.plane.wait_ready()

    return undo


@_add("API server hung", seconds=(5.0, 10.0))
def api_hung(bed: Bed, rng: Random) -> Undo:
    """SIGSTOP: connections are taken and nothing is answered; later SIGCONT."""
    process = bed.local.supervisor.process("kube-apiserver")
    process.send_signal(signal.SIGSTOP)
    return lambda: process.send_signal(signal.SIGCONT)


@_add("history compacted, API server restarted")
def compacted(bed: Bed, rng: Random) -> Undo:
    """etcd forgets old versions and the API server its cache: a watch that goes on hears 410 Gone."""
    etcd = f"http://127.0.0.1:{bed.local.plane.ports.etcd}/v3/kv"
    found = bed.inside.request("POST", f"{etcd}/range", json={"key": "AA=="}).raise_for_status().json()
    revision = {"revision": found["header"]["revision"], "physical": True}
    bed.inside.request("POST", f"{etcd}/compaction", json=revision).raise_for_status()
    return api_restarted(bed, rng)


@_add("etcd restarted")
def etcd_restarted(bed: Bed, rng: Random) -> Undo:
    """SIGKILL."""
    return _restart(bed, "etcd")


@_add("controllers and scheduler restarted")
def controllers_restarted(bed: Bed, rng: Random) -> Undo:
    """SIGKILL of both."""
    _restart(bed, "kube-scheduler")
    return _restart(bed, "kube-controller-manager")


@_add("certificate of the API server rotated")
def certificate_rotated(bed: Bed, rng: Random) -> Undo:
    """Another one of the same authority, and a restart with it."""
    bed.local.plane.renew_certificate()
    return api_restarted(bed, rng)


@_add("key of service-account tokens rotated")
def token_key_rotated(bed: Bed, rng: Random) -> Undo:
    """New tokens are signed with another key, old ones are still taken: as Kubernetes says to rotate it."""
    plane = bed.local.plane
    plane.rotate_token_key(signing_key(plane.folder / "pki" / f"tokens-{rng.getrandbits(32):08x}"))
    for name in ("kube-apiserver", "kube-controller-manager"):
        bed.local.supervisor.restart(name, kill=True)
    plane.wait_ready()
    return ends_by_itself


@_add("kubelets restarted")
def kubelet_restarted(bed: Bed, rng: Random) -> Undo:
    """SIGKILL on every node; pods go on."""
    for node in bed.nodes:
        _restart(bed, node.process("kubelet"))
    return ends_by_itself


@_add("containerd restarted")
def containerd_restarted(bed: Bed, rng: Random) -> Undo:
    """SIGKILL on every node; containers go on under their shims."""
    for node in bed.nodes:
        _restart(bed, node.process("containerd"))
    return ends_by_itself


@_add("kube-proxy restarted")
def proxy_restarted(bed: Bed, rng: Random) -> Undo:
    """SIGKILL on every node."""
    for node in bed.nodes:
        _restart(bed, node.process("kube-proxy"))
    return ends_by_itself


@_add("DNS gone for a minute", seconds=(60.0, 60.0))
def dns_gone(bed: Bed, rng: Random) -> Undo:
    """CoreDNS is away: no name of a Service resolves."""
    bed.local.supervisor.stop("coredns", kill=True)
    return lambda: bed.local.supervisor.resume("coredns")


def _fullest(bed: Bed) -> Node:
    """The node with the most pods; the control plane, DNS and the wire are no part of any."""
    pods = bed.api.get("/api/v1/pods", fieldSelector="status.phase=Running")["items"]
    names = Counter(pod["spec"].get("nodeName") for pod in pods)
    return max(bed.nodes, key=lambda node: names[node.address.name])


def _uncordon(bed: Bed, node: str) -> None:
    bed.cluster.kubectl("uncordon", node)


def _drain(bed: Bed, node: str) -> None:
    flags = ["--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=90s"]
    # A disruption budget that holds it back for longer is no failure of ours: the node stays cordoned.
    with contextlib.suppress(CommandError):
        bed.cluster.kubectl("drain", node, *flags, timeout=120)


@_add("node cordoned, its pods deleted")
def node_cordoned(bed: Bed, rng: Random) -> Undo:
    """New pods go to the other node."""
    node = _fullest(bed).address.name
    bed.cluster.kubectl("cordon", node)
    pods = bed.api.get("/api/v1/pods", fieldSelector=f"spec.nodeName={node}")["items"]
    for pod in rng.sample(pods, min(2, len(pods))):
        meta = pod["metadata"]
        bed.api.delete(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}")
    return lambda: _uncordon(bed, node)


@_add("node drained")
def node_drained(bed: Bed, rng: Random) -> Undo:
    """`kubectl drain`: evictions within the disruption budgets, then the node comes back."""
    node = _fullest(bed).address.name
    _drain(bed, node)
    return lambda: _uncordon(bed, node)


@_add("node dead")
def node_dead(bed: Bed, rng: Random) -> Undo:
    """Power cut: kubelet, containerd and every process of its pods. A StatefulSet's pod is not made anew
    while nobody has said that the node is really off: here a person sets the out-of-service taint, as
    Kubernetes asks for, and takes it away when the node is back."""
    node = _fullest(bed)
    name = node.address.name
    taint = "node.kubernetes.io/out-of-service"

    def ready() -> bool:
        node.keep_on()
        return bed.node_ready(name)

    def moved() -> bool:
        return not bed.api.get("/api/v1/pods", fieldSelector=f"spec.nodeName={name}")["items"]

    def undo() -> None:
        node.power_on()
        bed.wait(f"{name} Ready", ready, NODE_SECONDS)
        bed.cluster.kubectl("taint", "nodes", name, f"{taint}-")
        bed.dark.discard(name)

    bed.dark.add(name)
    node.power_off()
    bed.kill_containers(node)
    bed.wait(f"{name} NotReady", lambda: not bed.node_ready(name), NODE_SECONDS)
    bed.cluster.kubectl("taint", "nodes", name, f"{taint}=nodeshutdown:NoExecute")
    try:
        bed.wait("the dead node's pods are made elsewhere", moved, NODE_SECONDS)
    except TimeoutError:
        undo()
        raise
    return undo
