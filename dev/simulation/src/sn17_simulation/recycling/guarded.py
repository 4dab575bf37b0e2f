"""A worker's own upkeep, as it is in the worker, on a machine in virtual time."""

from __future__ import annotations

import tempfile
from collections import deque
from pathlib import Path
from random import Random
from typing import Final, cast

from sn17_contract.http import Code, WorkerState
from sn17_contract.worker import RecycleHow, RecycleOutcome
from sn17_service import MemoryReading, Problem, Service
from sn17_service.drain import DrainLease
from sn17_trellis.degradation import Degradation
from sn17_trellis.guard import Guard, SelfRecycle, Thresholds
from sn17_trellis.model_process.lives import Lives
from sn17_trellis.model_process.room import Measures, Terms, job_must_wait, no_room, not_worth_it
from sn17_trellis.settings import WorkerSettings
from sn17_trellis.upkeep import Upkeep

from sn17_simulation.recycling.case import CANARY, IMPORTS, RESTARTED, SPAWN, WARM_UP
from sn17_simulation.recycling.machine import Machine, State
from sn17_simulation.recycling.world import Caretaker, World

LIMIT: Final = 12 * 2**30
SETTINGS: Final = WorkerSettings.model_construct()
REPLACE_DEADLINE: Final = 180.0


class Lifetimes:
    """The two acts of a worker's keeper: a swap beside the work, and a replacement instead of it."""

    separate = True

    def __init__(self, world: World, machine: Machine) -> None:
        self._world, self._machine = world, machine
        self._core: Core | None = None
        self.measures = Measures()
        self.recycling: RecycleHow | None = None
        self.last: tuple[str, RecycleHow, RecycleOutcome, float] | None = None
        self._verify = False
        self._proves = True
        self._loaded: float | None = None
        self._began = self._device_seconds = 0.0
        self._version = 0
        self._phases: deque[float] = deque()
        self.measured(world.case.load_seconds + SPAWN + WARM_UP + CANARY)

    @property
    def life_id(self) -> str:
        return self._machine.life_id

    @property
    def resting(self) -> bool:
        return self._machine.second > 0.0

    def used(self) -> int:
        """Bytes of the container."""
        return int(self._machine.total * LIMIT)

    def service(self) -> int:
        """Bytes of the service's own process."""
        return int(self._machine.service * LIMIT)

    def measured(self, seconds: float) -> None:
        """A fresh process serves alone."""
        self.measures.started(int(self._world.case.ballast * LIMIT), seconds)
        self.measures.at_rest(self.used(), self.service())
        self.measures.device_need = int(0.4 * LIMIT)
        self.measures.canary_seconds = CANARY
        self.measures.held(warm_up=WARM_UP, canary=CANARY)

    def terms(self) -> Terms | None:
        """As the worker measures them."""
        return self.measures.terms(
            limit=LIMIT,
            refuse_ratio=SETTINGS.guard_refuse_ratio,
            job_seconds=self._world.case.job_seconds,
            device_free=int((1.0 - self._machine.device) * LIMIT),
        )

    def has_room(self, terms: Terms) -> bool:
        """Whether a swap fits now and is worth it."""
        return not_worth_it(terms, self.used()) is None

    def after_job(self, gaussians: int | None, idle_for: float | None) -> None:
        if idle_for is not None:
            self.measures.had_no_work(idle_for)
        if gaussians is not None:
            self.measures.made(gaussians, self.used(), int(SETTINGS.guard_refuse_ratio * LIMIT))
        if self._machine.second == 0.0:
            self.measures.after_job(self.used(), self.service())

    @property
    def must_wait(self) -> bool:
        """While two live: whether the old one gets no job for now."""
        terms = self.terms()
        fresh = int(self._machine.second * LIMIT)
        return bool(self._machine.second) and terms is not None and job_must_wait(terms, self.used(), fresh)

    def recycle(
        self, life_id: str, how: RecycleHow, reason: str, *, verify: bool, canary: bool = True
    ) -> None:
        """Begin an act. Raises Problem."""
        machine, world = self._machine, self._world
        if life_id != machine.life_id:
            raise Problem(Code.LIFE_ID_MISMATCH, "another life serves")
        if self.recycling is not None or machine.state is not State.UP:
            raise Problem(Code.CONFLICT, "starting, or at another recycle")
        if how is RecycleHow.SWAP:
            terms = self.terms()
            why = "not measured" if terms is None else no_room(terms, self.used())
            if why is not None:
                self.last = life_id, how, RecycleOutcome.NO_ROOM, world.now
                raise Problem(Code.NO_ROOM, why)
        self.recycling, self._verify, self._began, self._loaded = how, verify, world.now, None
        self._proves = canary or verify
        self._version += 1
        version = self._version
        world.result.note(how.value)
        if how is RecycleHow.SWAP:
            # To be compared, the old process runs its canary anew.
            self._phases = deque((WARM_UP, *[CANARY] * (self._proves + verify)))
            self._device_seconds = sum(self._phases)
            machine.second = world.case.ballast
            if machine.over:
                world.kill(machine, "oom")
                return
            world.at(world.now + SPAWN + world.case.load_seconds, lambda: self._has_loaded(version))
        elif machine.job is None:
            self._replace()
        else:
            world.at(world.now + REPLACE_DEADLINE, lambda: self._too_late(version))

    def ended(self) -> None:
        """The container has ended, and every process with it."""
        self._version += 1
        self.recycling, self._machine.second = None, 0.0
        self._phases.clear()

    def job_over(self) -> None:
        """Between two jobs: the act goes on."""
        if self.recycling is RecycleHow.REPLACE:
            self._replace()
        elif self.recycling is RecycleHow.SWAP:
            self._advance()

    def _too_late(self, version: int) -> None:
        if version == self._version and self._machine.job is not None:
            self._world.interrupt(self._machine, key_lost=False)
            self._replace()

    def _replace(self) -> None:
        case, life = self._world.case, self._machine.life_id
        self._version += 1

        def renew(now: float) -> None:
            self._machine.fresh_process(now)
            self.recycling = None
            self.last = life, RecycleHow.REPLACE, RecycleOutcome.DONE, now
            self._serves(now)

        self._world.start(self._machine, SPAWN + case.load_seconds + WARM_UP + CANARY * self._proves, renew)

    def _has_loaded(self, version: int) -> None:
        if version == self._version:
            self._loaded = self._world.now
            self._advance()

    def _advance(self) -> None:
        """Warm-up and canary take turns with jobs on the device; the switch is between two jobs."""
        machine, world = self._machine, self._world
        if self._loaded is None or machine.job is not None or world.now < machine.turn_until:
            return
        if not self._phases:
            self._switch()
            return
        machine.turn_until = world.now + self._phases.popleft()
        version = self._version
        world.at(machine.turn_until, lambda: self._phase_over(version))

    def _phase_over(self, version: int) -> None:
        if version == self._version:
            self._world.dispatch()
            self._advance()

    def _switch(self) -> None:
        machine, world, life = self._machine, self._world, self._machine.life_id
        same = self._verify and (machine.factor > 0.999 or machine.bad_card)
        outcome = RecycleOutcome.SAME_OUTPUT if same else RecycleOutcome.DONE
        machine.second = 0.0
        self.recycling = None
        self._version += 1
        if outcome is RecycleOutcome.DONE:
            machine.fresh_process(world.now)
            assert self._loaded is not None
            waited = world.now - self._loaded - self._device_seconds
            self.measures.swapped(world.now - self._began, self._device_seconds, waited)
            self._serves(world.now)
        self.last = life, RecycleHow.SWAP, outcome, world.now
        world.tell(machine)
        world.dispatch()

    def _serves(self, now: float) -> None:
        self.measured(self._world.case.load_seconds + SPAWN + WARM_UP + CANARY)
        if self._core is not None:
            self._core.new_life()
            if self._proves:
                self._core.upkeep.canary_ran()

    def belongs(self, core: Core) -> None:
        """Whose lives they are."""
        self._core = core


class Doubts:
    """What the worker holds against itself."""

    def __init__(self) -> None:
        self.fatal = False

    @property
    def degraded(self) -> str | None:
        return "device" if self.fatal else None

    @property
    def trusted(self) -> bool:
        return not self.fatal


class Core:
    """One worker's service: what its upkeep is lent, and what it decides."""

    stopping = None
    last_admin_call: float | None = None

    def __init__(self, world: World, machine: Machine, book: Path) -> None:
        self._world, self._machine = world, machine
        self.degradation = Doubts()
        self.lives = Lifetimes(world, machine)
        self.lives.belongs(self)
        self.guard = Guard(
            Thresholds(SETTINGS.guard_cleanup_ratio, SETTINGS.guard_refuse_ratio),
            enabled=True,
            read=self.read_memory,
            cleanup=lambda: None,
            monotonic=self.monotonic,
            resting=lambda: self.lives.resting,
        )
        self._recycles = SelfRecycle(
            book,
            after_seconds=SETTINGS.self_recycle_after_seconds,
            interval_seconds=SETTINGS.self_recycle_interval_seconds,
            clock=self.monotonic,
        )
        self._random = Random(f"{world.case.seed} guard {machine.index}").random
        self.renew()
        self.exiting = False

    def renew(self) -> None:
        """Another service process."""
        self.degradation.fatal = False
        self.drain = DrainLease(self.monotonic)
        self.exiting = False
        self.guard.new_life()
        self.upkeep = Upkeep(
            cast(Service, self),
            SETTINGS,
            self.guard,
            cast(Degradation, self.degradation),
            cast(Lives, self.lives),
            self._recycles,
            random=self._random,
        )

    def clock(self) -> float:
        """Seconds of the world, which has no other calendar."""
        return self.monotonic()

    def monotonic(self) -> float:
        return self._world.now

    def read_memory(self) -> MemoryReading:
        used = self.lives.used()
        return MemoryReading(used, used, LIMIT, {})

    def stop(self, code: int, reason: str) -> None:
        """The service ends itself after its job."""
        self._world.result.note(reason)
        self.exiting = True

    def new_life(self) -> None:
        self.degradation.fatal = False
        self.guard.new_life()
        self.upkeep.policy.new_life()

    def run_canary(self) -> object:
        """The fixed job, while idle."""
        self.upkeep.canary_ran()
        self._machine.turn_until = self._world.now + CANARY
        self._machine.canary_factor = self._machine.factor
        return None

    def refusal(self) -> Problem | None:
        serves = self._machine.state is State.UP and self._world.now >= self._machine.turn_until
        return None if serves else Problem(Code.BUSY, "busy")

    def state(self) -> WorkerState:
        """What it says without a job."""
        if self.exiting or self.drain.draining:
            return WorkerState.DRAINING
        if self.lives.recycling is RecycleHow.REPLACE:
            return WorkerState.WARMING
        if self.degradation.fatal:
            return WorkerState.DEGRADED
        return WorkerState.READY if self.guard.refusing_since is None else WorkerState.REFUSING


class Guarded(Caretaker):
    """sn17's worker with its guard and its swaps, and nobody else."""

    name = "guard with swaps, no operator"

    def begin(self, world: World) -> None:
        super().begin(world)
        self._canaries = tempfile.TemporaryDirectory()
        folder = Path(self._canaries.name)
        self.cores = [Core(world, m, folder / str(m.index)) for m in world.machines]

    def state(self, machine: Machine) -> WorkerState:
        return self.cores[machine.index].state()

    def before_job(self, machine: Machine) -> WorkerState | None:
        core = self.cores[machine.index]
        if (state := core.state()) not in (WorkerState.READY, WorkerState.REFUSING):
            return state
        core.upkeep.job_begins()
        if core.lives.must_wait:
            return WorkerState.BUSY
        return WorkerState.REFUSING if core.guard.check() is not None else None

    def after_job(self, machine: Machine) -> None:
        core = self.cores[machine.index]
        core.upkeep.tasks_since_canary += 1
        core.upkeep.job_ended(int(machine.recent[-1][1]))
        core.lives.job_over()
        self.leave(machine)

    def idle(self, machine: Machine) -> None:
        core = self.cores[machine.index]
        core.upkeep.idle(core)
        core.lives.job_over()
        self.leave(machine)
        self.world.tell(machine)
        self.world.dispatch()

    def leave(self, machine: Machine) -> None:
        """End the container if that is to be done."""
        if self.cores[machine.index].exiting and machine.job is None and machine.state is State.UP:
            self.died(machine)

    def died(self, machine: Machine) -> None:
        """kubelet starts it again."""
        core, case = self.cores[machine.index], self.world.case
        core.lives.ended()
        seconds = RESTARTED + IMPORTS + case.load_seconds + WARM_UP + CANARY
        self.world.start(
            machine, machine.back_off(self.world.now) + seconds, lambda now: self.renew(machine, now)
        )

    def renew(self, machine: Machine, now: float) -> None:
        """A fresh container serves."""
        core = self.cores[machine.index]
        machine.fresh_container(now)
        core.renew()
        core.lives.measures = Measures()
        core.lives.measured(self.world.case.load_seconds + WARM_UP + CANARY)

    def device_full(self, machine: Machine) -> None:
        """The device's error is fatal to the model process; the service says so and takes no more jobs."""
        self.cores[machine.index].degradation.fatal = True
        self.world.tell(machine)

    def hangs(self, machine: Machine) -> None:
        """A life that does not move is given up after the worker's own time."""
        version = machine.job_version
        self.world.at(self.world.now + SETTINGS.stall_seconds, lambda: self._given_up(machine, version))

    def _given_up(self, machine: Machine, version: int) -> None:
        core = self.cores[machine.index]
        if machine.hung and machine.job_version == version and core.lives.recycling is None:
            self.world.interrupt(machine, key_lost=False)
            core.lives.recycle(machine.life_id, RecycleHow.REPLACE, "stalled", verify=False)
