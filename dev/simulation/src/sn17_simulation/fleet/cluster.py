"""Everything outside the operator, with counters of what must never happen."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from sn17_contract.http import LeaseOwner
from sn17_contract.worker import RecycleHow, RecycleOutcome
from sn17_operator.api import Spec, scaled
from sn17_operator.core.model import Phase, Pod, RecycleResult, Stage, Termination

from sn17_simulation.fleet.scrape import Scraped
from sn17_simulation.fleet.worker import (
    AT_REST,
    FRESH,
    GUARD,
    JOB_SECONDS,
    RESCHEDULE_SECONDS,
    RESTART_SECONDS,
    SWAP_SECONDS,
    TICK,
    WARMUP_SECONDS,
    SimWorker,
)


class World(Scraped):
    """Everything outside the operator, with counters of what must never happen."""

    def __init__(self, count: int, spec: Spec, *, guard: bool = False, lives: bool = False) -> None:
        super().__init__()
        self.spec = spec
        self.wanted = count
        self.guard = guard
        self.budget_blocks_eviction = False
        self.rolling = False
        self.paused: str | None = None
        self.status: dict[str, Any] = {}
        self.words: list[str] = []
        """Every STATUS that was written, repetitions left out."""
        self.events: list[tuple[float, str, str]] = []
        self.oom_kills = 0
        self.evictions = 0
        self.exits: list[str] = []
        self.lost_jobs = 0
        self.costs_written = 0
        self.refusals_before_cordon = 0
        self.swaps = 0
        self.replacements = 0
        self.most_taken = 0
        """The most workers that took no jobs at once because of the operator."""
        self.violations: list[str] = []
        self.tasks_offered = True
        self.capacity = True
        """Whether a new pod finds a place."""
        self.lives = lives
        self.cards: list[str] = []
        """UUIDs of the cards; a new pod gets the first that is free. None: no worker tells its card."""
        self.leak = 0.0
        """What every pod that is made from now on leaks."""
        self._made = 0
        self._version = 0
        self._create_at: list[float] = []
        for _ in range(count):
            self.add_pod()

    # --- the cluster ----------------------------------------------------------------------------------

    def add_pod(self) -> SimWorker:
        self._made += 1
        uid = f"u{self._made}"
        pod = Pod(
            uid=uid, name=f"w{self._made}", namespace="ns", created_at=self.now,
            resource_version=self.version(),
            node=f"n{self._made % 3}", address=f"http://{uid}", phase=Phase.RUNNING, container_id=f"{uid}/c0",
            started_at=self.now, ready=False,
        )  # fmt: skip
        taken = {w.device for w in self.workers.values()}
        card = next((card for card in self.cards if card not in taken), "")
        worker = SimWorker(
            pod,
            leak=self.leak,
            ready_at=self.now + WARMUP_SECONDS,
            progress=self.now,
            lives=self.lives,
        )
        worker.device = card
        self.workers[uid] = worker
        return worker

    def version(self) -> str:
        self._version += 1
        return str(self._version)

    def change(self, worker: SimWorker, **changes: Any) -> None:
        worker.pod = replace(worker.pod, resource_version=self.version(), **changes)

    def available(self) -> int:
        return sum(
            w.pod.ready and not w.pod.deleting and not w.pod.held and w.pod.user_cordon is None
            for w in self.workers.values()
        )

    def kill(self, worker: SimWorker, reason: str, code: int) -> None:
        """The process ends; kubelet will start another in the same pod."""
        if worker.restart_at is not None:
            return
        if worker.job_until is not None:
            self.lost_jobs += 1
        if reason == "OOMKilled":
            self.oom_kills += 1
        worker.restart_at = self.now + RESTART_SECONDS + worker.back_off
        worker.job_until = worker.swap_until = None
        worker.leases.clear()
        worker.ours = worker.ours and reason == "Completed"
        end = Termination(reason, code, self.now)
        self.change(
            worker, phase=Phase.WAITING, phase_reason="CrashLoopBackOff", ready=False, last_termination=end
        )

    def advance(self, seconds: float = TICK) -> None:
        """Let the world go on for a while, second by second of interest, and scrape it at the end."""
        step = 5.0
        for _ in range(int(seconds / step)):
            self.now += step
            for worker in list(self.workers.values()):
                self._live(worker)
            self._create()
            self._count_taken()
        self.scrape()

    def _count_taken(self) -> None:
        """However the operator counts: workers that take no jobs because of it are within the budget."""
        taken = sum(w.ours for w in self.workers.values()) + len(self._create_at)
        self.most_taken = max(self.most_taken, taken)
        if taken > scaled(self.spec.max_unavailable, self.wanted):
            names = [w.pod.name for w in self.workers.values() if w.ours]
            self.violations.append(f"{taken} take no jobs because of the operator: {names}")

    def take(self, worker: SimWorker) -> None:
        """The operator takes a worker out of service; one that does not serve anyway is not taken."""
        worker.ours = worker.ours or worker.pod.ready

    def _live(self, worker: SimWorker) -> None:
        pod = worker.pod
        if worker.gone_at is not None and self.now >= worker.gone_at:
            self._remove(pod)
            return
        if worker.leaving and worker.job_until is None:
            self._remove(pod)
            return
        if worker.deaf or worker.hung or LeaseOwner.USER in worker.leases:
            worker.ours = False
        if worker.restart_at is not None:
            if self.now >= worker.restart_at:
                self._restart(worker)
            return
        worker.leases = {by: end for by, end in worker.leases.items() if end is None or end > self.now}
        self._track_cordon(worker)
        if worker.job_until is not None:
            if worker.hung:
                pass
            elif self.now >= worker.job_until:
                self._finish(worker)
            else:
                worker.progress = self.now
        if worker.swap_until is not None and self.now >= worker.swap_until and worker.job_until is None:
            self._end_recycle(worker)
        serving = (
            self.now >= worker.ready_at
            and not worker.leases
            and not worker.deaf
            and not worker.leaving
            and worker.says != "device_error"
            and not worker.failing_starts
        )
        if worker.total >= 1.0:
            self.kill(worker, "OOMKilled", 137)
            return
        refusing = self.guard and worker.total >= GUARD
        if serving and worker.job_until is None and self.tasks_offered:
            if refusing:
                self.refusals_before_cordon += 1
            else:
                worker.job_until = self.now + JOB_SECONDS
                worker.progress = self.now
        worker.ours = worker.ours and not serving
        if pod.ready != (serving and not refusing):
            self.change(worker, ready=serving and not refusing)

    def scale(self, wanted: int) -> list[SimWorker]:
        """The Deployment is to have so many pods; returns those that end, in Kubernetes' own order."""
        self.wanted = wanted
        live = [worker for worker in self.workers.values() if not worker.pod.deleting]
        for _ in range(wanted - len(live) - len(self._create_at)):
            self._create_at.append(self.now + RESCHEDULE_SECONDS)
        surplus = max(0, len(live) + len(self._create_at) - wanted)
        del self._create_at[: min(surplus, len(self._create_at))]
        live.sort(key=lambda w: (w.pod.ready, w.pod.deletion_cost or 0, -w.pod.created_at, w.pod.name))
        ending = live[: max(0, len(live) - wanted)]
        for worker in ending:
            worker.leaving = True
            self.change(worker, deleting=True, ready=False)
        return ending

    def _remove(self, pod: Pod) -> None:
        del self.workers[pod.uid]
        live = sum(not worker.pod.deleting for worker in self.workers.values())
        if live + len(self._create_at) < self.wanted:
            self._create_at.append(self.now + RESCHEDULE_SECONDS)

    def _finish(self, worker: SimWorker) -> None:
        worker.job_until = None
        worker.progress = self.now
        worker.memory += worker.leak
        worker.generations += 1
        worker.sizes.add((worker.total - AT_REST) / (GUARD - AT_REST), int(worker.gaussians))
        if worker.fading:
            worker.gaussians = max(50_000.0, worker.gaussians * 0.85)

    def recycle(self, worker: SimWorker, how: RecycleHow, verify: bool) -> None:
        """A fresh model process begins, beside the old one or in its place."""
        seconds = SWAP_SECONDS if how is RecycleHow.SWAP else worker.start_seconds
        worker.swap_until, worker.swap_how, worker.swap_verify = self.now + seconds, how, verify
        if worker.stuck:
            worker.swap_until = math.inf
        elif how is RecycleHow.REPLACE:
            if worker.job_until is not None and not worker.hung:
                self.lost_jobs += 1
            worker.job_until = None
            worker.memory, worker.hung = FRESH, False
            worker.ready_at = self.now + seconds
            self.replacements += 1

    def _end_recycle(self, worker: SimWorker) -> None:
        how, outcome, old = worker.swap_how, worker.swap_outcome, worker.life_id
        worker.swap_until = None
        if how is RecycleHow.REPLACE:
            self._new_life(worker)
            worker.last_swap = old, how, RecycleResult(RecycleOutcome.DONE), self.now
            return
        if worker.swap_verify and worker.canary_passes:
            outcome = RecycleOutcome.SAME_OUTPUT
        if outcome is RecycleOutcome.DONE:
            self._new_life(worker)
            self.swaps += 1
        worker.last_swap = old, how, RecycleResult(outcome, str(outcome)), self.now

    def _new_life(self, worker: SimWorker) -> None:
        worker.life += 1
        worker.memory, worker.gaussians, worker.generations = AT_REST, 350_000.0, 0
        worker.hung = worker.fading = False
        worker.canary_passes, worker.says = True, ""
        if worker.device_broken:
            worker.gaussians, worker.canary_passes = 50_000.0, False

    def _restart(self, worker: SimWorker) -> None:
        worker.boot += 1
        worker.life = 0
        worker.held, worker.device_broken, worker.stuck, worker.gpu_errors = 0.0, False, False, 0
        worker.failing_starts = 0
        worker.restart_at = None
        worker.memory, worker.gaussians, worker.generations = AT_REST, 350_000.0, 0
        worker.hung = worker.deaf = worker.fading = False
        worker.canary_passes, worker.says = True, ""
        worker.ready_at = self.now + max(WARMUP_SECONDS, worker.mute_seconds)
        self.change(
            worker, phase=Phase.RUNNING, phase_reason="", container_id=f"{worker.pod.uid}/c{worker.boot}",
            started_at=self.now, restarts=worker.boot,
        )  # fmt: skip

    def _create(self) -> None:
        if not self.capacity:
            return
        due = [at for at in self._create_at if at <= self.now]
        self._create_at = [at for at in self._create_at if at > self.now]
        for _ in due:
            self.add_pod()

    def _track_cordon(self, worker: SimWorker) -> None:
        intent = worker.pod.intent
        seeking = intent is not None and intent.action in (Stage.CORDON, Stage.CLEANUP, Stage.CANARY)
        if "operator" not in worker.leases or not seeking:
            worker.cordoned_since = None
            return
        worker.cordoned_since = worker.cordoned_since or self.now
        clock = self.spec.drain.timeout_seconds + 180 + 2 * TICK
        if self.now - worker.cordoned_since > clock + self.spec.drain.lease_seconds:
            self.violations.append(f"{worker.pod.name} cordoned for {self.now - worker.cordoned_since:.0f} s")
