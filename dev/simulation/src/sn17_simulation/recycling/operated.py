"""sn17 whole: the guarded workers, a scrape every 15 s, and the operator's judgement and plan on it."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from statistics import fmean
from typing import Final

from sn17_contract.http import LeaseOwner, WorkerState
from sn17_contract.metrics import DegradedReason
from sn17_contract.worker import RecycleHow, RecycleOutcome
from sn17_operator.api import Spec
from sn17_operator.core.evidence import Raw, Samples, attribute, windows
from sn17_operator.core.model import CanaryResult, Fleet, Phase, Pod, RecycleResult, RuleClass, Stage
from sn17_operator.core.plan import Act, Plan, Step
from sn17_operator.core.planner import plan
from sn17_operator.core.policy import judge_all
from sn17_operator.core.readings import Monitoring, Signal
from sn17_operator.tracker import PodRecord, Tracker
from sn17_service import Problem
from sn17_trellis.model_process.room import Measures

from sn17_simulation.recycling.case import CANARY, IMPORTS, RESCHEDULED, WARM_UP, WORKERS
from sn17_simulation.recycling.guarded import LIMIT, SETTINGS, Core, Guarded
from sn17_simulation.recycling.machine import Machine, State
from sn17_simulation.recycling.world import World

TICK: Final = 15.0
GRACE: Final = 100.0
"""What a worker leaves a job that hangs when it is asked to exit."""
SPEC: Final = Spec.model_validate({"targetRef": {"name": "workers"}})
SPANS: Final = windows([SPEC.rules], TICK)
LEASE: Final = float(SPEC.drain.lease_seconds)

Kept = deque[tuple[float, float]]


class Scraped:
    """What Prometheus keeps of one machine."""

    def __init__(self) -> None:
        self.series: dict[Signal, Kept] = {}
        self.boots: dict[str, Kept] = {}
        self.lives: dict[str, Kept] = {}
        self.doubt: str | None = None
        self.canary: str | None = None

    def add(self, signal: Signal, at: float, value: float) -> None:
        kept = self.series.get(signal)
        if kept is None:
            kept = self.series[signal] = deque(maxlen=int(SPANS[signal] / TICK) + 1)
        kept.append((at, value))

    def see(self, seen: dict[str, Kept], signal: Signal, name: str, at: float) -> None:
        """A sample of an information series."""
        if name not in seen:
            for old in list(seen)[:-1]:
                del seen[old]
            seen[name] = deque(maxlen=int(SPANS[signal] / TICK) + 1)
        seen[name].append((at, 1.0))

    def raw(self, now: float) -> Raw:
        """What the operator's queries give."""

        def cut(kept: Kept, signal: Signal) -> Samples:
            since = now - SPANS[signal]
            return tuple(kept) if kept[0][0] > since else tuple(s for s in kept if s[0] > since)

        boots = tuple((n, c) for n, k in self.boots.items() if (c := cut(k, Signal.BOOT)))
        lives = tuple((n, c) for n, k in self.lives.items() if (c := cut(k, Signal.LIFE)))
        series = {signal: [cut(kept, signal)] for signal, kept in self.series.items()}
        doubts = ((self.doubt, ((now, 1.0),)),) if self.doubt is not None else ()
        canaries = ((self.canary, ((now, 1.0),)),) if self.canary is not None else ()
        return Raw(boots, series, doubts, lives, canaries)


class Operated(Guarded):
    """The guard, the swaps and the operator."""

    name = "sn17"

    def begin(self, world: World) -> None:
        super().begin(world)
        self.pods = {m.index: self._pod(m) for m in world.machines}
        self.scraped = {m.index: Scraped() for m in world.machines}
        self.tracker = Tracker()
        self.known = Fleet((), WORKERS)
        self.told: dict[str, float] = {}
        """Words that people hear, and when they first did, seconds after the start."""
        self._taken: set[int] = set()
        world.at(world.now + TICK, self._tick)

    def _pod(self, machine: Machine) -> Pod:
        now = self.world.now
        uid = f"u{machine.index}.{machine.pod}"
        return Pod(
            uid,
            f"w{machine.index}",
            "ns",
            now,
            node=f"n{machine.index}",
            address=f"http://{uid}",
            phase=Phase.RUNNING,
            container_id=f"{uid}/{machine.boot}",
            started_at=machine.started_at,
            restarts=machine.boot,
        )

    def renew(self, machine: Machine, now: float) -> None:
        super().renew(machine, now)
        pod, boot = self.pods[machine.index], machine.boot
        self.pods[machine.index] = replace(
            pod, phase=Phase.RUNNING, container_id=f"{pod.uid}/{boot}", started_at=now, restarts=boot
        )

    def died(self, machine: Machine) -> None:
        super().died(machine)
        # kubelet has the container started at once; only then does the worker load.
        self.pods[machine.index] = replace(self.pods[machine.index], phase=Phase.WAITING)

    # --- looking ------------------------------------------------------------------------------------

    def _tick(self) -> None:
        world = self.world
        world.at(world.now + TICK, self._tick)
        seen = []
        monitoring = Monitoring(
            world.now, 2 * TICK + 5, TICK, {}, world.now, SPANS[Signal.UP] / TICK, SPANS[Signal.UP]
        )
        for machine in world.machines:
            self._scrape(machine)
            if machine.state is State.GONE:
                continue
            core, pod = self.cores[machine.index], self.pods[machine.index]
            ready = machine.state is State.UP and core.state() in (WorkerState.READY, WorkerState.REFUSING)
            pod = self.pods[machine.index] = replace(pod, ready=ready and core.guard.refusing_since is None)
            evidence = attribute(self.scraped[machine.index].raw(world.now), pod.started_at, {})
            seen.append((pod, evidence))
        workers = tuple(self.tracker.worker(*each, world.now) for each in judge_all(SPEC, seen, monitoring))
        self.known = replace(self.known, workers=workers)
        planned = plan(SPEC, self.known, world.now)
        self.known = replace(
            self.known, evictions=planned.evictions, short_circuit_at=planned.short_circuit_at
        )
        self._hear(planned)
        for step in planned.steps:
            self._take(step)
        self._count_taken()

    def _hear(self, planned: Plan) -> None:
        at = self.world.now
        for word in {str(b.reason) for b in planned.blocked} | {str(s.reason) for s in planned.steps}:
            self.told.setdefault(word, at)

    def _scrape(self, machine: Machine) -> None:
        scraped, now, core = self.scraped[machine.index], self.world.now, self.cores[machine.index]
        replacing = core.lives.recycling is RecycleHow.REPLACE
        up = machine.state is State.UP or replacing
        add = scraped.add
        add(Signal.UP, now, float(up))
        if not up:
            scraped.canary = None
            return
        scraped.see(scraped.boots, Signal.BOOT, machine.boot_id, now)
        scraped.see(scraped.lives, Signal.LIFE, machine.life_id, now)
        terms = core.lives.terms()
        add(Signal.MODEL_PROCESSES, now, 2.0 if machine.second else 1.0)
        if terms is not None:
            add(Signal.SWAP_THRESHOLD, now, terms.due_ratio)
            add(Signal.SWAP_ROOM, now, float(core.lives.has_room(terms)))
        add(Signal.MEMORY, now, min(1.0, machine.total) * LIMIT)
        add(Signal.LIMIT, now, float(LIMIT))
        add(Signal.GUARD, now, SETTINGS.guard_refuse_ratio)
        add(Signal.POD_MEMORY, now, min(1.0, machine.total + machine.left_over) * LIMIT)
        recent = machine.recent
        add(Signal.GENERATIONS, now, float(len(recent)))
        if recent:
            add(Signal.GAUSSIANS, now, fmean(g for _, g, _ in recent))
            add(Signal.SECONDS_P50, now, self.world.case.job_seconds)
        add(Signal.JOBS, now, float(machine.job is not None))
        add(Signal.PROGRESS, now, machine.progress if machine.hung or machine.job is None else now)
        add(Signal.CANARY, now, 1.0 - machine.canary_factor)
        add(Signal.DRAINING_OPERATOR, now, float(core.drain.draining))
        add(Signal.DRAINING_USER, now, 0.0)
        card = "card" if machine.bad_card else f"{machine.canary_factor:.3f}"
        scraped.canary = f"model/{card}"
        scraped.doubt = DegradedReason.DEVICE_ERROR.value if core.degradation.fatal else None

    def _count_taken(self) -> None:
        for machine in self.world.machines:
            if machine.state is State.UP and self.cores[machine.index].state() is WorkerState.READY:
                self._taken.discard(machine.index)
        self.world.result.most_taken = max(self.world.result.most_taken, len(self._taken))

    # --- acting -------------------------------------------------------------------------------------

    def _take(self, step: Step) -> None:
        machine = next(m for m in self.world.machines if self.pods[m.index].uid == step.uid)
        pod = self.pods[machine.index]
        pod = self.pods[machine.index] = replace(pod, intent=step.intent, history=step.history)
        note, core = self.tracker.of(pod), self.cores[machine.index]
        if not step.silent:
            self.world.result.note(f"operator: {step.reason}")
        if step.act is Act.EVICT:
            self._evict(machine)
        elif machine.state is State.UP:
            self._act(step, machine, core, note)

    def _act(self, step: Step, machine: Machine, core: Core, note: PodRecord) -> None:
        now = self.world.now
        match step.act:
            case Act.CORDON | Act.RENEW:
                self._lease(machine, core, note)
            case Act.UNCORDON:
                core.drain.lift(LeaseOwner.OPERATOR)
                self.world.tell(machine)
                self.world.dispatch()
            case Act.SWAP | Act.REPLACE:
                if step.act is Act.REPLACE:
                    self._lease(machine, core, note)
                self._recycle(step, machine, core, note)
            case Act.CLEANUP:
                self._lease(machine, core, note)
                note.acknowledged.add(Stage.CLEANUP)
            case Act.CANARY:
                self._lease(machine, core, note)
                core.run_canary()
                passed = machine.canary_factor > 0.8
                self.world.at(now + CANARY, lambda: self._canary_ran(note, passed))
            case Act.EXIT:
                self._taken.add(machine.index)
                core.exiting = True
                note.acknowledged.add(Stage.RECYCLE)
                self.leave(machine)
                if machine.job is not None:
                    version = machine.job_version
                    self.world.at(now + GRACE, lambda: self._out_of_grace(machine, version))
            case _:
                pass

    def _lease(self, machine: Machine, core: Core, note: PodRecord) -> None:
        self._taken.add(machine.index)
        core.drain.hold(LeaseOwner.OPERATOR, "", LEASE)
        note.asked_at = self.world.now if note.asked_at is None else note.asked_at
        note.leased, note.drained = True, machine.job is None
        self.world.tell(machine)

    def _canary_ran(self, note: PodRecord, passed: bool) -> None:
        note.canary = CanaryResult(self.world.now, passed)

    def _out_of_grace(self, machine: Machine, version: int) -> None:
        if machine.job is not None and machine.job_version == version:
            self.world.interrupt(machine)
            self.leave(machine)

    def _recycle(self, step: Step, machine: Machine, core: Core, note: PodRecord) -> None:
        intent, lives = step.intent, core.lives
        assert intent is not None
        assert intent.life_id is not None
        how = RecycleHow.SWAP if step.act is Act.SWAP else RecycleHow.REPLACE
        if lives.last is not None and lives.last[:2] == (intent.life_id, how) and lives.last[3] >= intent.at:
            note.acknowledged.add(intent.action)
            note.recycle = RecycleResult(lives.last[2], str(lives.last[2]))
        if intent.action in note.acknowledged or note.recycle is not None:
            return
        verify = how is RecycleHow.SWAP and intent.rule_class is RuleClass.QUALITY
        if how is RecycleHow.REPLACE:
            self._taken.add(machine.index)
        try:
            lives.recycle(intent.life_id, how, intent.reason, verify=verify)
        except Problem as problem:
            if lives.last is not None and lives.last[2] is RecycleOutcome.NO_ROOM:
                note.recycle = RecycleResult(RecycleOutcome.NO_ROOM, problem.detail)
            return
        note.acknowledged.add(intent.action)
        self.world.tell(machine)

    def _evict(self, machine: Machine) -> None:
        """The pod ends, and another one is made and scheduled: on the same card, there is no spare."""
        if machine.state is State.STARTING and self.pods[machine.index].deleting:
            return
        self._taken.add(machine.index)
        self.world.interrupt(machine)
        case, core = self.world.case, self.cores[machine.index]
        core.lives.ended()
        self.pods[machine.index] = replace(self.pods[machine.index], deleting=True)

        def renew(now: float) -> None:
            machine.fresh_pod(now)
            core.renew()
            core.lives.measures = Measures()
            core.lives.measured(case.load_seconds + WARM_UP + CANARY)
            self.pods[machine.index] = self._pod(machine)
            self.scraped[machine.index] = Scraped()

        self.world.start(machine, RESCHEDULED + IMPORTS + case.load_seconds + WARM_UP + CANARY, renew)
