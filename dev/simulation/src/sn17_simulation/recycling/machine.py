"""A worker and its device: memory by whom it is held, the job at work, what a fresh process needs."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from sn17_simulation.recycling.case import (
    BAD_CARD_ACCEPTANCE,
    BASE_ACCEPTANCE,
    FADE,
    FADED_LEAST,
    OTHER_LEAK,
    ROLLED_OUT_PART,
    ROLLED_OUT_SIZE,
    SERVICE,
    Case,
    Fault,
)

RECENT_SECONDS = 1800.0


class State(StrEnum):
    """Whether it can take a job."""

    UP = "up"
    STARTING = "starting"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Task:
    """One task, the same in every arm."""

    number: int
    arrives: float
    length: float
    """Times the case's job seconds."""
    leak: float
    """Times the case's leak."""
    gaussians: float
    hangs: bool


@dataclass(slots=True)
class Machine:
    """Worker number ``index``. Memory in shares of the limit."""

    case: Case
    index: int
    service: float = SERVICE
    tmpfs: float = 0.0
    left_over: float = 0.0
    """What memory-backed volumes hold that an earlier container wrote: it is charged to the pod alone."""
    model: float = 0.0
    second: float = 0.0
    device: float = 0.4
    """Share of the device's memory."""
    state: State = State.UP
    pod: int = 0
    boot: int = 0
    life: int = 0
    started_at: float = 0.0
    generations: int = 0
    factor: float = 1.0
    """What is left of an asset's gaussians."""
    canary_factor: float = 1.0
    """The same at the latest canary."""
    bad_card: bool = False
    job: Task | None = None
    job_began: float = 0.0
    job_version: int = 0
    hung: bool = False
    turn_until: float = 0.0
    """The device is another process's until then."""
    progress: float = 0.0
    recent: deque[tuple[float, float, float]] = field(default_factory=deque)
    free_since: float = 0.0
    ends: list[float] = field(default_factory=list)
    """When containers ended, for kubelet's back-off."""

    def __post_init__(self) -> None:
        self.model = self.case.ballast

    @property
    def total(self) -> float:
        """What the container holds, with the tmpfs that it wrote itself."""
        return self.service + self.tmpfs + self.model + self.second

    @property
    def over(self) -> bool:
        """The kernel has no more to give: a pod of one container has that container's limit."""
        return self.total + self.left_over >= 1.0

    @property
    def boot_id(self) -> str:
        return f"b{self.pod}.{self.boot}"

    @property
    def life_id(self) -> str:
        return f"{self.boot_id}.{self.life}"

    def finish(self, task: Task, now: float, *, rolled_out: bool) -> float:
        """The job leaves behind what it leaks. Returns the asset's chance to be accepted."""
        case = self.case
        self.model += case.leak * task.leak
        if case.fault is Fault.SERVICE_LEAK:
            self.service += OTHER_LEAK * task.leak
        elif case.fault is Fault.TMPFS_LEAK:
            self.tmpfs += OTHER_LEAK * task.leak
        elif case.fault is Fault.DEVICE_LEAK:
            self.device += OTHER_LEAK * task.leak
        elif case.fault is Fault.FADING:
            self.factor = max(FADED_LEAST, self.factor * FADE)
        elif case.fault is Fault.FADING_LEAK:
            fullness = min(1.0, max(0.0, (self.total - 0.4) / 0.4))
            self.factor = 1.0 - (1.0 - FADED_LEAST) * fullness
        self.generations += 1
        size = task.gaussians * self.factor * (ROLLED_OUT_SIZE if rolled_out else 1.0)
        self.recent.append((now, size, case.job_seconds * task.length))
        while self.recent and self.recent[0][0] < now - RECENT_SECONDS:
            self.recent.popleft()
        chance = BASE_ACCEPTANCE * self.factor
        if self.bad_card:
            chance *= BAD_CARD_ACCEPTANCE
        return chance * (ROLLED_OUT_PART if rolled_out else 1.0)

    def fresh_process(self, now: float) -> None:
        """Another model process serves."""
        self.life += 1
        self.model, self.device = self.case.ballast, 0.4
        self.factor = self.canary_factor = 1.0
        self.generations, self.hung = 0, False
        self.recent.clear()
        self.progress = now

    def fresh_container(self, now: float) -> None:
        """Another service process too; memory-backed volumes stay."""
        self.boot += 1
        self.left_over, self.tmpfs = self.left_over + self.tmpfs, 0.0
        self.life = -1
        self.service, self.second = SERVICE, 0.0
        self.started_at = now
        self.fresh_process(now)

    def fresh_pod(self, now: float) -> None:
        """Nothing of the old one is left, except its device."""
        self.pod += 1
        self.boot, self.tmpfs, self.left_over = -1, 0.0, 0.0
        self.ends.clear()
        self.fresh_container(now)

    def back_off(self, now: float) -> float:
        """Seconds that kubelet waits: none, then 10 s doubling to 5 min; 10 min of running end that."""
        if now - self.started_at > 600.0:
            self.ends.clear()
        self.ends.append(now)
        count = len(self.ends) - 1
        return 0.0 if count == 0 else min(300.0, 10.0 * math.pow(2.0, count - 1))
