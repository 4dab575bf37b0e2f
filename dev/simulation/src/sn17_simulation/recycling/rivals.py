"""Caretakers without an operator and without a guard: each with every benefit of the doubt."""

from __future__ import annotations

from typing import Final

from sn17_simulation.recycling.case import IMPORTS, RESTARTED, WARM_UP
from sn17_simulation.recycling.machine import Machine, State
from sn17_simulation.recycling.world import Caretaker, World

PM2_INTERVAL: Final = 30.0
PM2_KILL: Final = 1.6
"""PM2's defaults: how often it looks, and what lies between its signal and the kill."""
WATCHDOG: Final = 300.0
"""A request that takes so long ends the process: the default time-out of common servers and clients."""
THRESHOLDS: Final = (0.4, 0.6, 0.75, 0.9, 0.95)


class Restarted(Caretaker):
    """kubelet starts what the kernel has killed."""

    name = "restart when killed (OOM)"

    def died(self, machine: Machine) -> None:
        """With kubelet's back-off; imports, weights and warm-up as ever, no canary."""
        case = self.world.case
        seconds = machine.back_off(self.world.now) + RESTARTED + IMPORTS + case.load_seconds + WARM_UP
        self.world.start(machine, seconds, machine.fresh_container)

    def hangs(self, machine: Machine) -> None:
        """The watchdog ends it."""
        version = machine.job_version
        self.world.at(self.world.now + WATCHDOG, lambda: self._bite(machine, version))

    def _bite(self, machine: Machine, version: int) -> None:
        if machine.hung and machine.job_version == version:
            self.world.kill(machine, "watchdog")


class Threshold(Restarted):
    """A process manager that looks at the memory and restarts at a threshold, without any back-off."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.name = "restart at a threshold (PM2)"

    def begin(self, world: World) -> None:
        super().begin(world)
        world.at(world.now + PM2_INTERVAL, self._look)

    def _look(self) -> None:
        world = self.world
        world.at(world.now + PM2_INTERVAL, self._look)
        for machine in world.machines:
            if machine.state is State.UP and machine.total >= self.threshold:
                world.result.note("restart")
                world.interrupt(machine)
                seconds = PM2_KILL + IMPORTS + world.case.load_seconds + WARM_UP
                world.start(machine, seconds, machine.fresh_container)


class SelfExit(Restarted):
    """A child process that ends itself after a job above a threshold; its parent keeps the imports."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.name = "self-exit after a job"

    def after_job(self, machine: Machine) -> None:
        world = self.world
        if machine.total >= self.threshold:
            world.result.note("self-exit")
            world.start(machine, world.case.load_seconds + WARM_UP, machine.fresh_container)
