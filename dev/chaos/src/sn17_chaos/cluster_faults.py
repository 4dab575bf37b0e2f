"""What can be broken in one release on a cluster; ``cluster_wide`` breaks what all of them stand on."""

from __future__ import annotations

import base64
import contextlib
import secrets
import signal
import time
from collections.abc import Callable
from random import Random

import httpx2

from sn17_chaos.cluster_levers import FAULTY_SECONDS, busy, delete, faulty_life, resume, scale, until_over
from sn17_chaos.cluster_release import VALIDATORS
from sn17_chaos.cluster_world import SCRAPE_SECONDS, ClusterWorld
from sn17_chaos.faults import CannotInjectError, Register, Tier, Undo, ends_by_itself

RELEASE: Register[ClusterWorld] = Register("release")
SPOOL_LIMIT = 128 << 20
LEAK = {"leak_mib_per_generation": 70}
"""Of 1Gi: the threshold at 60 % is reached after eight generations, and no single one passes the limit."""


Inject = Callable[[ClusterWorld, Random], Undo]


def _add(name: str, *, seconds: tuple[float, float] = (0.0, 0.0)) -> Callable[[Inject], Inject]:
    return RELEASE.add(name, seconds=seconds, pairs=False, tier=Tier.CLUSTER)


# --- workers ----------------------------------------------------------------------------------------


@_add("worker killed in mid-generation")
def worker_killed(world: ClusterWorld, rng: Random) -> Undo:
    """SIGKILL of the container's processes while a job is at work."""
    world.bed.signal(world.worker_pod(busy(world, rng)), "trellis", signal.SIGKILL)
    return ends_by_itself


@_add("all workers killed")
def workers_killed(world: ClusterWorld, rng: Random) -> Undo:
    """SIGKILL of every worker at once."""
    busy(world, rng)
    for name in world.worker_names():
        world.bed.signal(world.worker_pod(name), "trellis", signal.SIGKILL)
    return ends_by_itself


@_add("worker's pod deleted")
def worker_deleted(world: ClusterWorld, rng: Random) -> Undo:
    """`kubectl delete pod` of a busy worker: it drains, and the Deployment makes another."""
    delete(world, world.worker_pod(busy(world, rng)))
    return ends_by_itself


@_add("worker hung")
def worker_hung(world: ClusterWorld, rng: Random) -> Undo:
    """SIGSTOP without an end: it neither answers nor can be asked to exit, only an eviction helps."""
    name = busy(world, rng)
    boot_id = world.looks[name].boot_id
    world.causes[name, boot_id] = "hung"
    world.bed.signal(world.worker_pod(name), "trellis", signal.SIGSTOP)
    until_over(world, name, boot_id)
    return ends_by_itself


@_add("generation never ends")
def generation_hangs(world: ClusterWorld, rng: Random) -> Undo:
    """The generating thread hangs in its first task; the ports answer."""
    name = rng.choice(world.worker_names())
    until_over(world, name, faulty_life(world, name, "hang", {"hang_after": 0}))
    return ends_by_itself


@_add("worker leaks memory")
def worker_leaks(world: ClusterWorld, rng: Random) -> Undo:
    """Each generation keeps 70 MiB of 1Gi for good: the operator recycles it before the kernel does."""
    name = rng.choice(world.worker_names())
    until_over(world, name, faulty_life(world, name, "leak", LEAK))
    return ends_by_itself


@_add("worker loses gaussians")
def worker_fades(world: ClusterWorld, rng: Random) -> Undo:
    """Assets shrink to an eighth, and the canary with them, while its memory is fine."""
    name = rng.choice(world.worker_names())
    faults = {"gaussian_decay": True, "gaussian_decay_from": 0.0, "gaussian_decay_to": 0.02}
    until_over(world, name, faulty_life(world, name, "gaussians", faults))
    return ends_by_itself


@_add("fatal device error")
def device_error(world: ClusterWorld, rng: Random) -> Undo:
    """Every task of this incarnation ends in a fatal error of the device."""
    name = rng.choice(world.worker_names())
    until_over(world, name, faulty_life(world, name, "device", {"gpu_error_after": 0}))
    return ends_by_itself


@_add("answers end half way", seconds=(5.0, 10.0))
def half_answers(world: ClusterWorld, rng: Random) -> Undo:
    """Every second answer of a worker breaks off in the middle."""
    name = rng.choice(world.worker_names())
    faulty_life(world, name, "half answers", {"half_answer_every": 2})

    def undo() -> None:
        if name in world.worker_names():
            world.bed.signal(world.worker_pod(name), "trellis", signal.SIGKILL)

    return undo


# --- operator and its metrics -----------------------------------------------------------------------


def _with_a_leak(world: ClusterWorld, rng: Random) -> tuple[str, str]:
    """A worker that leaks, at the moment the operator has cordoned it."""
    name = rng.choice(world.worker_names())
    boot_id = faulty_life(world, name, "leak", LEAK)
    with contextlib.suppress(TimeoutError):
        world.wait("the cordon", lambda: world.looks[name].state == "draining", FAULTY_SECONDS)
    return name, boot_id


@_add("operator killed")
def operator_killed(world: ClusterWorld, rng: Random) -> Undo:
    """SIGKILL at a random moment."""
    world.live(rng.uniform(0.0, 3.0))
    world.bed.signal(world.pod("operator"), "operator", signal.SIGKILL)
    return ends_by_itself


@_add("operator killed in mid-remediation")
def operator_killed_at_work(world: ClusterWorld, rng: Random) -> Undo:
    """SIGKILL up to 10 s after it has cordoned a worker that leaks."""
    name, boot_id = _with_a_leak(world, rng)
    world.live(rng.uniform(0.0, 10.0))
    world.bed.signal(world.pod("operator"), "operator", signal.SIGKILL)
    until_over(world, name, boot_id)
    return ends_by_itself


@_add("operator's pod deleted by force")
def operator_deleted(world: ClusterWorld, rng: Random) -> Undo:
    """Its Lease is left to run out."""
    delete(world, world.pod("operator"), gracePeriodSeconds="0")
    return ends_by_itself


@_add("two operators")
def two_operators(world: ClusterWorld, rng: Random) -> Undo:
    """A second one beside the first while a worker leaks; then the first one's pod goes."""
    first = world.pod("operator")
    scale(world, "operator", 2)
    world.wait("the second operator", lambda: len(world.pods("operator")) == 2, 60.0)
    name, boot_id = _with_a_leak(world, rng)
    world.bed.signal(first, "operator", signal.SIGKILL)
    until_over(world, name, boot_id)
    return lambda: scale(world, "operator", 1)


@_add("operator throttled (429)", seconds=(8.0, 15.0))
def operator_throttled(world: ClusterWorld, rng: Random) -> Undo:
    """The API server's flow control rejects every request of the operator's account."""
    namespace = world.stack.namespace
    account = {"kind": "ServiceAccount", "serviceAccount": {"name": "sn17-operator", "namespace": namespace}}
    rule = {
        "subjects": [account],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}],
    }
    api = "flowcontrol.apiserver.k8s.io/v1"
    none = {"nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0}
    world.bed.cluster.apply(
        {
            "apiVersion": api,
            "kind": "PriorityLevelConfiguration",
            "metadata": {"name": namespace},
            "spec": {"type": "Limited", "limited": {**none, "limitResponse": {"type": "Reject"}}},
        },
        {
            "apiVersion": api,
            "kind": "FlowSchema",
            "metadata": {"name": namespace},
            "spec": {
                "matchingPrecedence": 10,
                "priorityLevelConfiguration": {"name": namespace},
                "rules": [rule],
            },
        },
    )

    def undo() -> None:
        for kind in ("flowschemas", "prioritylevelconfigurations"):
            world.bed.api.delete(f"/apis/{api}/{kind}/{namespace}")

    return undo


@_add("workers' objects change all the time", seconds=(1.0, 2.0))
def conflicts(world: ClusterWorld, rng: Random) -> Undo:
    """Somebody else writes to a leaking worker's pod, so that the operator's writes conflict."""
    name, boot_id = _with_a_leak(world, rng)
    end = time.monotonic() + 20.0
    while time.monotonic() < end and world.looks[name].boot_id == boot_id:
        with contextlib.suppress(httpx2.HTTPError):
            note = {"metadata": {"annotations": {"example.org/note": secrets.token_hex(4)}}}
            world.bed.api.patch(f"{world.path}/pods/{name}", note)
        time.sleep(0.05)
    until_over(world, name, boot_id)
    return ends_by_itself


def _blind(world: ClusterWorld) -> None:
    world.blind_since = time.time()


def _sees(world: ClusterWorld) -> None:
    # What was scraped since counts again; the operator may act on it from now on.
    world.blind_since = None


@_add("Prometheus gone", seconds=(20.0, 30.0))
def prometheus_gone(world: ClusterWorld, rng: Random) -> Undo:
    """Its Deployment is scaled to none, and later back; its samples are lost."""
    scale(world, "prometheus", 0)
    _blind(world)

    def undo() -> None:
        _sees(world)
        scale(world, "prometheus", 1)

    return undo


@_add("Prometheus hung", seconds=(15.0, 25.0))
def prometheus_hung(world: ClusterWorld, rng: Random) -> Undo:
    """SIGSTOP: connections are taken and nothing is answered; later SIGCONT."""
    pids = world.bed.signal(world.pod("prometheus"), "prometheus", signal.SIGSTOP)
    _blind(world)

    def undo() -> None:
        _sees(world)
        resume(pids)

    return undo


@_add("Prometheus slow", seconds=(0.0, 1.0))
def prometheus_slow(world: ClusterWorld, rng: Random) -> Undo:
    """Stopped for most of every 2 s: late scrapes, late answers."""
    end = time.monotonic() + rng.uniform(10.0, 20.0)
    while time.monotonic() < end:
        pids = world.bed.signal(world.pod("prometheus"), "prometheus", signal.SIGSTOP)
        time.sleep(0.8 * SCRAPE_SECONDS)
        resume(pids)
        time.sleep(0.2 * SCRAPE_SECONDS)
    return ends_by_itself


@_add("Prometheus empty")
def prometheus_empty(world: ClusterWorld, rng: Random) -> Undo:
    """Its pod is deleted by force; the next one knows nothing."""
    delete(world, world.pod("prometheus"), gracePeriodSeconds="0")
    return ends_by_itself


# --- miner, fixer, validators -----------------------------------------------------------------------


@_add("miner killed")
def miner_killed(world: ClusterWorld, rng: Random) -> Undo:
    """SIGKILL at a random moment; it comes back with its journal."""
    world.live(rng.uniform(0.0, 2.0))
    world.bed.signal(world.pod("miner"), "miner", signal.SIGKILL)
    return ends_by_itself


@_add("miner's pod deleted")
def miner_deleted(world: ClusterWorld, rng: Random) -> Undo:
    """`kubectl delete pod`: the StatefulSet makes it anew with the same volume."""
    world.live(rng.uniform(0.0, 2.0))
    delete(world, world.pod("miner"))
    return ends_by_itself


@_add("miner's pod deleted by force")
def miner_force_deleted(world: ClusterWorld, rng: Random) -> Undo:
    """Two pods may run for a moment with one hotkey and one volume: the journal's lock decides."""
    delete(world, world.pod("miner"), gracePeriodSeconds="0")
    return ends_by_itself


@_add("miner hung", seconds=(3.0, 10.0))
def miner_hung(world: ClusterWorld, rng: Random) -> Undo:
    """SIGSTOP, later SIGCONT."""
    pids = world.bed.signal(world.pod("miner"), "miner", signal.SIGSTOP)
    return lambda: resume(pids)


@_add("fixer gone", seconds=(8.0, 15.0))
def fixer_gone(world: ClusterWorld, rng: Random) -> Undo:
    """Its Deployment is scaled to none, and later back."""
    scale(world, "fixer", 0)
    return lambda: scale(world, "fixer", 1)


@_add("fixer killed")
def fixer_killed(world: ClusterWorld, rng: Random) -> Undo:
    """SIGKILL at a random moment."""
    world.live(rng.uniform(0.0, 2.0))
    world.bed.signal(world.pod("fixer"), "fixer", signal.SIGKILL)
    return ends_by_itself


@_add("validator restarted")
def validator_restarted(world: ClusterWorld, rng: Random) -> Undo:
    """One of them is gone for a while; it comes back with the state it saved last."""
    url = f"{world.address('validators', 8099)}/validators/{rng.randrange(VALIDATORS)}/restart"
    answer = world.bed.inside.request("POST", url, json={"seconds": rng.uniform(0.5, 4.0)})
    answer.raise_for_status()
    return ends_by_itself


@_add("all validators killed")
def validators_killed(world: ClusterWorld, rng: Random) -> Undo:
    """SIGKILL of their process: all of them are away, and their ledger are as they were saved last."""
    world.bed.signal(world.pod("validators"), "validators", signal.SIGKILL)
    return ends_by_itself


# --- secrets and disks ------------------------------------------------------------------------------


@_add("admin token rotated")
def token_rotated(world: ClusterWorld, rng: Random) -> Undo:
    """The Secret gets another token; kubelet brings it to the pods one after another. Then a worker leaks."""
    token = base64.b64encode(secrets.token_urlsafe(32).encode()).decode()
    world.bed.api.patch(f"{world.path}/secrets/sn17-admin-token", {"data": {"token": token}})
    name = rng.choice(world.worker_names())
    until_over(world, name, faulty_life(world, name, "leak", LEAK))
    return ends_by_itself


@_add("disk full under journal", seconds=(3.0, 8.0))
def journal_disk_full(world: ClusterWorld, rng: Random) -> Undo:
    """No byte is free on the miner's volume."""
    if world.bed.no_disks:
        raise CannotInjectError(world.bed.no_disks)
    disk = world.bed.disks[world.journal_path().parent.name]
    disk.fill()
    return disk.free


@_add("spool beyond its limit")
def spool_full(world: ClusterWorld, rng: Random) -> Undo:
    """A worker's spool grows beyond its size limit, so kubelet evicts the pod."""
    name = busy(world, rng)
    pod = world.worker_pod(name)
    volumes = {v["name"] for v in pod["spec"]["volumes"] if "emptyDir" in v}
    folder = world.bed.emptydir(pod, "spool" if "spool" in volumes else sorted(volumes)[0])
    with (folder / "ballast").open("wb") as ballast:
        for _ in range((SPOOL_LIMIT >> 20) + 32):
            ballast.write(bytes(1 << 20))
    with contextlib.suppress(TimeoutError):
        world.wait("the eviction", lambda: name not in world.worker_names(), 60.0)
        return ends_by_itself
    (folder / "ballast").unlink(missing_ok=True)
    return ends_by_itself
