"""How hands are laid on one release on a cluster: what its faults have in common."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from random import Random
from typing import Any

from sn17_chaos.cluster_world import ClusterWorld
from sn17_chaos.disks import running

BUSY_SECONDS = 20.0
NEW_LIFE_SECONDS = 60.0
FAULTY_SECONDS = 120.0


def busy(world: ClusterWorld, rng: Random) -> str:
    """A worker with a job at work; any worker when none comes to work."""
    names = world.worker_names()
    rng.shuffle(names)
    with contextlib.suppress(TimeoutError):
        found = world.wait(
            "a busy worker",
            lambda: [n for n in names if n in world.looks and world.looks[n].job is not None],
            BUSY_SECONDS,
        )
        return str(found[0])
    return names[0]


def resume(pids: list[int]) -> None:
    for pid in pids:
        if running(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def faulty_life(world: ClusterWorld, name: str, cause: str, faults: Mapping[str, object]) -> str:
    """Give a worker an incarnation with these faults; the one after it is well again. Its boot id."""
    before = world.looks[name].boot_id
    world.set_faults(faults)
    try:
        # kubelet learns of a changed ConfigMap by a watch; a container that starts reads what it knows then.
        world.live(1.0)
        world.bed.signal(world.worker_pod(name), "trellis", signal.SIGKILL)
        # It need not come to work: one that loses gaussians fails its first canary.
        world.wait(
            f"the faulty life of {name}", lambda: world.looks[name].boot_id != before, NEW_LIFE_SECONDS
        )
    finally:
        world.set_faults({})
    boot_id = world.looks[name].boot_id
    world.causes[name, boot_id] = cause
    return boot_id


def until_over(world: ClusterWorld, name: str, boot_id: str) -> None:
    """Wait until the incarnation has been ended: by the operator, or by itself."""

    def over() -> bool:
        return name not in world.worker_names() or world.looks[name].boot_id != boot_id

    with contextlib.suppress(TimeoutError):
        world.wait(f"the end of {name}'s faulty life", over, FAULTY_SECONDS)


def scale(world: ClusterWorld, component: str, replicas: int) -> None:
    path = f"/apis/apps/v1/namespaces/{world.stack.namespace}/deployments/sn17-{component}/scale"
    world.bed.api.patch(path, {"spec": {"replicas": replicas}})


def delete(world: ClusterWorld, pod: Any, **params: str) -> None:
    world.bed.api.delete(f"{world.path}/pods/{pod['metadata']['name']}", **params)
