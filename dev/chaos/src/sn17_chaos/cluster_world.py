"""One release of sn17 on a real cluster, installed by Helm, under load, and all that is to be seen of it.

What is judged comes from where nobody can colour it: tasks from the validators' ledgers, deliveries from the
miner's journal on its volume, generations from the workers' logs on the node, acts of the operator from the
annotations it must write before it acts. A thread looks at all of it several times a second.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx2
from sn17_cluster.stack import Stack, ready
from sn17_contract.kubernetes import ANNOTATION_INTENT
from sn17_contract.tasks import Outcome
from sn17_miner.journal.journal import Journal
from sn17_miner.journal.reader import JournalError

from sn17_chaos.cluster_bed import CGROUPS, POLL_SECONDS, Bed, unique
from sn17_chaos.cluster_looks import Ledgers, PodLook, Position
from sn17_chaos.cluster_memory import MemoryWatch
from sn17_chaos.cluster_release import CORDON_THRESHOLD, SPEED, release_values
from sn17_chaos.history import (
    OPEN,
    Act,
    Assigned,
    Completed,
    History,
    Journalled,
    Recycle,
    Span,
)
from sn17_chaos.looks import seen
from sn17_chaos.new_lines import NewLines

WORKING = ("ready", "busy")
HEALTHY_FAULTS = {"slow_seconds": 0.5}
FAULTS_MAP = "chaos-faults"
INSTALL_SECONDS = 240.0
TICK_SECONDS = 3
SCRAPE_SECONDS = 2
SETTLED_SECONDS = 3.0
"""How long a worker must have been away before the operator can be expected to know."""
SIGHT_SECONDS = 2.0 * SCRAPE_SECONDS + TICK_SECONDS
"""After this long above the cordon threshold the operator has seen it."""
EVIDENCE_LIMIT = 2.0 * SCRAPE_SECONDS + 5.0 + TICK_SECONDS + SETTLED_SECONDS
_GENERATED = re.compile(r"generated key=(\S+)")
_TICK_AGE = re.compile(r"^sn17_tick_age_seconds (\S+)$", re.MULTILINE)
RECYCLING = ("Recycle", "Evict")
ENDED = ("Failed", "Succeeded")
"""Pods that kubelet has evicted stay in the API until somebody collects them."""


@dataclass(slots=True)
class ClusterWorld:
    """``start`` it, break it, ``close`` it. Wall-clock seconds of this machine are its time."""

    bed: Bed
    name: str
    workers: int = 2
    causes: dict[tuple[str, str], str] = field(default_factory=dict)
    """(worker, boot id) -> what is wrong with this incarnation: its recycle has a cause."""
    blind_since: float | None = None
    """Since when the operator's metrics tell nothing."""
    looks: dict[str, PodLook] = field(default_factory=dict)
    acts: list[Act] = field(default_factory=list)
    recycles: list[Recycle] = field(default_factory=list)
    usable: list[Span] = field(default_factory=list)
    memory: MemoryWatch = field(default_factory=MemoryWatch)
    log: list[str] = field(default_factory=list)
    cut: float = 0.0
    stack: Stack = field(init=False)
    _pods: list[Any] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _acting: dict[str, str] = field(default_factory=dict)
    _recycled: set[tuple[str, str, str]] = field(default_factory=set)
    _peaks: dict[str, float] = field(default_factory=dict)
    _logs: NewLines = field(default_factory=NewLines)
    _completed: list[Completed] = field(default_factory=list)
    _ledgers: Ledgers = field(default_factory=Ledgers)
    _journal: Path | None = None

    # --- life -----------------------------------------------------------------------------------

    def start(self, faults: Mapping[str, object] = MappingProxyType({}), speed: float = SPEED) -> None:
        """Install, with workers that have these faults; does not wait. Raises CommandError."""
        namespace = unique(self.name)
        restricted = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
        meta = {"name": namespace, "labels": restricted}
        self.bed.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        self.stack = Stack(self.bed.cluster, namespace)
        self.set_faults(faults)
        self.stack.install(release_values(self.workers, speed))
        self.bed.cluster.kubectl(
            "set", "env", "deploy/sn17-trellis", f"--from=configmap/{FAULTS_MAP}", "-n", namespace
        )
        for look in (self._look_on, self._weigh):
            self._threads.append(threading.Thread(target=look, name=f"looks at {self.name}", daemon=True))
            self._threads[-1].start()

    def await_first(self) -> None:
        """Wait for the first accepted task and a healthy release. Raises TimeoutError."""
        self.bed.wait(f"{self.name}: all as it should be", lambda: not self.recovered(0.0), INSTALL_SECONDS)
        self.cut = time.time()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10.0)

    def live(self, seconds: float) -> None:
        time.sleep(seconds)

    def wait(self, what: str, found: Callable[[], Any], seconds: float) -> Any:
        """The first true answer within a deadline. Raises TimeoutError."""
        return self.bed.wait(f"{self.name}: {what}", found, seconds)

    # --- who is who -----------------------------------------------------------------------------

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.stack.namespace}"

    def pods(self, component: str) -> list[Any]:
        """Pods of a component as last seen, without those that have ended or are being deleted."""
        return [
            pod
            for pod in self._pods
            if pod["metadata"]["labels"].get("app.kubernetes.io/component") == component
            and "deletionTimestamp" not in pod["metadata"]
            and pod["status"].get("phase") not in ENDED
        ]

    def pod(self, component: str) -> Any:
        """The first of them, once there is one. Raises TimeoutError."""
        return self.wait(f"a pod of {component}", lambda: self.pods(component), 60.0)[0]

    def worker_names(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.pods("trellis")]

    def worker_pod(self, name: str) -> Any:
        return next(pod for pod in self.pods("trellis") if pod["metadata"]["name"] == name)

    def up(self, name: str) -> bool:
        """Whether a worker takes work, by a look of the last seconds."""
        look = self.looks.get(name)
        return look is not None and look.state in WORKING and time.time() - look.at < 3.0

    def set_faults(self, faults: Mapping[str, object]) -> None:
        """What workers suffer from that start from now on."""
        self.bed.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": FAULTS_MAP},
                "data": {"SN17_FAULTS": json.dumps({**HEALTHY_FAULTS, **faults})},
            },
            namespace=self.stack.namespace,
        )

    def say(self, text: str) -> None:
        self.log.append(f"{time.time():.1f} {self.name}: {text}")

    # --- trials ---------------------------------------------------------------------------------

    def position(self) -> Position:
        return Position(time.time(), len(self.acts), len(self.recycles), len(self.memory.kills))

    def recovered(self, since: float) -> str:
        """What is not as before; empty when all is. ``since``: when the fault was over."""
        for component, count in {
            "trellis": self.workers,
            "fixer": 1,
            "miner": 1,
            "validators": 1,
            "prometheus": 1,
            "operator": 1,
        }.items():
            found = self.pods(component)
            if len(found) != count or not all(ready(pod) for pod in found):
                return f"{component}: {sum(ready(pod) for pod in found)} of {count} are Ready"
        for name in self.worker_names():
            if not self.up(name):
                return f"{name} is {self.looks[name].state if name in self.looks else 'unknown'}"
        if self._acting:
            return f"the operator is still at {', '.join(sorted(self._acting))}"
        if (status := self.status()) != "Healthy":
            return f"STATUS is {status}"
        if (age := self._tick_age()) > 4 * TICK_SECONDS:
            return f"the operator's last tick is {age:.0f} s old"
        ledger = self.assigned()
        for task in ledger:
            if task.assigned_at <= since and task.outcome == OPEN:
                return f"task {task.task_id[:8]} is open"
        if any(entry.outcome is None and entry.pulled_at <= since for entry in self._journalled()):
            return "a task is under way in the journal"
        if not any(task.assigned_at > since and task.outcome == Outcome.ACCEPTED for task in ledger):
            return "no task pulled since was accepted"
        return ""

    def recover(self, since: float, deadline: float) -> str:
        """Wait until all is as before; what is not by then."""
        try:
            self.wait("recovery", lambda: not self.recovered(since), deadline)
        except TimeoutError:
            try:
                return self.recovered(since)
            except (httpx2.HTTPError, sqlite3.Error, JournalError, OSError, ValueError) as error:
                return f"{type(error).__name__}: {error}"
        return ""

    def history(self, position: Position, until: float, unrecovered: str) -> History:
        """Everything since that position; tasks handed out up to ``until``, when the fault was over."""
        assigned = [task for task in self.assigned() if self.cut < task.assigned_at <= until]
        self.cut = until
        known = {task.task_id for task in assigned}
        oom_kills = self.memory.kills[position.oom_kills :]
        return History(
            assigned=assigned,
            journalled=[entry for entry in self._journalled() if entry.task_id in known],
            completed=self._read_completed(),
            acts=self.acts[position.acts :],
            recycles=self.recycles[position.recycles :],
            usable=list(self.usable),
            evidence_limit=EVIDENCE_LIMIT,
            oom_kills=oom_kills,
            memory=self.memory.before(oom_kills),
            cordon_threshold=CORDON_THRESHOLD,
            sight=SIGHT_SECONDS,
            recovered=not unrecovered,
            unrecovered=unrecovered,
        )

    # --- sources --------------------------------------------------------------------------------

    def address(self, component: str, port: int) -> str:
        """Raises KeyError while the pod has no address."""
        return f"http://{self.pods(component)[0]['status']['podIP']}:{port}" if self.pods(component) else ""

    def status(self) -> str:
        """The STATUS column. Raises httpx2.HTTPError."""
        path = f"/apis/sn17.io/v1alpha1/namespaces/{self.stack.namespace}/sn17miners/sn17"
        return str(self.bed.api.get(path).get("status", {}).get("status", ""))

    def _tick_age(self) -> float:
        text = self.bed.inside.request("GET", f"{self.address('operator', 9090)}/metrics").text
        found = _TICK_AGE.search(text)
        return float(found[1]) if found else float("inf")

    def assigned(self) -> list[Assigned]:
        """The validators' ledgers, with what is remembered of them. Raises httpx2.HTTPError."""
        return self._ledgers.read(self.bed.inside.json(f"{self.address('validators', 8099)}/ledger"))

    def journal_path(self) -> Path:
        """The journal on this machine's disk. Raises KeyError while its claim is not bound."""
        if self._journal is None:
            claim = self.bed.api.get(f"{self.path}/persistentvolumeclaims/state-sn17-miner-0")
            self._journal = self.bed.volume_folder(claim["spec"]["volumeName"]) / "journal.sqlite"
        return self._journal

    def _journalled(self) -> list[Journalled]:
        journal = Journal(self.journal_path(), readonly=True)
        try:
            tasks = journal.tasks(limit=100_000)
        finally:
            journal.close()
        return [Journalled(t.task_id, t.validator, t.pulled_at, t.outcome, t.reason) for t in tasks]

    def _read_completed(self) -> list[Completed]:
        for node in self.bed.nodes:
            pattern = f"pod-logs/{self.stack.namespace}_sn17-trellis-*/trellis/*.log"
            for path in node.folder.glob(pattern):
                found = _GENERATED.findall(self._logs.new(path))
                self._completed += [Completed(key, path.parts[-3]) for key in found]
        return list(self._completed)

    # --- looking --------------------------------------------------------------------------------

    def _look_on(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            with contextlib.suppress(httpx2.HTTPError, OSError, ValueError):
                self._pods = self.bed.api.get(f"{self.path}/pods")["items"]
                self._note_intents(time.time())
                self.memory.note(self._worker_pods())
            self._look_at_workers()
            self._read_completed()
            # What was closed is remembered from before a validator's end.
            with contextlib.suppress(httpx2.HTTPError, OSError, ValueError, KeyError):
                self.assigned()

    def _worker_pods(self) -> list[Any]:
        """All that the API has of workers, also those that have ended."""
        of = "app.kubernetes.io/component"
        return [pod for pod in self._pods if pod["metadata"]["labels"].get(of) == "trellis"]

    def _weigh(self) -> None:
        """Apart from the other looks: those wait for an API server that hangs."""
        groups = [CGROUPS / node.cgroup for node in self.bed.nodes]
        while not self._stop.wait(POLL_SECONDS):
            self.memory.look(groups, self._worker_pods(), time.time())

    def _look_at_workers(self) -> None:
        pods = {pod["metadata"]["name"]: pod["status"].get("podIP") for pod in self.pods("trellis")}
        urls = {name: f"http://{ip}:10006/v1/worker" for name, ip in pods.items() if ip}
        now = time.time()
        for name, said in self.bed.inside.all(urls).items():
            look = self.looks.setdefault(name, PodLook())
            if said is None:
                look.state, look.job = "unreachable", None
                continue
            look.heard(said, now)
            memory = said["memory"]
            if memory and memory["limit_bytes"]:
                ratio = memory["unreclaimable_bytes"] / memory["limit_bytes"]
                self._peaks[look.boot_id] = max(ratio, self._peaks.get(look.boot_id, 0.0))
        if any(self.up(name) for name in pods):
            seen(self.usable, now, 1.5)

    def _note_intents(self, now: float) -> None:
        intents: dict[str, str] = {}
        for pod in self.pods("trellis"):
            name = pod["metadata"]["name"]
            look = self.looks.setdefault(name, PodLook())
            if text := pod["metadata"].get("annotations", {}).get(ANNOTATION_INTENT):
                intents[name] = text
            if name not in intents and ready(pod):
                look.away_since = None
            elif look.away_since is None:
                look.away_since = now
        # What ended makes room for what begins in the same look.
        for name in self._acting.keys() - intents.keys():
            del self._acting[name]
        for name, text in intents.items():
            self._note(name, json.loads(text), now)

    def _note(self, name: str, intent: Mapping[str, Any], now: float) -> None:
        begun = str(intent["cordoned_at"])
        # A worker that cannot be scraped any more is dealt with without knowing which life it is.
        boot_id = str(intent.get("boot_id") or self.looks[name].boot_id)
        at = datetime.fromisoformat(str(intent["at"])).timestamp()
        if self._acting.get(name) != begun:
            self._acting[name] = begun
            self.say(f"{name}: {intent['rule']}: {intent['reason']}")
            self.acts.append(self._act(name, boot_id, str(intent["rule"]), at))
        if intent["action"] in RECYCLING and (name, boot_id, begun) not in self._recycled:
            self._recycled.add((name, boot_id, begun))
            cause = self.causes.get((name, boot_id))
            if cause is None and self._peaks.get(boot_id, 0.0) >= 0.55:
                cause = "memory"
            if cause is None and self.worker_pod(name)["spec"].get("nodeName") in self.bed.dark:
                cause = "its node is dead"
            self.say(f"{name}: {intent['action']}, cause {cause}")
            self.recycles.append(Recycle(now, name, boot_id, cause))

    def _act(self, name: str, boot_id: str, reason: str, at: float) -> Act:
        others = [
            look.away_since
            for other, look in self.looks.items()
            if other != name and other in self.worker_names()
        ]
        away = sum(since is not None and since < at - SETTLED_SECONDS for since in others)
        own = self.looks[name].away_since
        return Act(
            at=at,
            worker=name,
            incarnation=boot_id,
            reason=reason,
            unavailable=away + 1,
            acting=len(self._acting),
            budget=max(1, self.workers // 4),
            costs=own is None or own >= at - SETTLED_SECONDS,
            evidence_age=None if self.blind_since is None else max(0.0, at - self.blind_since),
        )
