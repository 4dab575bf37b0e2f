"""Arbitrary histories: leaks, fading, hangs, deaths, lost metrics, crashes of the operator, people's wishes.

Whatever happens: no action beyond the budget, none on unknown evidence, at most one recycle per incarnation,
every cordon ends within its clock; and once the faults stop, the fleet heals and then stays as it is.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)
from sn17_contract.worker import RecycleOutcome
from sn17_simulation.fleet.play import Simulation, spec_with
from sn17_simulation.fleet.worker import GUARD, SimWorker

LONG = bool(os.environ.get("SN17_LONG"))


logging.getLogger("sn17.operator").setLevel(logging.CRITICAL)


class FleetMachine(RuleBasedStateMachine):
    crashes = Bundle("crashes")

    @initialize(
        count=st.sampled_from([1, 2, 4, 5]),
        strategy=st.sampled_from(["Swap", "Swap", "RestartContainer", "EvictPod"]),
        guard=st.booleans(),
        lives=st.booleans(),
    )
    def build(self, count: int, strategy: str, guard: bool, lives: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self.sim = Simulation(count, spec_with(strategy=strategy), guard=guard, lives=lives)
        self.do(self.sim.run(8))

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(work)

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.settle()
            self.do(self.sim.controller.close())
            self.loop.close()

    def pick(self, index: int) -> SimWorker | None:
        workers = self.sim.workers
        return workers[index % len(workers)] if workers else None

    @rule(ticks=st.integers(1, 12))
    def pass_time(self, ticks: int) -> None:
        self.do(self.sim.run(ticks))

    @rule(index=st.integers(0, 9), memory=st.sampled_from([0.72, 0.82, 0.86, 0.92]), helps=st.booleans())
    def fill_memory(self, index: int, memory: float, helps: bool) -> None:
        if (worker := self.pick(index)) is not None:
            worker.memory, worker.cleanup_helps = max(worker.memory, memory), helps

    @rule(index=st.integers(0, 9), leak=st.sampled_from([0.0, 0.002, 0.008]))
    def leak(self, index: int, leak: float) -> None:
        if (worker := self.pick(index)) is not None:
            worker.leak = leak

    @rule(index=st.integers(0, 9), passes=st.booleans())
    def fade(self, index: int, passes: bool) -> None:
        if (worker := self.pick(index)) is not None:
            worker.gaussians, worker.canary_passes = 60_000.0, passes
            worker.generations = max(worker.generations, 9)

    @rule(index=st.integers(0, 9))
    def hang(self, index: int) -> None:
        if (worker := self.pick(index)) is not None and worker.job_until is not None:
            worker.hung = True

    @rule(index=st.integers(0, 9))
    def go_deaf(self, index: int) -> None:
        if (worker := self.pick(index)) is not None:
            worker.deaf = True

    @rule(index=st.integers(0, 9), reason=st.sampled_from(["OOMKilled", "Error"]))
    def die(self, index: int, reason: str) -> None:
        if (worker := self.pick(index)) is not None:
            self.sim.world.kill(worker, reason, 137)

    @rule(
        index=st.integers(0, 9),
        outcome=st.sampled_from(RecycleOutcome),
        room=st.booleans(),
        stuck=st.booleans(),
    )
    def trouble_swaps(self, index: int, outcome: RecycleOutcome, room: bool, stuck: bool) -> None:
        if (worker := self.pick(index)) is not None:
            worker.swap_outcome, worker.room, worker.stuck = outcome, room, stuck

    @rule(index=st.integers(0, 9), held=st.sampled_from([0.1, 0.4]))
    def leak_outside_of_the_model(self, index: int, held: float) -> None:
        if (worker := self.pick(index)) is not None:
            worker.held = held

    @rule(index=st.integers(0, 9))
    def break_the_device(self, index: int) -> None:
        if (worker := self.pick(index)) is not None:
            worker.device_broken, worker.canary_passes, worker.gaussians = True, False, 50_000.0
            worker.generations = max(worker.generations, 9)

    @rule(up=st.booleans())
    def prometheus(self, up: bool) -> None:
        self.sim.world.prometheus_up = up

    @rule(target=crashes, point=st.integers(0, 12), before=st.booleans())
    def crash_soon(self, point: int, before: bool) -> int:
        self.sim.host.crash_after, self.sim.host.crash_before_effect = point, before
        return point

    @rule(point=consumes(crashes))
    def no_crash(self, point: int) -> None:
        self.sim.host.crash_after = None

    @rule(blocked=st.booleans())
    def disruption_budget(self, blocked: bool) -> None:
        self.sim.world.budget_blocks_eviction = blocked

    @rule(rolling=st.booleans())
    def roll(self, rolling: bool) -> None:
        self.sim.world.rolling = rolling

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.sim.world.paused = "by hand" if paused else None

    @rule(index=st.integers(0, 9), lift=st.booleans())
    def cordon(self, index: int, lift: bool) -> None:
        if (worker := self.pick(index)) is not None:
            if lift:
                self.sim.lift(worker)
            elif worker.pod.user_cordon is None:
                self.sim.cordon(worker)

    @rule(index=st.integers(0, 9))
    def request(self, index: int) -> None:
        if (worker := self.pick(index)) is not None:
            self.sim.world.change(worker, recycle_requested="by hand")

    @precondition(lambda self: hasattr(self, "sim"))
    @invariant()
    def nothing_forbidden_happened(self) -> None:
        assert self.sim.world.violations == []

    def settle(self) -> None:
        """All faults end: what is sick is healed within hours, and then nothing happens any more."""
        world = self.sim.world
        world.prometheus_up, world.budget_blocks_eviction, world.rolling, world.paused = (
            True,
            False,
            False,
            None,
        )
        self.sim.host.crash_after = None
        for worker in self.sim.workers:
            worker.leak, worker.swap_outcome = 0.0, RecycleOutcome.DONE
            if worker.canary_passes:
                worker.gaussians = 350_000.0  # the small objects are over; a sick worker stays sick
            if worker.pod.user_cordon is not None:
                self.sim.lift(worker)
        self.do(self.sim.run(3 * 240))
        assert world.violations == []
        lost = sum(w.pod.history.failed is not None and not w.pod.ready for w in self.sim.workers)
        held = {w["name"] for w in world.status["workers"] if w.get("heldBackBy") == "BudgetExhausted"}
        assert not held or lost >= max(1, world.wanted * 25 // 100), f"{held} wait for a budget that is free"
        for worker in self.sim.workers:
            # Who was given up and is out of service eats the budget until a person comes, and that is said.
            if worker.pod.history.failed is not None or worker.pod.name in held:
                continue
            assert not worker.hung or worker.job_until is None, f"{worker.pod.name} still hangs"
            assert not worker.deaf, f"{worker.pod.name} is still deaf"
            full = GUARD if world.guard else 0.8
            assert worker.total < full, f"{worker.pod.name} is still full"
            assert worker.pod.intent is None, f"{worker.pod.name} is still being remediated"
            assert "operator" not in worker.leases
        exits, evictions, events = len(world.exits), world.evictions, len(world.events)
        self.do(self.sim.run(100))
        assert (len(world.exits), world.evictions, len(world.events)) == (exits, evictions, events), (
            "it oscillates"
        )


TestFleet = FleetMachine.TestCase
TestFleet.settings = settings(
    max_examples=300 if LONG else 12,
    stateful_step_count=40 if LONG else 20,
    deadline=None,
    # Shrinking hours of virtual time takes minutes: the long form does it.
    phases=list(Phase) if LONG else [Phase.explicit, Phase.reuse, Phase.generate],
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
