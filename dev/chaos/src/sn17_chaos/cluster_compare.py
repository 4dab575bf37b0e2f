"""The same leak under four ways to live with it, side by side on one cluster."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx2
from sn17_cluster.release import FAST_MEMORY_RULE, values
from sn17_cluster.stack import Recorder, Stack, out_of_memory_kills, ready, terminations
from sn17_contract.kubernetes import EXIT_CODE_RECYCLE
from sn17_contract.tasks import Outcome

from sn17_chaos.cluster_bed import Bed, unique
from sn17_chaos.history import OPEN
from sn17_chaos.new_lines import NewLines

WORKERS = 2
VALIDATORS = 8
LEAK_MIB = 15.0
"""1.5 % of the limit a generation: from fresh to killed in four minutes at the network's twentyfold speed, a
leak of little more than an hour. One of 5 % leads from the mark to the limit within the operator's dwell."""
SLOW_SECONDS = 1.0
MARK = FAST_MEMORY_RULE["highPercent"] / 100
PM2_INTERVAL_SECONDS = 2.0
"""PM2 looks every 30 s; the network's fast motion is twentyfold, so this is rather patient."""
PM2_KILL_SECONDS = 1.6
"""PM2's default between its signal and the kill."""
SETTLE_SECONDS = 60.0
_GENERATED = re.compile(r"generated key=\S+ gaussians=(\d+)")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way: the worker's own guard, the operator, a process manager's threshold."""

    name: str
    guard: bool = False
    operator: bool = False
    threshold: bool = False


ARMS = (
    Arm("guard only, no operator", guard=True),
    Arm("restart when killed (OOM)"),
    Arm("restart at a threshold (PM2)", threshold=True),
    Arm("sn17", guard=True, operator=True),
)


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
    lost_reasons: dict[str, int] = field(default_factory=dict)


class Release:
    """One arm's release."""

    def __init__(self, bed: Bed, arm: Arm, index: int, leak_mib: float = LEAK_MIB) -> None:
        self.bed, self.arm, self.leak_mib = bed, arm, leak_mib
        self.killed_at_work = 0
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
        faults = {
            "slow_seconds": SLOW_SECONDS,
            # As the worker's memory fills, its assets shrink to an eighth: what the post-mortem saw.
            "gaussian_decay": True,
            "gaussian_decay_from": 0.4,
            "gaussian_decay_to": 0.8,
        }
        chosen = values(
            guard=self.arm.guard,
            operator=self.arm.operator,
            replicas=WORKERS,
            leak_mib=self.leak_mib,
            faults=faults,
            rules={"gaussians": {"minimumMean": 5_000, "minimumGenerations": 4}},
            self_recycle_after=30,
            recycle={"cooldownSeconds": 10, "youngSeconds": 0},
        )
        chosen["log"] = {"format": "human"}
        chosen["localValidators"]["count"] = VALIDATORS
        chosen["trellis"]["terminationGracePeriodSeconds"] = 20
        chosen["trellis"]["settings"]["SN17_SELF_RECYCLE_INTERVAL_SECONDS"] = 0
        chosen["miner"]["settings"] = {
            "SN17_TASK_DEADLINE_SECONDS": 60,
            "SN17_SUBMIT_DEADLINE_SECONDS": 120,
            "SN17_STALL_SECONDS": 5,
            "SN17_WORKER_REST_SECONDS": 1,
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

    def _watch(self) -> None:
        while not self._stop.wait(PM2_INTERVAL_SECONDS):
            with contextlib.suppress(httpx2.HTTPError, OSError, ValueError, KeyError):
                self.read_logs()
                if self.arm.threshold:
                    self._restart_the_full()

    def _restart_the_full(self) -> None:
        pods = {pod["metadata"]["name"]: pod for pod in self.workers() if pod["status"].get("podIP")}
        urls = {name: f"http://{pod['status']['podIP']}:10006/v1/worker" for name, pod in pods.items()}
        for name, said in self.bed.inside.all(urls).items():
            if said is None or not said["memory"]:
                continue
            if said["memory"]["unreclaimable_bytes"] / said["memory"]["limit_bytes"] >= MARK:
                self.killed_at_work += said["job"] is not None
                reached = self.bed.signal(pods[name], "trellis", signal.SIGINT)
                time.sleep(PM2_KILL_SECONDS)
                if set(self.bed.pids(pods[name], "trellis")) & set(reached):
                    self.bed.signal(pods[name], "trellis", signal.SIGKILL)

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
            oom_kills=len(out_of_memory_kills(self.pods)),
            restarts=len(ends),
            killed_at_work=self.killed_at_work,
            mean_gaussians=round(sum(counts) / len(counts)) if counts else 0,
            lost_reasons=lost,
        )

    def recycles(self) -> int:
        """Ends of containers with the exit code of a recycle."""
        return len(
            {
                end["containerID"]
                for pod in self.pods.objects()
                for end in terminations(pod)
                if end["exitCode"] == EXIT_CODE_RECYCLE
            }
        )


@contextlib.contextmanager
def arms(bed: Bed, leak_mib: float) -> Iterator[list[Release]]:
    """All of them installed and at work."""
    releases: list[Release] = []
    try:
        for index, arm in enumerate(ARMS):
            releases.append(Release(bed, arm, index, leak_mib))
        for release in releases:
            bed.wait(f"{release.arm.name} at work", release.healthy, 240.0)
        yield releases
    finally:
        for release in releases:
            release.stop()


def compare(bed: Bed, minutes: float, say: Callable[[str], None], leak_mib: float = LEAK_MIB) -> list[Result]:
    """Let all arms leak for so long, then wait until what was handed out has had its chance."""
    with arms(bed, leak_mib) as releases:
        start = time.time()
        for release in releases:
            release.watch()
        say(f"{len(releases)} releases of {WORKERS} workers leak side by side")
        time.sleep(60 * minutes)
        end = time.time()
        time.sleep(SETTLE_SECONDS)
        results = [release.result(start, end) for release in releases]
    for found in results:
        say(json.dumps(asdict(found)))
    return results
