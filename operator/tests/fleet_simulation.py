"""A fleet in virtual time: workers that leak, fade, hang and die, the kubelet, a Deployment and a Prometheus.

The real controller runs against it. Outside calls can be made to end the operator at any point, before or
after they took effect, as a crash would.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prometheus_client import CollectorRegistry
from sn17_contract.admin import Owner
from sn17_contract.http import LeaseOwner
from sn17_contract.worker import RecycleHow, RecycleOutcome
from sn17_operator.api import Rules, Spec, scaled
from sn17_operator.controller import Controller
from sn17_operator.core.evidence import Raw, Samples, windows
from sn17_operator.core.model import (
    CanaryResult,
    Phase,
    Pod,
    RecycleResult,
    Rollout,
    Stage,
    Termination,
    UserCordon,
)
from sn17_operator.core.plan import Step
from sn17_operator.core.readings import Monitoring, Signal
from sn17_operator.core.signals import DRAINING, INFO_LABELS
from sn17_operator.ports import (
    Announcement,
    Conflict,
    Disrupted,
    Measurement,
    Miner,
    NoRoom,
    OtherIncarnation,
    Refused,
    Target,
)
from sn17_operator.status.resource import Status
from sn17_operator.telemetry import Telemetry

TICK = 15.0
WARMUP_SECONDS = 40.0
RESTART_SECONDS = 10.0
RESCHEDULE_SECONDS = 20.0
GIB = 1024.0**3
LIMIT = 12 * GIB
START = 1_700_000_000.0
JOB_SECONDS = 20.0
FRESH = 0.21
SWAP_THRESHOLD = 0.65
SWAP_SECONDS = 35.0
REPLACE_SECONDS = 25.0


class Crash(BaseException):
    """The operator's process ended here."""


@dataclass
class SimWorker:
    """One pod with its process."""

    pod: Pod
    boot: int = 0
    memory: float = 0.3
    leak: float = 0.0
    """Share of the limit that each finished job adds."""
    gaussians: float = 350_000.0
    generations: int = 0
    fading: bool = False
    hung: bool = False
    deaf: bool = False
    """Nothing answers: neither scrape nor admin."""
    stubborn: bool = False
    """Ignores the request to exit."""
    canary_passes: bool = True
    cleanup_helps: bool = False
    left_over: float = 0.0
    """Share of the limit that stays in the pod when its container is restarted."""
    bad_checkpoint: bool = False
    """Every canary after the next restart drifts."""
    back_off: float = 0.0
    """Seconds that kubelet waits before the next restart."""
    mute_seconds: float = 0.0
    """Seconds that a new process needs before it can be scraped."""
    says: str = ""
    """Why the worker itself says that it is degraded."""
    job_until: float | None = None
    progress: float = START
    ready_at: float = START
    restart_at: float | None = None
    gone_at: float | None = None
    leases: dict[LeaseOwner, float | None] = field(default_factory=dict)
    cordoned_since: float | None = None
    lives: bool = False
    """The model is a process of its own; older images are one process."""
    life: int = 0
    room: bool = True
    swap_until: float | None = None
    swap_how: RecycleHow = RecycleHow.SWAP
    swap_outcome: RecycleOutcome = RecycleOutcome.DONE
    swap_verify: bool = False
    last_swap: tuple[str, RecycleHow, RecycleResult, float] | None = None
    stuck: bool = False
    """Says that it recycles its model process, and never does."""
    held: float = 0.0
    """Share of the limit that the service holds: only the container's end frees it."""
    device_broken: bool = False
    """Every model process in this container makes bad output."""
    gpu_errors: int = 0
    """Counted by the service since its start."""
    ours: bool = False
    """It served until the operator took it out of service, and has not served since."""

    @property
    def boot_id(self) -> str:
        return f"{self.pod.uid}-{self.boot}"

    @property
    def life_id(self) -> str:
        return f"{self.boot_id}.{self.life}"

    @property
    def total(self) -> float:
        """Share of the limit that both processes and the service hold."""
        second = FRESH if self.swap_until is not None and self.swap_how is RecycleHow.SWAP else 0.0
        return self.memory + self.held + second


class World:
    """Everything outside the operator, with counters of what must never happen."""

    def __init__(self, count: int, spec: Spec, *, guard: bool = False, lives: bool = False) -> None:
        self.spec = spec
        self.now = START
        self.wanted = count
        self.guard = guard
        self.workers: dict[str, SimWorker] = {}
        self.samples: dict[tuple[str, Signal, str], list[tuple[float, float]]] = {}
        self.scrapes: list[float] = []
        self.prometheus_up = True
        self.other_targets = True
        """Prometheus scrapes itself too."""
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
        worker = SimWorker(
            pod, leak=self.leak, ready_at=self.now + WARMUP_SECONDS, progress=self.now, lives=self.lives
        )
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
        self._scrape()

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
            del self.workers[pod.uid]
            self._create_at.append(self.now + RESCHEDULE_SECONDS)
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
            and worker.says != "device_error"
        )
        if worker.total >= 1.0:
            self.kill(worker, "OOMKilled", 137)
            return
        refusing = self.guard and worker.total >= 0.88
        if serving and worker.job_until is None and self.tasks_offered:
            if refusing:
                self.refusals_before_cordon += 1
            else:
                worker.job_until = self.now + JOB_SECONDS
                worker.progress = self.now
        worker.ours = worker.ours and not serving
        if pod.ready != (serving and not refusing):
            self.change(worker, ready=serving and not refusing)

    def _finish(self, worker: SimWorker) -> None:
        worker.job_until = None
        worker.progress = self.now
        worker.memory += worker.leak
        worker.generations += 1
        if worker.fading:
            worker.gaussians = max(50_000.0, worker.gaussians * 0.85)

    def recycle(self, worker: SimWorker, how: RecycleHow, verify: bool) -> None:
        """A fresh model process begins, beside the old one or in its place."""
        seconds = SWAP_SECONDS if how is RecycleHow.SWAP else REPLACE_SECONDS
        worker.swap_until, worker.swap_how, worker.swap_verify = self.now + seconds, how, verify
        if worker.stuck:
            worker.swap_until = math.inf
        elif how is RecycleHow.REPLACE:
            if worker.job_until is not None and not worker.hung:
                self.lost_jobs += 1
            worker.job_until = None
            self._new_life(worker)
            worker.ready_at = self.now + seconds
            self.replacements += 1

    def _end_recycle(self, worker: SimWorker) -> None:
        how, outcome, old = worker.swap_how, worker.swap_outcome, worker.life_id
        worker.swap_until = None
        if how is RecycleHow.REPLACE:
            return
        if worker.swap_verify and worker.canary_passes:
            outcome = RecycleOutcome.SAME_OUTPUT
        if outcome is RecycleOutcome.DONE:
            self._new_life(worker)
            self.swaps += 1
        worker.last_swap = old, how, RecycleResult(outcome, str(outcome)), self.now

    def _new_life(self, worker: SimWorker) -> None:
        worker.life += 1
        worker.memory, worker.gaussians, worker.generations = 0.3, 350_000.0, 0
        worker.hung = worker.fading = False
        worker.canary_passes, worker.says = True, ""
        if worker.device_broken:
            worker.gaussians, worker.canary_passes = 50_000.0, False

    def _restart(self, worker: SimWorker) -> None:
        worker.boot += 1
        worker.life = 0
        worker.held, worker.device_broken, worker.stuck, worker.gpu_errors = 0.0, False, False, 0
        worker.restart_at = None
        worker.memory, worker.gaussians, worker.generations = 0.3, 350_000.0, 0
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

    # --- Prometheus -----------------------------------------------------------------------------------

    def _scrape(self) -> None:
        if not self.prometheus_up:
            return
        if self.other_targets or any(not w.deaf for w in self.workers.values()):
            self.scrapes.append(self.now)
        del self.scrapes[:-40]
        for worker in self.workers.values():
            uid = worker.pod.uid
            running = worker.restart_at is None and worker.pod.phase is Phase.RUNNING
            started = worker.pod.started_at or self.now
            up = running and not worker.deaf and self.now - started >= worker.mute_seconds
            self._sample(uid, Signal.UP, "", float(up))
            if not up:
                continue
            self._sample(uid, Signal.BOOT, worker.boot_id, 1.0)
            if worker.lives:
                self._sample(uid, Signal.LIFE, worker.life_id, 1.0)
                two = worker.swap_until is not None and worker.swap_how is RecycleHow.SWAP
                self._sample(uid, Signal.MODEL_PROCESSES, "", 2.0 if two else 1.0)
                self._sample(uid, Signal.SWAP_THRESHOLD, "", SWAP_THRESHOLD)
                self._sample(uid, Signal.SWAP_ROOM, "", float(worker.room))
            self._sample(uid, Signal.MEMORY, "", min(worker.total, 1.0) * LIMIT)
            self._sample(uid, Signal.LIMIT, "", LIMIT)
            self._sample(uid, Signal.GENERATIONS, "", float(min(worker.generations, 60)))
            if worker.generations:
                self._sample(uid, Signal.GAUSSIANS, "", worker.gaussians)
                self._sample(uid, Signal.SECONDS_P50, "", JOB_SECONDS)
            self._sample(uid, Signal.JOBS, "", float(worker.job_until is not None))
            self._sample(uid, Signal.PROGRESS, "", worker.progress)
            if worker.says:
                self._sample(uid, Signal.DEGRADED, worker.says, 1.0)
            if worker.gpu_errors:
                self._sample(uid, Signal.GPU_ERRORS, "", float(worker.gpu_errors))
            if self.now >= worker.ready_at:
                bad = worker.bad_checkpoint and worker.boot > 0
                self._sample(uid, Signal.CANARY, "", 0.5 if bad else 0.02)
            left = worker.left_over if worker.boot else 0.0
            self._sample(uid, Signal.POD_MEMORY, "", (worker.total + left) * LIMIT)
            for by, signal in DRAINING.items():
                self._sample(uid, signal, "", float(by in worker.leases))

    def _sample(self, uid: str, signal: Signal, label: str, value: float) -> None:
        kept = self.samples.setdefault((uid, signal, label), [])
        kept.append((self.now, value))
        del kept[:-40]


class SimMetrics:
    def __init__(self, world: World) -> None:
        self.world = world

    async def measure(self, now: float, rules: Sequence[Rules]) -> Measurement:
        world = self.world
        spans = windows(rules, TICK)
        if not world.prometheus_up:
            failed = dict.fromkeys(Signal, "unreachable: refused")
            return Measurement(Monitoring(now, 2 * TICK + 5, TICK, failed, None, 0.0, spans[Signal.UP]), {})
        infos: dict[Signal, dict[str, list[tuple[str, Samples]]]] = {signal: {} for signal in INFO_LABELS}
        series: dict[str, dict[Signal, list[Samples]]] = {}
        for (uid, signal, label), samples in world.samples.items():
            kept = tuple((at, value) for at, value in samples if at > now - spans[signal])
            if not kept:
                continue
            if signal in INFO_LABELS:
                infos[signal].setdefault(uid, []).append((label, kept))
            else:
                series.setdefault(uid, {}).setdefault(signal, []).append(kept)
        workers = {
            uid: Raw(
                tuple(infos[Signal.BOOT].get(uid, ())),
                series.get(uid, {}),
                tuple(infos[Signal.DEGRADED].get(uid, ())),
                tuple(infos[Signal.LIFE].get(uid, ())),
            )
            for uid in series
        }
        recent = [at for at in world.scrapes if at > now - spans[Signal.UP]]
        monitoring = Monitoring(
            now, 2 * TICK + 5, TICK, {}, recent[-1] if recent else None, float(len(recent)), spans[Signal.UP]
        )
        return Measurement(monitoring, workers)


class SimHost:
    """The API server: versions, conflicts, evictions. ``crash_after`` outside calls the operator dies."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.crash_after: int | None = None
        self.crash_before_effect = False
        self.throttled: frozenset[str] = frozenset()
        """Kinds of calls that the API server answers with 429: target, annotate, evict, event, status."""

    def effect(self) -> None:
        """Called before an effect; a crash here means that it never happened."""
        if self.crash_after is not None and self.crash_after <= 0 and self.crash_before_effect:
            self._die()

    def effected(self) -> None:
        """Called after an effect; a crash here means that it did happen but no one was told."""
        if self.crash_after is None:
            return
        if self.crash_after <= 0:
            self._die()
        self.crash_after -= 1

    def _die(self) -> None:
        self.crash_after = None
        raise Crash

    def may_act(self) -> bool:
        return True

    def _admit(self, kind: str) -> None:
        if kind in self.throttled:
            raise Refused("http_429", "too many requests")

    async def miners(self) -> Sequence[Miner]:
        world = self.world
        return [Miner("m", "m", "ns", world.spec, 1, world.paused, Status.read(world.status))]

    async def target(self, miner: Miner, now: float) -> Target:
        self._admit("target")
        world = self.world
        rollout = Rollout(2 if world.rolling else 1, 1, world.wanted, world.wanted)
        return Target(tuple(w.pod for w in world.workers.values()), world.wanted, rollout)

    async def annotate(self, miner: Miner, pod: Pod, step: Step) -> Pod:
        self._admit("annotate")
        self.effect()
        world = self.world
        worker = world.workers.get(pod.uid)
        if worker is None or worker.pod.resource_version != pod.resource_version:
            raise Conflict("changed")
        self._check_start(worker, step)
        world.change(
            worker, intent=step.intent, history=step.history,
            recycle_requested=None if step.drop_request else worker.pod.recycle_requested,
            user_cordon=None if step.drop_user_cordon else worker.pod.user_cordon,
        )  # fmt: skip
        self.effected()
        return worker.pod

    def _check_start(self, worker: SimWorker, step: Step) -> None:
        """The budget's promises, held against the world and not against what the operator believes."""
        world, before, after = self.world, worker.pod.intent, step.intent
        if after is None:
            return
        budget = scaled(world.spec.max_unavailable, world.wanted)
        if before is None:
            if not world.prometheus_up:
                world.violations.append(f"{worker.pod.name}: {step.reason} without metrics")
            if world.paused is not None:
                world.violations.append(f"{worker.pod.name}: {step.reason} while paused")
            acting = sum(w.pod.held for w in world.workers.values()) + 1
            costs = worker.pod.ready and worker.pod.user_cordon is None
            missing = world.wanted - world.available() + int(costs)
            swap = after.action is Stage.SWAP
            if not swap and (acting > budget or (costs and missing > budget)):
                world.violations.append(
                    f"{worker.pod.name}: {acting} acting, {missing} missing, budget {budget}"
                )
        if after.action is Stage.RECYCLE and (before is None or before.action is not Stage.RECYCLE):
            key = worker.pod.container_id
            if key in world.exits:
                world.violations.append(f"{key}: a second recycle of one incarnation")
            world.exits.append(key)

    async def evict(self, miner: Miner, pod: Pod) -> None:
        self._admit("evict")
        self.effect()
        world = self.world
        worker = world.workers.get(pod.uid)
        if worker is None:
            raise Conflict("gone")
        if world.budget_blocks_eviction:
            raise Disrupted("budget")
        if not worker.pod.deleting:
            world.evictions += 1
            world.take(worker)
            if worker.job_until is not None and not worker.hung:
                world.lost_jobs += 1
            worker.gone_at = world.now + 10
            world.change(worker, deleting=True, ready=False)
        self.effected()

    async def announce(self, miner: Miner, pod: Pod | None, announcement: Announcement) -> None:
        self._admit("event")
        self.world.events.append((self.world.now, pod.name if pod else "", announcement.reason))
        self.effected()

    async def write_status(self, miner: Miner, status: Status) -> None:
        self._admit("status")
        self.effect()
        self.world.status = {**self.world.status, **status.written()}
        if (word := self.world.status.get("status")) and word not in self.world.words[-1:]:
            self.world.words.append(word)
        self.effected()


class SimAdmin:
    """The workers' admin endpoints, with crashes on both sides of each effect."""

    def __init__(self, world: World, host: SimHost) -> None:
        self.world = world
        self.host = host
        self.locked = False

    def _worker(self, pod: Pod) -> SimWorker:
        self.host.effect()
        worker = self.world.workers.get(pod.uid)
        if worker is None or worker.restart_at is not None or worker.deaf:
            raise Refused("unreachable", "no answer")
        if self.locked:
            raise Refused("http_401", "unauthorized")
        return worker

    async def drain(self, pod: Pod, by: Owner, reason: str, ttl_seconds: float | None) -> bool:
        worker = self._worker(pod)
        if by is LeaseOwner.OPERATOR:
            self.world.take(worker)
        worker.leases[by] = None if ttl_seconds is None else self.world.now + ttl_seconds
        self.host.effected()
        return worker.job_until is None

    async def resume(self, pod: Pod, by: Owner) -> None:
        self._worker(pod).leases.pop(by, None)
        self.host.effected()

    async def cleanup(self, pod: Pod) -> None:
        worker = self._worker(pod)
        if worker.cleanup_helps:
            worker.memory = 0.3
        self.host.effected()

    async def canary(self, pod: Pod) -> CanaryResult:
        worker = self._worker(pod)
        self.host.effected()
        return CanaryResult(self.world.now, worker.canary_passes, "")

    async def exit(self, pod: Pod, boot_id: str, reason: str) -> None:
        worker = self._worker(pod)
        if worker.boot_id != boot_id:
            raise OtherIncarnation("gone")
        if not worker.stubborn and not worker.hung:
            self.world.take(worker)
            self.world.kill(worker, "Completed", 75)
        self.host.effected()

    async def recycle(self, pod: Pod, life_id: str, how: RecycleHow, reason: str, *, verify: bool) -> None:
        worker = self._worker(pod)
        if worker.life_id != life_id:
            raise OtherIncarnation("gone")
        if how is RecycleHow.SWAP and (not worker.room or worker.total + FRESH > 0.95):
            raise NoRoom("two do not fit")
        if worker.swap_until is None:
            if how is RecycleHow.REPLACE:
                self.world.take(worker)
            self.world.recycle(worker, how, verify)
        self.host.effected()

    async def recycled(self, pod: Pod, life_id: str, how: RecycleHow, since: float) -> RecycleResult | None:
        worker = self._worker(pod)
        if worker.swap_until is not None:
            return RecycleResult(None) if worker.life_id == life_id else None
        if worker.last_swap is None:
            return None
        life, last, result, at = worker.last_swap
        return result if (life, last) == (life_id, how) and at >= since else None


class Simulation:
    """World and operator, tick by tick. The operator may be killed and is then started anew, knowing
    nothing.
    """

    def __init__(
        self,
        count: int,
        spec: Spec | None = None,
        *,
        guard: bool = False,
        operator: bool = True,
        lives: bool = False,
    ) -> None:
        self.world = World(count, spec or SPEC, guard=guard, lives=lives)
        self.host = SimHost(self.world)
        self.admin = SimAdmin(self.world, self.host)
        self.operator = operator
        self.crashes = 0
        self.controller = self._new()

    def _new(self) -> Controller:
        telemetry = Telemetry(CollectorRegistry(), lambda: self.world.now)
        return Controller(
            self.host, SimMetrics(self.world), self.admin, telemetry, clock=lambda: self.world.now
        )

    async def tick(self) -> None:
        self.world.advance()
        if not self.operator:
            return
        try:
            await self.controller.tick()
            for _ in range(5):  # clean-ups and canaries run beside the tick
                await asyncio.sleep(0)
        except (Crash, BaseExceptionGroup):
            self.crashes += 1
            await self.controller.close()
            self.controller = self._new()

    async def run(self, ticks: int) -> None:
        for _ in range(ticks):
            await self.tick()

    def cordon(self, worker: SimWorker, reason: str = "by hand") -> None:
        self.world.change(worker, user_cordon=UserCordon(reason))

    def lift(self, worker: SimWorker) -> None:
        if worker.pod.user_cordon is not None:
            self.world.change(worker, user_cordon=replace(worker.pod.user_cordon, lift=True))

    @property
    def workers(self) -> list[SimWorker]:
        return list(self.world.workers.values())

    def reasons(self) -> list[str]:
        return [reason for _, _, reason in self.world.events]

    def count(self, reason: str) -> int:
        return self.reasons().count(reason)


SPEC = Spec.model_validate({"targetRef": {"name": "workers"}})


def spec_with(**changes: Any) -> Spec:
    return Spec.model_validate({"targetRef": {"name": "workers"}, **changes})


def let_leak(sim: Simulation, leak: float) -> None:
    """Every worker, also one that is made later, adds this share of the limit with each job."""
    sim.world.leak = leak
    for worker in sim.workers:
        worker.leak = leak


async def warmed(count: int, **options: Any) -> Simulation:
    """A fleet past its start."""
    sim = Simulation(count, **options)
    await sim.run(10)
    return sim
