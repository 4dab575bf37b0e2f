"""Events, tasks and devices of one case; who looks after the workers is the caretaker's affair.

The miner's fleet decides which worker gets a task. Validators are an arrival of tasks here: at a load of 1
one is always waiting, below it they come at random, and each is the same in every arm.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from math import inf, log
from random import Random
from typing import Final

from sn17_contract.http import WorkerState
from sn17_contract.worker import WorkerStatus
from sn17_miner.core.fleet import Fleet

from sn17_simulation.recycling.case import (
    HANGS_EVERY,
    NOTICED,
    PATIENCE,
    SATURATED,
    WORKERS,
    Case,
    Fault,
    Result,
)
from sn17_simulation.recycling.machine import Machine, State, Task
from sn17_simulation.said import status_of

START: Final = 1_700_000_000.0
STALL: Final = 30.0
"""After so long without progress the miner gives a job up and tries elsewhere."""
ROLLED_OUT: Final = 0.25
"""Share of the run after which the bad checkpoint comes."""
IDLE_TICK: Final = 10.0


class Caretaker:
    """Looks after the workers. This one does nothing, ever: what the kernel kills stays dead."""

    name = "nothing"

    def begin(self, world: World) -> None:
        """Before the first event."""
        self.world = world

    def before_job(self, machine: Machine) -> WorkerState | None:
        """What a worker answers that refuses the job; None where it takes it."""
        return None

    def after_job(self, machine: Machine) -> None:
        """Between two jobs."""

    def idle(self, machine: Machine) -> None:
        """Every few seconds without a job."""

    def state(self, machine: Machine) -> WorkerState:
        """What a worker without a job says of itself."""
        return WorkerState.READY

    def died(self, machine: Machine) -> None:
        """The container has ended."""
        machine.state = State.GONE

    def hangs(self, machine: Machine) -> None:
        """A job will never end."""

    def device_full(self, machine: Machine) -> None:
        """A job ended without enough device memory; a single process ends with it."""
        self.world.kill(machine, "device")


def tasks(case: Case) -> Iterator[Task]:
    """The case's tasks, in order; which arm asks makes no difference."""
    rng = Random(f"{case.seed} tasks")
    rate = case.load * WORKERS / case.job_seconds
    at = START
    for number in count():
        if case.load < SATURATED:
            at -= log(1.0 - rng.random()) / rate
        hangs = case.fault is Fault.HUNG and number % HANGS_EVERY == HANGS_EVERY - 1
        size = 370_000.0 * rng.lognormvariate(0.0, 0.65)
        yield Task(number, at, rng.uniform(0.85, 1.15), rng.uniform(0.7, 1.3), size, hangs)


class World:
    """Runs one caretaker through one case."""

    def __init__(self, case: Case, caretaker: Caretaker) -> None:
        self.case, self.caretaker, self.now = case, caretaker, START
        self.end = START + case.seconds
        self.result = Result(caretaker.name, hours=case.seconds / 3600.0)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._tasks = tasks(case)
        self._next = next(self._tasks)
        self._again: deque[Task] = deque()
        self._queue: deque[Task] = deque()
        self._accounted = START
        self._said: dict[tuple[int, str, WorkerState], WorkerStatus] = {}
        self._tried: set[int] = set()
        self.machines = [Machine(case, index, started_at=START, progress=START) for index in range(WORKERS)]
        self.fleet = Fleet(stale_after=inf)
        self._by_url = {f"http://w{m.index}": m for m in self.machines}
        self.fleet.discovered(self._by_url, 0.0, forget=True)
        self._spread()
        caretaker.begin(self)
        for machine in self.machines:
            self.tell(machine)
            self.at(self.now + IDLE_TICK * (1 + machine.index / WORKERS), lambda m=machine: self._idle(m))  # type: ignore[misc]

    def _spread(self) -> None:
        """Workers do not start together, except where lockstep is the fault."""
        rng = Random(f"{self.case.seed} start")
        for machine in self.machines:
            part = 0.5 if self.case.fault is Fault.LOCKSTEP else rng.random()
            if self.case.leak:
                machine.model += 0.25 * part
        self.machines[0].bad_card = self.case.fault is Fault.BAD_CARD

    def run(self) -> Result:
        """The whole of it."""
        self._arrivals()
        self.dispatch()
        while self._events:
            at, _, what = heapq.heappop(self._events)
            if at > self.end:
                break
            self._account(at)
            self.now = at
            what()
        self._account(self.end)
        return self.result

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Have something happen."""
        heapq.heappush(self._events, (when, next(self._order), what))

    # --- work ---------------------------------------------------------------------------------------

    @property
    def waiting(self) -> float:
        """Tasks that wait for a worker."""
        if self.case.load >= SATURATED:
            return inf
        return len(self._queue) + len(self._again)

    def _account(self, until: float) -> None:
        """Device seconds in which work waited and a device was at none."""
        waiting = self.waiting
        if waiting:
            without = sum(m.job is None for m in self.machines)
            self.result.lost += (until - self._accounted) * min(waiting, without)
        self._accounted = until

    def _arrivals(self) -> None:
        if self.case.load >= SATURATED:
            return
        while self._next.arrives <= self.now:
            self._queue.append(self._next)
            self._next = next(self._tasks)
        self.at(self._next.arrives, self._arrived)

    def _arrived(self) -> None:
        self._arrivals()
        self.dispatch()

    def _take(self) -> Task | None:
        """The task that has waited longest and is not too late."""
        if self._again:
            return self._again.popleft()
        if self.case.load >= SATURATED:
            task, self._next = self._next, next(self._tasks)
            return task
        while self._queue:
            task = self._queue.popleft()
            if self.now - task.arrives <= PATIENCE:
                return task
            self.result.missed += 1
        return None

    def dispatch(self) -> None:
        """Give tasks to free workers, as the miner does."""
        while self.waiting:
            for worker in self.fleet.free(self.now):
                machine = self._by_url[worker.url]
                refusal = self.caretaker.before_job(machine)
                if refusal is None:
                    break
                self.fleet.refused(worker.url, refusal, self.now)
            else:
                return
            task = self._take()
            if task is None:
                return
            self._begin(machine, task)

    def _begin(self, machine: Machine, task: Task) -> None:
        delay = max(0.0, machine.turn_until - self.now)
        self.result.lost += delay
        machine.job, machine.job_began = task, self.now + delay
        machine.job_version += 1
        version = machine.job_version
        self.tell(machine)
        if task.hangs and task.number not in self._tried:
            self._tried.add(task.number)
            machine.hung = True
            self.at(machine.job_began + STALL, lambda: self._moved_on(machine, version, task))
            self.caretaker.hangs(machine)
            return
        seconds = self.case.job_seconds * task.length
        self.at(machine.job_began + seconds, lambda: self._ended(machine, version, task))

    def _moved_on(self, machine: Machine, version: int, task: Task) -> None:
        """The miner gives a job without progress up and takes it elsewhere; the worker goes on hanging."""
        if machine.job_version == version and machine.job is task:
            self._again.append(task)
            self.dispatch()

    def _ended(self, machine: Machine, version: int, task: Task) -> None:
        if machine.job is not task or machine.job_version != version:
            return
        rolled = self.case.fault is Fault.BAD_ROLLOUT and self.now > START + ROLLED_OUT * self.case.seconds
        chance = machine.finish(task, self.now, rolled_out=rolled)
        machine.progress = machine.free_since = self.now
        if machine.over:
            self.kill(machine, "oom")
            return
        if machine.device >= 1.0:
            self.interrupt(machine)
            self.caretaker.device_full(machine)
            return
        machine.job = None
        self.result.jobs += 1
        self.result.accepted += chance
        self.caretaker.after_job(machine)
        self.tell(machine)
        self.dispatch()

    def interrupt(self, machine: Machine, *, key_lost: bool = True) -> None:
        """The job at work comes to nothing; it is begun again elsewhere."""
        task, machine.job = machine.job, None
        machine.job_version += 1
        if task is None:
            return
        self.result.lost += max(0.0, self.now - machine.job_began)
        if machine.hung:
            machine.hung = False
            return
        self.result.interrupted += 1
        self.result.keys_lost += key_lost
        self.at(self.now + NOTICED, lambda: self._retry(task))

    def _retry(self, task: Task) -> None:
        self._again.append(task)
        self.dispatch()

    # --- workers ------------------------------------------------------------------------------------

    def tell(self, machine: Machine) -> None:
        """The miner hears what the worker says of itself."""
        url = f"http://w{machine.index}"
        if machine.state is not State.UP:
            said = WorkerState.WARMING
        elif machine.job is not None:
            said = WorkerState.BUSY
        else:
            said = self.caretaker.state(machine)
        key = machine.index, machine.life_id, said
        status = self._said.get(key)
        if status is None:
            status = self._said[key] = status_of(
                url, said, ("text", "image"), boot_id=machine.boot_id, life_id=machine.life_id
            )
        self.fleet.observe(url, status, self.now)

    def _idle(self, machine: Machine) -> None:
        self.at(self.now + IDLE_TICK, lambda: self._idle(machine))
        if machine.state is State.UP and machine.job is None:
            self.caretaker.idle(machine)

    def kill(self, machine: Machine, why: str) -> None:
        """The container ends at once."""
        self.result.oom_kills += why == "oom"
        self.result.note(f"killed: {why}" if why != "oom" else "killed")
        self.interrupt(machine)
        machine.second = 0.0
        machine.state = State.STARTING
        self.caretaker.died(machine)
        self.tell(machine)

    def start(self, machine: Machine, seconds: float, renew: Callable[[float], None]) -> None:
        """Nothing serves for so long; then what ``renew`` makes anew does."""
        machine.state = State.STARTING
        machine.job_version += 1
        version = machine.job_version
        self.tell(machine)

        def ready() -> None:
            if machine.job_version != version:
                return
            renew(self.now)
            machine.state, machine.free_since = State.UP, self.now
            if machine.over:
                self.kill(machine, "oom")
                return
            self.tell(machine)
            self.dispatch()

        self.at(self.now + seconds, ready)
