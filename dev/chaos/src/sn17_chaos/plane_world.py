"""The operator as a process against a real API server, etcd and Prometheus, over workers that fail.

Workers are small HTTP servers of this process whose memory and gaussians are set at will; who plays kubelet
for them writes to the API server directly, so what is broken before the operator is broken for it alone.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx2
from sn17_cluster.controlplane import ControlPlane, control_plane
from sn17_contract.kubernetes import ANNOTATION_INTENT

from sn17_chaos import real_fleet
from sn17_chaos.gateway import Asked, Gateway, Verdict
from sn17_chaos.history import Act, History, Recycle
from sn17_chaos.operator_process import OperatorProcess
from sn17_chaos.quick_fleet import BUDGET, OPERATOR, SPEC, QuickFleet
from sn17_chaos.real_fleet import CRD, SCRAPE_SECONDS, Prometheus, Worker
from sn17_chaos.stack_settings import shifted_clock
from sn17_chaos.waiting import free_port

WORKERS = 4
STALE_SECONDS = 2 * SCRAPE_SECONDS + 5.0
TICK_UNDER_WAY_SECONDS = 3.0
"""An action may still begin on what a tick has just read."""


@dataclass(slots=True)
class Position:
    """Where a trial starts."""

    at: float
    acts: int
    recycles: int


@dataclass(slots=True)
class PlaneWorld:
    """``start`` it, break it, ``close`` it. Each trial makes one worker fail, so that there is something
    to do; the undisturbed ones too.
    """

    folder: Path
    seed: int
    name: str = "plane"
    log: list[str] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    recycles: list[Recycle] = field(default_factory=list)
    causes: dict[str, str] = field(default_factory=dict)
    """boot id -> what is wrong with this incarnation."""
    intents: dict[str, bool] = field(default_factory=dict)
    lapses: dict[tuple[str, str], float] = field(default_factory=dict)
    """(worker, who) -> when the lease runs out that was not renewed."""
    told_until: float | None = None
    """The moment until which what the operator has been told by Prometheus counts; None: it is told now."""
    refuse_admin: bool = False
    boot_id_checked: bool = True
    """Workers refuse to exit for another incarnation's boot id."""
    on_write: Callable[[Asked, str], Verdict | None] = lambda asked, when: None
    rng: Random = field(init=False)
    plane: ControlPlane = field(init=False)
    fleet: QuickFleet = field(init=False)
    prometheus: Prometheus = field(init=False)
    api: Gateway = field(init=False)
    metrics: Gateway = field(init=False)
    operators: dict[str, OperatorProcess] = field(default_factory=dict)
    wanted: set[str] = field(default_factory=set)
    """Operators whose Deployment wants them to run: started again when they end."""
    api_rule: Callable[[Asked], Verdict] = lambda asked: Verdict()
    _stack: ExitStack = field(default_factory=ExitStack)
    _closing: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _keeper: threading.Thread | None = None
    lanes: list[PlaneWorld] = field(default_factory=list)
    """Further fleets under the same operator, each with faults and a history of its own."""
    _unhealthy: list[Worker] = field(default_factory=list)

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Control plane, Prometheus, fleet and operator; ready when the status says Healthy."""
        self.rng = Random(self.seed)
        self.plane = self._stack.enter_context(control_plane())
        cluster = self.plane.cluster
        cluster.apply(CRD.read_text())
        cluster.wait_established("sn17miners.sn17.io", timeout=30)
        namespace = self._stack.enter_context(cluster.namespace("chaos"))
        (self.folder / "prometheus").mkdir(parents=True)
        self.prometheus = Prometheus(cluster.tools["prometheus"], self.folder / "prometheus", free_port())
        self.prometheus.scrape([])
        self.prometheus.start()
        self._stack.callback(self.prometheus.stop)
        self.api = Gateway(
            f"https://127.0.0.1:{self.plane.ports.api}", ca=str(self.plane.authority.certificate)
        )
        self.metrics = Gateway(self.prometheus.url)
        for gateway in (self.api, self.metrics):
            gateway.start()
            self._stack.callback(gateway.close)
        self.api.rule = self._asked
        self.api.after = self._answered
        self.fleet = QuickFleet(
            self.plane, namespace, self.prometheus, 20 + self.seed % 200, rescrape=self.rescrape
        )
        self._stack.callback(self.fleet.close)
        self.fleet.deploy(WORKERS)
        self.adopt()
        self.fleet.miner(**SPEC)
        self.add_operator("op")
        self._keeper = threading.Thread(target=self._keep, name="kubelet", daemon=True)
        self._keeper.start()
        self.wait("Healthy", lambda: self.fleet.status().get("status") == "Healthy", 60)

    def rescrape(self) -> None:
        """Have Prometheus scrape the workers of all fleets."""
        fleets = [self.fleet, *(lane.fleet for lane in self.lanes)]
        self.prometheus.scrape([target for fleet in fleets for target in fleet.targets()])

    def close(self) -> None:
        self._closing.set()
        if self._keeper is not None:
            self._keeper.join(60)
        for operator in self.operators.values():
            operator.kill()
        self._stack.close()

    def wait(self, what: str, found: Callable[[], Any], seconds: float) -> Any:
        """The first true answer within a deadline. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(httpx2.HTTPError, OSError):
                if answer := found():
                    return answer
            if time.monotonic() > end:
                raise TimeoutError(f"{what}: not within {seconds:.0f} s")
            time.sleep(0.25)

    def live(self, seconds: float) -> None:
        """Let it go on for a while."""
        time.sleep(seconds)

    @staticmethod
    def now() -> float:
        """Seconds of this world's clock."""
        return time.time()

    # --- the operators --------------------------------------------------------------------------

    def add_operator(self, identity: str) -> OperatorProcess:
        """Start an operator that sees the cluster through the gateways, and keep it running."""
        if identity not in self.operators:
            folder = self.folder / identity
            folder.mkdir()
            settings = OPERATOR | {"SN17_PROMETHEUS__URL": self.metrics.url}
            settings |= shifted_clock(self.clock_file(identity))
            self.operators[identity] = OperatorProcess(
                self.fleet, folder, identity=identity, server=self.api.url, **settings
            )
        with self._lock:
            self.wanted.add(identity)
            self._start_operator(identity)
        return self.operators[identity]

    def remove_operator(self, identity: str) -> None:
        """Scale it away."""
        with self._lock:
            self.wanted.discard(identity)
            self.operators[identity].kill()

    def clock_file(self, identity: str) -> Path:
        return self.folder / f"{identity}.clock"

    def pid(self, identity: str = "op") -> int:
        process = self.operators[identity].process
        return process.pid if process is not None and process.poll() is None else 0

    def signal(self, identity: str, number: int) -> int:
        """Signal an operator; its process id, 0 when it does not run."""
        pid = self.pid(identity)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pid

    def _start_operator(self, identity: str) -> None:
        with contextlib.suppress(AssertionError):
            self.operators[identity].start()

    def _keep(self) -> None:
        """What a Deployment and kubelet do: start again what has ended, and give new pods a worker."""
        while not self._closing.wait(0.5):
            with self._lock:
                for identity in list(self.wanted):
                    process = self.operators[identity].process
                    if process is not None and process.poll() is not None and not self._closing.is_set():
                        self.log.append(f"{time.time():.1f}  {identity}: ended with {process.returncode}")
                        self._start_operator(identity)
            for world in (self, *self.lanes):
                with contextlib.suppress(httpx2.HTTPError):
                    world.adopt()

    def adopt(self) -> None:
        """A worker for each new pod; those of deleted pods are gone."""
        names = {pod["metadata"]["name"] for pod in self.fleet.pods()}
        gone = self.fleet.workers.keys() - names
        for name in gone:
            self.fleet.workers.pop(name).stop()
            self.intents.pop(name, None)
        if gone or names - self.fleet.workers.keys():
            self.fleet.adopt()
        for name, worker in self.fleet.workers.items():
            if "admin" not in vars(worker):
                self._record(name, worker)
            for by in list(worker.leases):
                if self.lapses.get((name, by), math.inf) < time.monotonic():
                    worker.leases.pop(by, None)

    def _record(self, name: str, worker: Worker) -> None:
        inner = worker.admin

        def admin(verb: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            boot_id = worker.boot_id
            if verb == "exit" and not self.boot_id_checked:
                body = {**body, "boot_id": boot_id}
            if self.refuse_admin:
                return 503, {"code": "overloaded", "detail": "an injected refusal"}
            status, answer = inner(verb, body)
            self.say(name, f"{verb} {body} -> {status}")
            if verb == "drain" and status == 200 and body.get("ttl_seconds"):
                self.lapses[name, body["by"]] = time.monotonic() + body["ttl_seconds"]
            if verb == "exit" and status == 200 and not self._known(name, boot_id):
                self.recycles.append(Recycle(time.time(), name, boot_id, self.causes.get(boot_id)))
            return status, answer

        # Asked to exit again while it does not: one recycle that is insisted on.
        worker.admin = admin  # type: ignore[method-assign]

    def _known(self, name: str, boot_id: str) -> bool:
        return any((r.worker, r.incarnation) == (name, boot_id) for r in self.recycles)

    def say(self, name: str, text: str) -> None:
        self.log.append(f"{time.time():.1f}  {name}: {text}")

    # --- what the operator writes ---------------------------------------------------------------

    def concerned(self, asked: Asked) -> bool:
        """Whether a request is about one object of this fleet."""
        parts = asked.path.split("/")
        if "pods" in parts[:-1]:
            return parts[parts.index("pods") + 1].startswith(f"{self.fleet.name}-")
        return "sn17miners" in parts[:-1] and parts[parts.index("sn17miners") + 1] == self.fleet.name

    def _asked(self, asked: Asked) -> Verdict:
        for lane in self.lanes:
            if lane.concerned(asked):
                return lane._asked(asked)
        if asked.writes and (verdict := self.on_write(asked, "before")) is not None:
            return verdict
        return self.api_rule(asked)

    def _answered(self, asked: Asked, status: int) -> Verdict | None:
        for lane in self.lanes:
            if lane.concerned(asked):
                return lane._answered(asked, status)
        if asked.writes and status < 300:
            self._note(asked)
        return self.on_write(asked, "after") if asked.writes else None

    def _note(self, asked: Asked) -> None:
        parts = asked.path.split("/")
        if "pods" not in parts:
            return
        name = parts[parts.index("pods") + 1]
        if asked.path.endswith("/eviction"):
            worker = self.fleet.workers.get(name)
            if worker is not None and not self._known(name, worker.boot_id):
                cause = self.causes.get(worker.boot_id)
                self.recycles.append(Recycle(time.time(), name, worker.boot_id, cause))
            self.say(name, "evicted")
            return
        annotations = (json.loads(asked.body or b"{}").get("metadata") or {}).get("annotations") or {}
        if ANNOTATION_INTENT not in annotations:
            return
        intent = annotations[ANNOTATION_INTENT]
        self.say(name, f"intent {intent}")
        if intent is not None and not self.intents.get(name):
            self.acts.append(self._act(name, json.loads(intent)))
        self.intents[name] = intent is not None

    def _act(self, name: str, intent: dict[str, Any]) -> Act:
        now = time.time()
        others = [w for n, w in self.fleet.workers.items() if n != name]
        worker = self.fleet.workers[name]
        missing = WORKERS - sum(w.answers and not w.leases for w in others) - 1
        return Act(
            at=now,
            worker=name,
            incarnation=worker.boot_id,
            reason=str(intent.get("rule")),
            unavailable=missing + 1,
            acting=1 + sum(there for n, there in self.intents.items() if n != name),
            budget=BUDGET,
            costs=worker.answers and not worker.leases,
            evidence_age=max(0.0, now - self.told_until) if self.told_until is not None else 0.0,
        )

    # --- illnesses ------------------------------------------------------------------------------

    def make_unhealthy(self, worker: Worker | None = None) -> Worker:
        """Something is wrong with a worker: it has to be recycled, once."""
        well = [w for w in self.fleet.workers.values() if w.boot_id not in self.causes]
        worker = worker or self.rng.choice(well or list(self.fleet.workers.values()))
        kind = self.rng.choice(["memory", "memory", "emergency", "gaussians", "device"])
        self.causes[worker.boot_id] = kind
        self._unhealthy.append(worker)
        if kind in ("memory", "emergency"):
            worker.ratio = 0.85 if kind == "memory" else 0.95
        elif kind == "gaussians":
            worker.gaussians, worker.canary_passes = 50_000.0, False
        else:
            worker.gpu_errors = 1
        return worker

    def unhealthy(self) -> list[str]:
        """Workers whose present incarnation is unhealthy."""
        return [name for name, worker in self.fleet.workers.items() if worker.boot_id in self.causes]

    # --- trials ---------------------------------------------------------------------------------

    def position(self) -> Position:
        made = Position(time.time(), len(self.acts), len(self.recycles))
        self.make_unhealthy()
        return made

    def _not_as_before(self, since: int) -> str:
        if found := self.unhealthy():
            return f"{', '.join(found)} is still unhealthy"
        if len(self.fleet.workers) != WORKERS:
            return f"{len(self.fleet.workers)} workers of {WORKERS}"
        for name, worker in self.fleet.workers.items():
            if worker.leases:
                return f"{name} is drained by {', '.join(worker.leases)}"
        if any(self.intents.values()):
            return "an intent is not finished"
        if not any(self.pid(identity) for identity in self.wanted):
            return "no operator runs"
        status = self.fleet.status()
        if status.get("status") != "Healthy":
            return f"the status says {status.get('status')}: {status.get('message')}"
        if status.get("recycles", 0) + status.get("evicted", 0) < since:
            return "the status does not count the recycle"
        return ""

    def recover(self, since: float, deadline: float) -> str:
        """Wait until all is as before; what is not by then."""
        try:
            self.wait("recovery", lambda: not self._not_as_before(0) and self._ticked(since), deadline)
        except TimeoutError:
            try:
                return self._not_as_before(0) or "no operator has finished a tick"
            except (httpx2.HTTPError, OSError) as error:
                return f"{type(error).__name__}: {error}"
        return ""

    def _ticked(self, since: float) -> bool:
        """An operator that holds the Lease has finished a tick not long ago."""
        for identity in self.wanted:
            with contextlib.suppress(OSError, StopIteration, ValueError):
                if self.operators[identity].tick_age() < min(3.0, time.time() - since):
                    return True
        return False

    def history(self, position: Position, until: float, unrecovered: str) -> History:
        return History(
            acts=self.acts[position.acts :],
            recycles=self.recycles[position.recycles :],
            evidence_limit=TICK_UNDER_WAY_SECONDS,
            recovered=not unrecovered,
            unrecovered=unrecovered,
        )

    def rotate_token(self) -> str:
        """Workers take a new admin token at once; returns it for those who still have to learn it."""
        real_fleet.TOKEN = secrets.token_urlsafe(16)
        return real_fleet.TOKEN
