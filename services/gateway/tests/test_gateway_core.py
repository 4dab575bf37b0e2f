"""The decisions about one task, about limits and about turns, for any course of events."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sn17_contract.gateway import KeyKind
from sn17_gateway.core.limits import (
    Allowance,
    FixedWindow,
    OverLimit,
    UnknownKeys,
    Usage,
    admit,
    day_start,
)
from sn17_gateway.core.model import NEVER, Asset, State, Task, Worker
from sn17_gateway.core.selection import interleave, turns
from sn17_gateway.core.tasks import (
    TIMED_OUT,
    Refused,
    ended_at,
    find_delivery,
    finish,
    free_at,
    hand_out,
    offered,
    over,
    results,
    status,
)

LEASE = 20.0
LIFE = 100.0
KEEP = 30.0
ASSET = Asset("0.result", 1, "00")


def new_task(slots: int = 1, tags: frozenset[str] = frozenset(), now: float = 0.0) -> Task:
    return Task(
        id="t", model="404-3dgs", prompt="a red robot", image=None, seed=1, params=None, tags=tags,
        owner=None, address="192.0.2.1", origin="api", slots=slots, created_at=now, expires_at=now + LIFE,
    )  # fmt: skip


class OneTask(RuleBasedStateMachine):
    """A task among five hotkeys with two workers each, on a clock that only goes forward."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.task = new_task()
        self.token = 0
        self.lapsed = False

    @rule(slots=st.integers(1, 4))
    @precondition(lambda self: not self.task.deliveries and self.now == 0)
    def wants(self, slots: int) -> None:
        self.task = dataclasses.replace(self.task, slots=slots)

    @rule(seconds=st.floats(0.5, LIFE / 3))
    def waits(self, seconds: float) -> None:
        self.now += seconds

    @rule(hotkey=st.integers(0, 4), worker_id=st.sampled_from("ab"))
    def pulls(self, hotkey: int, worker_id: str) -> None:
        worker = Worker(f"h{hotkey}", worker_id)
        if not offered(self.task, worker, self.now):
            with pytest.raises(ValueError, match="not offered"):
                hand_out(self.task, worker, "x", self.now, LEASE)
            return
        assert not any(d.hotkey == worker.hotkey and d.live(self.now) for d in self.task.deliveries)
        self.token += 1
        self.task = hand_out(self.task, worker, str(self.token), self.now, LEASE)

    @rule(
        hotkey=st.integers(0, 4),
        worker_id=st.sampled_from("ab"),
        token=st.none() | st.integers(1, 6),
        success=st.booleans(),
    )
    def answers(self, hotkey: int, worker_id: str, token: int | None, success: bool) -> None:
        worker = Worker(f"h{hotkey}", worker_id)
        wanted = None if token is None else str(token)
        found = find_delivery(self.task, worker, wanted, self.now)
        if over(self.task, self.now):
            assert found is Refused.GONE
        if isinstance(found, Refused):
            return
        assert (found.hotkey, found.worker_id) == (worker.hotkey, worker_id)
        assert wanted in (None, found.token)
        before = self.task
        self.task = finish(self.task, found.token, ASSET if success else "it broke", self.now)
        assert len(self.task.finished) == len(before.finished) + 1
        again = find_delivery(self.task, worker, found.token, self.now)
        assert again is (Refused.GONE if self.task.complete else Refused.NOT_ASSIGNED)
        with pytest.raises(ValueError, match="ended already"):
            finish(self.task, found.token, ASSET, self.now)

    @invariant()
    def slots_are_never_exceeded(self) -> None:
        live = sum(d.live(self.now) for d in self.task.deliveries)
        assert len(self.task.finished) <= self.task.slots
        assert live <= self.task.slots
        finished = Counter(d.hotkey for d in self.task.finished)
        assert [d.number for d in self.task.finished] == list(range(1, sum(finished.values()) + 1))

    @invariant()
    def free_at_is_the_first_moment_with_a_slot(self) -> None:
        moment = free_at(self.task, self.now)
        fresh = Worker("somebody else", "w")
        lasting = dataclasses.replace(self.task, expires_at=math.inf)
        if moment is NEVER:
            assert self.task.complete
            return
        assert offered(lasting, fresh, max(moment, self.now))
        if moment > self.now:
            assert not offered(lasting, fresh, self.now)
            assert not offered(lasting, fresh, math.nextafter(moment, 0))

    @invariant()
    def the_status_tells_what_is(self) -> None:
        told = status(self.task, self.now)
        successes = self.task.successes
        if over(self.task, self.now):
            assert told.state is (State.SUCCESS if successes else State.FAILURE)
            if told.state is State.FAILURE:
                assert told.reason == ("it broke" if self.task.complete else TIMED_OUT)
            else:
                assert told.worker_id == successes[0].worker_id
        elif self.task.finished:
            assert self.task.slots > 1
            assert (told.state, told.successes) == (State.PARTIAL, len(successes))
        else:
            live = any(d.live(self.now) for d in self.task.deliveries)
            assert told.state is (State.IN_PROGRESS if live else State.NO_RESULT)

    @invariant()
    def results_stay_while_they_are_kept(self) -> None:
        kept = results(self.task, self.now, KEEP)
        if self.now < ended_at(self.task) + KEEP:
            assert kept == self.task.successes
        else:
            assert kept == ()


TestOneTask = OneTask.TestCase
TestOneTask.settings = settings(deadline=None)


def test_a_lease_that_ends_gives_the_task_back_to_the_same_hotkey_too() -> None:
    worker = Worker("h", "w")
    task = hand_out(new_task(), worker, "1", 0.0, LEASE)
    assert not offered(task, worker, LEASE - 1)
    assert offered(task, worker, LEASE)
    again = hand_out(task, worker, "2", LEASE, LEASE)
    found = find_delivery(again, worker, "1", LEASE + 1)
    assert not isinstance(found, Refused)
    assert finish(again, found.token, ASSET, LEASE + 1).complete, "a late result counts"


@pytest.mark.parametrize(
    ("task_tags", "worker_tags", "yes"),
    [("", "", True), ("", "a", False), ("ab", "", False), ("ab", "bc", True), ("ab", "c", False)],
)
def test_tags(task_tags: str, worker_tags: str, yes: bool) -> None:
    task = new_task(tags=frozenset(task_tags))
    assert offered(task, Worker("h", "w", frozenset(worker_tags)), 0.0) is yes


def test_an_unknown_task_looks_like_one_that_waits() -> None:
    assert status(None, 0.0).state is State.NO_RESULT
    assert find_delivery(None, Worker("h", "w"), None, 0.0) is Refused.GONE


MODELS = st.lists(st.sampled_from("abcd"), max_size=6)


@settings(deadline=None)
@given(MODELS, st.sampled_from("abcd") | st.none())
def test_turns_begin_behind_the_last_one(models: list[str], last: str | None) -> None:
    order = turns(models, last)
    assert sorted(order) == sorted(set(models))
    if last in models:
        assert order[-1] == last


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(), max_size=5)), st.integers(0, 12))
def test_interleave_is_fair_and_keeps_each_queue_in_order(waiting: dict[str, list[int]], count: int) -> None:
    order = sorted(waiting)
    labelled = {model: [(model, n) for n in range(len(waiting[model]))] for model in order}
    taken = interleave(order, labelled, count)
    assert len(taken) == min(count, sum(map(len, waiting.values())))
    shares = Counter(model for model, _ in taken)
    for model in order:
        assert [n for m, n in taken if m == model] == list(range(shares[model]))
        for other in order:
            if shares[other] < len(waiting[other]):
                assert shares[model] <= shares[other] + 1


@settings(deadline=None)
@given(st.lists(st.floats(0, 50), max_size=60), st.integers(1, 5))
def test_a_window_lets_its_limit_through(steps: list[float], limit: int) -> None:
    window, now, passed = FixedWindow(limit, 60.0), 0.0, Counter[int]()
    for number, step in enumerate(steps):
        now += step
        wait = window.take("a", now)
        if wait is None:
            passed[int(now // 60)] += 1
        else:
            assert passed[int(now // 60)] == limit
            assert 0 < wait <= 60
            assert int((now + wait) // 60 + 1e-9) == int(now // 60) + 1
        assert window.take(f"other {number}", now) is None
    assert all(count <= limit for count in passed.values())


def test_no_limit_is_no_limit() -> None:
    window = FixedWindow(0, 60.0)
    assert all(window.take("a", 0.0) is None for _ in range(1000))


def test_the_fiftieth_unknown_key_blocks_for_a_while() -> None:
    guard = UnknownKeys(50, 600.0, 300.0)
    assert [guard.missed("a", float(n)) for n in range(49)] == [None] * 49
    assert guard.blocked("a", 49.0) is None
    assert guard.missed("a", 49.0) == 300.0
    assert guard.blocked("a", 50.0) == 299.0
    assert guard.blocked("b", 50.0) is None
    assert guard.blocked("a", 349.0) is None


def test_misses_far_apart_never_block() -> None:
    guard = UnknownKeys(2, 600.0, 300.0)
    assert [guard.missed("a", 600.0 * n) for n in range(10)] == [None] * 10


@pytest.mark.parametrize(
    ("allowance", "usage", "limit"),
    [
        (Allowance(KeyKind.GENERIC, 2, 250, 10), Usage(1, 249, 9), None),
        (Allowance(KeyKind.GENERIC, 2, 250, 10), Usage(2, 0, 0), OverLimit.CONCURRENT),
        (Allowance(KeyKind.GENERIC, 2, 250, 10), Usage(0, 250, 0), OverLimit.DAILY),
        (Allowance(KeyKind.GENERIC, 2, 250, 10), Usage(0, 20, 10), OverLimit.DAILY),
        (Allowance(KeyKind.COMPANY, 0, 0), Usage(10**6, 10**6, 10**6), None),
    ],
)
def test_allowances(allowance: Allowance, usage: Usage, limit: OverLimit | None) -> None:
    assert admit(allowance, usage) is limit


def test_a_company_counts_by_utc_day_and_guests_by_24_hours() -> None:
    now = 20_000 * 86_400 + 3600.0
    assert day_start(KeyKind.COMPANY, now) == 20_000 * 86_400
    assert day_start(KeyKind.GENERIC, now) == now - 86_400
