"""The scheduler against simulated validators that keep their own ledger."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sn17_contract.tasks import Phase
from sn17_miner.core.learning import Learned
from sn17_miner.core.scheduler import (
    FreeWorker,
    Plan,
    Pull,
    Scheduler,
    SchedulerError,
)
from sn17_miner.core.timing import Timing
from sn17_protocol import Neuron

POLICY = Timing()
START = 1_700_000_000.0


def neuron(uid: int, *, hotkey: str | None = None, stake: float = 5000.0, port: int = 8000) -> Neuron:
    return Neuron(
        uid=uid, hotkey=hotkey or f"validator{uid}", ip="10.0.0.1", port=port, serving=True, stake=stake
    )


def scheduler(
    *neurons: Neuron, quarantine: frozenset[str] = frozenset(), always: frozenset[str] = frozenset()
) -> Scheduler:
    made = Scheduler(POLICY, Random(1), "miner", quarantine=quarantine, always=always)
    made.sync(START, neurons)
    return made


def one(plan: Plan) -> Pull:
    assert len(plan.pulls) == 1
    return plan.pulls[0]


FREE = [FreeWorker("w0", START)]


def test_no_worker_no_pull() -> None:
    assert scheduler(neuron(1)).plan(START, []).pulls == ()


def test_one_pull_per_free_worker_and_within_what_is_allowed() -> None:
    made = scheduler(*(neuron(n) for n in range(5)))
    workers = [FreeWorker(f"w{n}", START) for n in range(3)]
    assert made.plan(START, workers, allowed=2).pulls[1].worker == "w1"
    assert len(made.plan(START, workers).pulls) == 3
    assert made.plan(START, workers).pulls == ()


def test_wakes_just_after_the_cooldown_and_measures_the_idle_time() -> None:
    made = scheduler(neuron(1))
    one(made.plan(START, FREE))
    made.on_cooldown(START, "validator1", START + 100)
    plan = made.plan(START + 1, FREE)
    assert plan == Plan((), START + 100 + POLICY.cooldown_margin)
    assert made.plan(START + 100, FREE).pulls == ()
    pull = one(made.plan(START + 100.3, [FreeWorker("w0", START + 100.2)]))
    assert pull.idle == pytest.approx(0.3)
    assert pull.idle_while_free == pytest.approx(0.1)


def test_a_validator_whose_clock_is_behind_is_asked_later() -> None:
    made = scheduler(neuron(1))
    made.lanes["validator1"].learned.offset.learn(START, -8.0, -7.0)
    one(made.plan(START, FREE))
    made.on_cooldown(START, "validator1", START + 100)
    assert made.plan(START + 107.9, FREE).pulls == ()
    one(made.plan(START + 108.1, FREE))


def test_unregistered_is_retried_after_ten_minutes_not_an_hour() -> None:
    made = scheduler(neuron(1))
    one(made.plan(START, FREE))
    made.on_unregistered(START, "validator1", START + 3600)
    wake = made.plan(START, FREE).wake_at
    assert wake is not None
    assert 480 <= wake - START <= 720


def test_failures_back_off_with_jitter_and_a_task_forgives() -> None:
    made = scheduler(neuron(1))
    now, rests = START, []
    for _ in range(10):
        one(made.plan(now, FREE))
        made.on_pull_failed(now, "validator1")
        wake = made.plan(now, FREE).wake_at
        assert wake is not None
        rests.append(wake - now)
        now = wake
    assert rests[0] < 6.1
    assert rests[-1] > 200
    assert max(rests) <= POLICY.longest_rest * (1 + POLICY.jitter)
    assert len(set(rests)) == len(rests)
    one(made.plan(now, FREE))
    made.on_task(now, "validator1", "t")
    made.on_finished(now, "validator1", now + 300)
    assert made.lanes["validator1"].failures == 0


def test_a_new_hotkey_on_a_uid_starts_afresh_and_the_old_one_goes() -> None:
    made = scheduler(neuron(1, hotkey="old"))
    made.lanes["old"].learned.throttle = 99
    report = made.sync(START, [neuron(1, hotkey="new")])
    assert (report.added, report.removed) == (("new",), ("old",))
    assert made.lanes["new"].learned == Learned.fresh(POLICY)
    assert "old" not in made.lanes


def test_a_validator_that_leaves_keeps_its_lane_until_its_task_is_done() -> None:
    made = scheduler(neuron(1))
    one(made.plan(START, FREE))
    made.on_task(START, "validator1", "t")
    made.sync(START, [])
    assert made.lanes["validator1"].leaving
    made.on_finished(START, "validator1", START + 300)
    assert made.lanes == {}


def test_a_new_address_ends_the_rest_of_a_failing_validator() -> None:
    made = scheduler(neuron(1))
    one(made.plan(START, FREE))
    made.on_pull_failed(START, "validator1")
    assert made.sync(START + 0.1, [neuron(1, port=9000)]).moved == ("validator1",)
    one(made.plan(START + 0.1, FREE))


def test_quarantine_stake_and_self() -> None:
    made = scheduler(
        neuron(1),
        neuron(2, stake=10),
        neuron(3, stake=10),
        neuron(4, hotkey="miner"),
        quarantine=frozenset({"validator1"}),
        always=frozenset({"validator3"}),
    )
    assert set(made.lanes) == {"validator1", "validator3"}
    assert made.lanes["validator1"].phase is Phase.QUARANTINED
    pulls = made.plan(START, [FreeWorker("w0", START), FreeWorker("w1", START)]).pulls
    assert [pull.hotkey for pull in pulls] == ["validator3"]


def test_a_quarantined_validator_finishes_the_task_it_gave() -> None:
    made = scheduler(neuron(1), quarantine=frozenset({"validator1"}))
    made.resume(START, "validator1", "t")
    made.on_finished(START, "validator1", START + 1)
    assert made.plan(START + 10, FREE).pulls == ()


def test_events_out_of_order_are_refused() -> None:
    made = scheduler(neuron(1))
    with pytest.raises(SchedulerError):
        made.on_task(START, "validator1", "t")
    with pytest.raises(SchedulerError):
        made.on_finished(START, "validator1", START)


def test_who_has_waited_longest_goes_first_and_at_first_the_larger_stake() -> None:
    made = scheduler(neuron(1, stake=1000), neuron(2, stake=50_000))
    assert one(made.plan(START, FREE)).hotkey == "validator2"
    made.on_task(START, "validator2", "t")
    made.on_finished(START + 20, "validator2", START + 20)
    assert one(made.plan(START + 21, FREE)).hotkey == "validator1"
    made.on_task(START + 21, "validator1", "t")
    made.on_finished(START + 40, "validator1", START + 40)
    assert one(made.plan(START + 41, FREE)).hotkey == "validator2"


def test_who_drops_task_after_task_is_asked_less_and_less() -> None:
    made, now, rests = scheduler(neuron(1)), START, []
    for number in range(4):
        one(made.plan(now, FREE))
        made.on_task(now, "validator1", str(number))
        made.on_dropped(now, "validator1")
        rests.append(made.lanes["validator1"].wake_at - now)
        now = made.lanes["validator1"].wake_at
    assert rests[3] > 3 * rests[0]


def test_an_absurd_cooldown_is_obeyed_for_a_day() -> None:
    made = scheduler(neuron(1))
    one(made.plan(START, FREE))
    made.on_task(START, "validator1", "t")
    made.on_finished(START, "validator1", START + 1e8)
    assert made.lanes["validator1"].wake_at == START + POLICY.longest_cooldown + POLICY.cooldown_margin


# --- model ----------------------------------------------------------------------------------------


@dataclass
class Book:
    """What a real validator would know."""

    cooldown_until: float = 0.0
    task: str | None = None
    violations: int = 0
    last_pull: float = START
    ready_since: float = START


@dataclass
class Worker:
    since: float | None = START
    held_by: str | None = None


@dataclass
class World:
    ledger: dict[str, Book] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)


class SchedulerMachine(RuleBasedStateMachine):
    """Pulls are answered by validators that never forget a cooldown; workers come and go."""

    @initialize(validators=st.integers(1, 6), workers=st.integers(1, 3), seed=st.integers(0, 99))
    def start(self, validators: int, workers: int, seed: int) -> None:
        self.now, self.rng, self.count = START, Random(seed), 0
        self.scheduler = Scheduler(POLICY, Random(seed), "miner")
        self.world = World(
            {f"validator{n}": Book() for n in range(validators)}, {f"w{n}": Worker() for n in range(workers)}
        )
        self.scheduler.sync(self.now, [neuron(n, stake=1000.0 * (n + 1)) for n in range(validators)])
        self.pulling: dict[str, str] = {}
        self.passed_over: dict[str, int] = {}

    def _free(self) -> list[FreeWorker]:
        return [
            FreeWorker(name, w.since)
            for name, w in self.world.workers.items()
            if w.since is not None and w.held_by is None
        ]

    def _release(self, worker: str) -> None:
        self.world.workers[worker].held_by = None

    @rule()
    def plan(self) -> None:
        free = {worker.name for worker in self._free()}
        plan = self.scheduler.plan(self.now, self._free())
        assert len(plan.pulls) <= len(free)
        for pull in plan.pulls:
            assert pull.worker in free, "a pull without a free worker"
            free.discard(pull.worker)
            book = self.world.ledger[pull.hotkey]
            assert book.task is None, "a second task at one validator"
            assert self.now >= book.cooldown_until, "a pull during a cooldown"
            assert pull.hotkey not in self.pulling
            self.world.workers[pull.worker].held_by = pull.hotkey
            self.pulling[pull.hotkey] = pull.worker
            self.passed_over.pop(pull.hotkey, None)
        if plan.pulls:
            for hotkey, lane in self.scheduler.lanes.items():
                if lane.phase is Phase.READY and not lane.leaving:
                    self.passed_over[hotkey] = self.passed_over.get(hotkey, 0) + 1
        if plan.wake_at is not None:
            assert plan.wake_at > self.now

    @precondition(lambda self: self.pulling)
    @rule(
        data=st.data(),
        kind=st.sampled_from(["task", "task", "task", "cooldown", "none", "failed", "unregistered"]),
    )
    def answer(self, data: st.DataObject, kind: str) -> None:
        hotkey = data.draw(st.sampled_from(sorted(self.pulling)))
        worker, book = self.pulling.pop(hotkey), self.world.ledger[hotkey]
        if kind == "task":
            self.count += 1
            book.task = f"task{self.count}"
            self.scheduler.on_task(self.now, hotkey, book.task)
            return
        self._release(worker)
        if kind == "cooldown":
            book.cooldown_until = self.now + data.draw(st.integers(1, 900))
            self.scheduler.on_cooldown(self.now, hotkey, book.cooldown_until)
        elif kind == "none":
            self.scheduler.on_no_task(self.now, hotkey)
        elif kind == "failed":
            self.scheduler.on_pull_failed(self.now, hotkey)
        else:
            self.scheduler.on_unregistered(self.now, hotkey, self.now + 3600)

    def _holding(self) -> list[str]:
        return sorted(h for h, lane in self.scheduler.lanes.items() if lane.phase is Phase.BUSY)

    @precondition(lambda self: self._holding())
    @rule(
        data=st.data(),
        step=st.sampled_from(["finish", "finish", "dropped"]),
    )
    def advance(self, data: st.DataObject, step: str) -> None:
        hotkey = data.draw(st.sampled_from(self._holding()))
        book = self.world.ledger[hotkey]
        book.task = None
        for worker in self.world.workers.values():
            if worker.held_by == hotkey:
                worker.held_by = None
        if step == "dropped":
            self.scheduler.on_dropped(self.now, hotkey)
        else:
            book.cooldown_until = float(int(self.now + data.draw(st.sampled_from([270, 300, 900]))))
            self.scheduler.on_finished(self.now, hotkey, book.cooldown_until)

    @rule(data=st.data())
    def worker_comes_or_goes(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.world.workers)))
        worker = self.world.workers[name]
        worker.since = self.now if worker.since is None else None

    @rule(uid=st.integers(0, 5), change=st.sampled_from(["replace", "remove", "move"]))
    def metagraph(self, uid: int, change: str) -> None:
        """A sync: someone takes over a uid, someone is gone, someone moves."""
        current = {lane.neuron.uid: lane.neuron for lane in self.scheduler.lanes.values() if not lane.leaving}
        if uid not in current:
            return
        self.count += 1
        if change == "replace":
            current[uid] = neuron(uid, hotkey=f"newcomer{self.count}")
        elif change == "move":
            current[uid] = current[uid].model_copy(update={"port": 1000 + self.count % 5000})
        else:
            current[uid] = neuron(uid, hotkey=f"successor{self.count}", stake=1.0)
        held = set(self._holding()) | set(self.pulling)
        self.scheduler.sync(self.now, current.values())
        assert held <= set(self.scheduler.lanes), "a validator was dropped with a task or a call in hand"
        for hotkey in self.scheduler.lanes:
            self.world.ledger.setdefault(hotkey, Book())
        for hotkey in list(self.passed_over):
            if hotkey not in self.scheduler.lanes:
                del self.passed_over[hotkey]

    @rule(seconds=st.floats(0.01, 400))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def sleep_until_woken(self) -> None:
        wake = self.scheduler.plan(self.now, []).wake_at
        if wake is not None:
            self.now = wake

    @invariant()
    def nobody_starves(self) -> None:
        if hasattr(self, "passed_over"):
            # Weights differ by a factor of four at most, so whoever waits overtakes every newcomer after a
            # bounded number of turns.
            assert all(n <= 8 * len(self.world.ledger) for n in self.passed_over.values())

    @invariant()
    def books_agree(self) -> None:
        if hasattr(self, "scheduler"):
            for hotkey, lane in self.scheduler.lanes.items():
                assert (lane.phase is Phase.BUSY) == (self.world.ledger[hotkey].task is not None)


class TestScheduler(SchedulerMachine.TestCase):  # type: ignore[misc,valid-type]
    settings = settings(max_examples=40, stateful_step_count=60, deadline=None)


@pytest.mark.slow
@pytest.mark.skipif("SN17_LONG" not in os.environ, reason="the long form: make test-long")
class TestSchedulerLong(SchedulerMachine.TestCase):  # type: ignore[misc,valid-type]
    settings = settings(max_examples=1000, stateful_step_count=100, deadline=None)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_nobody_starves_when_workers_are_scarce(workers: int) -> None:
    """Eight validators, very unlike, always ready: each gets at least a tenth of an equal share."""
    made = scheduler(*(neuron(n, stake=1000.0 * 4**n) for n in range(8)))
    for _ in range(50):
        made.lanes["validator0"].learned.judge(accepted=False)
    made.lanes["validator0"].learned.delivered(500.0)
    pulls = dict.fromkeys(made.lanes, 0)
    now, rounds = START, 400
    for _ in range(rounds):
        plan = made.plan(now, [FreeWorker(f"w{n}", now) for n in range(workers)])
        now += 20
        for pull in plan.pulls:
            pulls[pull.hotkey] += 1
            made.on_task(now, pull.hotkey, "t")
            made.on_finished(now, pull.hotkey, now)
    assert min(pulls.values()) >= 0.1 * rounds * workers / 8
