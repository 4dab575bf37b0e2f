"""The same leak under several ways to live with it, side by side on one cluster."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx2
from sn17_cluster.client import CommandError
from sn17_cluster.release import values
from sn17_cluster.stack import Recorder, Stack, ready, terminations
from sn17_contract.http import OPS_PORT, TRELLIS_PORT
from sn17_contract.tasks import Outcome
from sn17_contract.worker import RecycleHow

from sn17_chaos.cluster_arms import ARMS, Arm, Ends, metrics_text
from sn17_chaos.cluster_bed import CGROUPS, Bed, unique
from sn17_chaos.cluster_memory import MemoryWatch
from sn17_chaos.history import OPEN
from sn17_chaos.new_lines import NewLines

WORKERS = 2
BALLAST_MIB = 215
"""21 % of the limit, for each model process."""
SLOW_SECONDS = 1.0
LOOK_SECONDS = 1.0
MEMORY_RULE = {
    "highPercent": 80,
    "highForSeconds": 2,
    "clearPercent": 70,
    "clearForSeconds": 3,
    "emergencyPercent": 90,
}
"""The defaults, their times twenty times as short."""
PM2_INTERVAL_SECONDS = 2.0
"""PM2 looks every 30 s; the network's fast motion is twentyfold, so this is rather patient."""
WORKER_POLL_SECONDS = 0.2
"""The default, 1 s, is 20 s at this speed, as long as a job: a renewed worker could be idle that long."""
PM2_KILL_SECONDS = 1.6
"""PM2's default between its signal and the kill."""
SETTLE_SECONDS = 60.0
_GENERATED = re.compile(r"generated key=\S+ gaussians=(\d+)")


@dataclass(frozen=True, slots=True)
class Scene:
    """One point of the grid, at the network's twentyfold speed: what all arms have in common."""

    leak_mib: float = 15.0
    load_seconds: float = 1.25
    """Of the weights: 25 s of a real one."""
    validators: int = 12
    threshold: float = 0.85
    """Share of the limit at which the rivals restart: among the best of those tried in the simulation."""


@dataclass(slots=True)
class Result:
    """What an arm came to. ``lost``: tasks handed out that ended in nothing that a validator looked at."""

    arm: str
    minutes: float
    tasks: int
    accepted: int
    accepted_per_hour: float
    rejected: int
    lost: int
    oom_kills: int
    restarts: int
    killed_at_work: int
    mean_gaussians: float
    recycles: dict[str, int] = field(default_factory=dict)
    """Of model processes, by act and outcome."""
    lost_reasons: dict[str, int] = field(default_factory=dict)


class Release:
    """One arm's release."""

    def __init__(self, bed: Bed, arm: Arm, index: int, scene: Scene) -> None:
        self.bed, self.arm, self.scene = bed, arm, scene
        self.ends = Ends()
        self.memory = MemoryWatch()
        namespace = unique(f"arm{index}")
        bed.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        self.stack = Stack(bed.cluster, namespace)
        folder = bed.local.state.folder / "records"
        folder.mkdir(exist_ok=True)
        self.pods = Recorder(bed.cluster, "pods", namespace, folder)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._logs = NewLines()
        self.gaussians: list[tuple[float, int]] = []
        self.stack.install(self._values())

    def _values(self) -> dict[str, Any]:
        chosen = values(
            guard=self.arm.guard,
            operator=self.arm.operator,
            replicas=WORKERS,
            leak_mib=self.scene.leak_mib if self.arm.leaks else 0.0,
            faults={"slow_seconds": SLOW_SECONDS},
            rules={"memory": MEMORY_RULE},
            self_recycle_after=30,
            recycle={"cooldownSeconds": 10, "youngSeconds": 0},
            strategy="Swap" if self.arm.model_process else "RestartContainer",
        )
        settings = chosen["trellis"]["settings"]
        settings["SN17_PROCEDURAL_BALLAST_MIB"] = BALLAST_MIB
        settings["SN17_PROCEDURAL_LOAD_SECONDS"] = self.scene.load_seconds
        settings["SN17_GUARD_SWAP_AFTER_SECONDS"] = 2.25
        settings["SN17_IDLE_SWAP_AFTER_SECONDS"] = 1
        chosen["log"] = {"format": "human"}
        chosen["localValidators"]["count"] = self.scene.validators
        chosen["trellis"]["terminationGracePeriodSeconds"] = 20
        chosen["trellis"]["settings"]["SN17_SELF_RECYCLE_INTERVAL_SECONDS"] = 0
        chosen["miner"]["settings"] = {
            "SN17_TASK_DEADLINE_SECONDS": 60,
            "SN17_SUBMIT_DEADLINE_SECONDS": 120,
            "SN17_STALL_SECONDS": 5,
            "SN17_WORKER_REST_SECONDS": 1,
            "SN17_WORKER_POLL_SECONDS": WORKER_POLL_SECONDS,
        }
        return chosen

    # --- who restarts at a threshold ------------------------------------------------------------

    def workers(self) -> list[Any]:
        path = f"/api/v1/namespaces/{self.stack.namespace}/pods"
        found = self.bed.api.get(path, labelSelector="app.kubernetes.io/component=trellis")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def watch(self) -> None:
        """Collect what the workers log; restart them at the threshold where that is the way."""
        self._thread = threading.Thread(target=self._watch, name=self.arm.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10.0)
        self.pods.stop()

    def remove(self) -> None:
        """Give the machine back to the arms that come next."""
        self.stop()
        with contextlib.suppress(CommandError):
            self.stack.uninstall(timeout=120)

    def _watch(self) -> None:
        next_pm2 = 0.0
        while not self._stop.wait(LOOK_SECONDS):
            with contextlib.suppress(httpx2.HTTPError, OSError, ValueError, KeyError):
                self.read_logs()
                due = time.monotonic() >= next_pm2
                next_pm2 = time.monotonic() + PM2_INTERVAL_SECONDS if due else next_pm2
                self._look(restart=self.arm.threshold and due)

    def _look(self, *, restart: bool) -> None:
        pods = {pod["metadata"]["name"]: pod for pod in self.workers() if pod["status"].get("podIP")}
        urls = {
            name: f"http://{pod['status']['podIP']}:{TRELLIS_PORT}/v1/worker" for name, pod in pods.items()
        }
        self.memory.look((CGROUPS / node.cgroup for node in self.bed.nodes), pods.values(), time.time())
        for name, said in self.bed.inside.all(urls).items():
            if said is None:
                continue
            pod = pods[name]
            self.ends.look(pod, said, time.time())
            ops = f"{pod['status']['podIP']}:{OPS_PORT}"
            text = metrics_text(self.bed.inside.request, ops)
            if text is not None:
                self.ends.read(said["boot_id"], text)
            memory = said["memory"]
            full = memory and memory["unreclaimable_bytes"] / memory["limit_bytes"] >= self.scene.threshold
            if full and restart:
                self._restart(pod)
            elif full and self.arm.self_exit and said["recycling"] is None:
                self._replace(ops, said["life_id"])

    def _restart(self, pod: Any) -> None:
        reached = self.bed.signal(pod, "trellis", signal.SIGINT)
        time.sleep(PM2_KILL_SECONDS)
        if set(self.bed.pids(pod, "trellis")) & set(reached):
            self.bed.signal(pod, "trellis", signal.SIGKILL)

    def _replace(self, ops: str, life_id: str) -> None:
        body = {"life_id": life_id, "how": RecycleHow.REPLACE.value, "reason": "above the threshold"}
        token = self.bed.api.get(f"/api/v1/namespaces/{self.stack.namespace}/secrets/sn17-admin-token")
        bearer = base64.b64decode(token["data"]["token"]).decode()
        self.bed.inside.request(
            "POST",
            f"http://{ops}/admin/v1/recycle",
            json=body,
            headers={"Authorization": f"Bearer {bearer}"},
        )

    def read_logs(self) -> None:
        for node in self.bed.nodes:
            pattern = f"pod-logs/{self.stack.namespace}_sn17-trellis-*/trellis/*.log"
            for path in node.folder.glob(pattern):
                counts = _GENERATED.findall(self._logs.new(path))
                self.gaussians += [(time.time(), int(count)) for count in counts]

    # --- the outcome ----------------------------------------------------------------------------

    def healthy(self) -> bool:
        found = self.workers()
        return len(found) == WORKERS and all(ready(pod) for pod in found) and self.stack.accepted() > 0

    def result(self, start: float, end: float) -> Result:
        """Over the tasks that were handed out between the two."""
        tasks = [task for task in self.stack.tasks() if start <= task["assigned_at"] < end]
        by_outcome: dict[str, int] = {}
        for task in tasks:
            by_outcome[task["outcome"]] = by_outcome.get(task["outcome"], 0) + 1
        accepted = by_outcome.get(Outcome.ACCEPTED, 0)
        rejected = by_outcome.get(Outcome.REJECTED, 0)
        lost = {name: n for name, n in by_outcome.items() if name not in (Outcome.ACCEPTED, Outcome.REJECTED)}
        if OPEN in lost:
            lost["never submitted"] = lost.pop(OPEN)
        counts = [count for at, count in self.gaussians if start <= at < end]
        ends = {
            each["containerID"]
            for pod in self.pods.objects()
            if pod["metadata"]["labels"].get("app.kubernetes.io/component") == "trellis"
            for each in terminations(pod)
        }
        hours = (end - start) / 3600
        return Result(
            arm=self.arm.name,
            minutes=round((end - start) / 60, 1),
            tasks=len(tasks),
            accepted=accepted,
            accepted_per_hour=round(accepted / hours),
            rejected=rejected,
            lost=sum(lost.values()),
            oom_kills=self._kills(),
            restarts=len(ends),
            killed_at_work=self.ends.killed_at_work(self.pods.objects()),
            mean_gaussians=round(sum(counts) / len(counts)) if counts else 0,
            recycles=self.ends.recycles(),
            lost_reasons=lost,
        )

    def _kills(self) -> int:
        """As the kernel counts them in the containers' groups, and kubelet where the container is gone."""
        self.memory.note(self.pods.objects())
        return len(self.memory.kills)


@contextlib.contextmanager
def arms(bed: Bed, scene: Scene, chosen: Sequence[Arm]) -> Iterator[list[Release]]:
    """All of them installed and at work."""
    releases: list[Release] = []
    try:
        for index, arm in enumerate(chosen):
            releases.append(Release(bed, arm, index, scene))
        for release in releases:
            bed.wait(f"{release.arm.name} at work", release.healthy, 300.0)
        yield releases
    finally:
        for release in releases:
            release.stop()


def compare(
    bed: Bed,
    minutes: float,
    say: Callable[[str], None],
    scene: Scene | None = None,
    chosen: Sequence[Arm] = ARMS,
) -> list[Result]:
    """Let all arms leak for so long, then wait until what was handed out has had its chance."""
    scene = scene or Scene()
    with arms(bed, scene, chosen) as releases:
        start = time.time()
        for release in releases:
            release.watch()
        say(f"{len(releases)} releases of {WORKERS} workers side by side, {scene}")
        time.sleep(60 * minutes)
        end = time.time()
        time.sleep(SETTLE_SECONDS)
        results = [release.result(start, end) for release in releases]
        for release in releases:
            release.remove()
    for found in results:
        say(json.dumps(asdict(found)))
    return results
