"""The worker's memory guard, its self-recycle, and what a generation adds to memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sn17_service import MemoryReading
from sn17_trellis.guard import Guard, Headroom, SelfRecycle, Thresholds

LIMIT = 1000


class GuardMachine(RuleBasedStateMachine):
    """Memory that leaks, is cached and is freed, at any level, with checks at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.leaked = 100
        self.cached = 0
        self.cleanups = 0
        self.guard = Guard(
            Thresholds(0.75, 0.88),
            enabled=True,
            read=lambda: MemoryReading(self.leaked + self.cached, 0, LIMIT, {}),
            cleanup=self.clean,
            monotonic=lambda: self.now,
        )

    def clean(self) -> None:
        self.cleanups += 1
        self.cached = 0

    @rule(amount=st.integers(-300, 300))
    def leak(self, amount: int) -> None:
        self.leaked = max(0, self.leaked + amount)

    @rule(amount=st.integers(0, 500))
    def cache(self, amount: int) -> None:
        self.cached += amount

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(clean=st.booleans())
    def check(self, clean: bool) -> None:
        level, cleanups = (self.leaked + self.cached) / LIMIT, self.cleanups
        since = self.guard.refusing_since
        refused = self.guard.check(clean=clean)
        assert (self.cleanups > cleanups) == (clean and level >= 0.75)
        assert (refused is not None) == ((self.leaked + self.cached) / LIMIT >= 0.88)
        expected = since if since is not None else self.now
        assert self.guard.refusing_since == (expected if refused is not None else None)

    @invariant()
    def time_is_sane(self) -> None:
        assert self.guard.refusing_since is None or self.guard.refusing_since <= self.now


TestGuard = GuardMachine.TestCase
TestGuard.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize(
    ("enabled", "reading"),
    [
        (True, None),
        (True, MemoryReading(10**12, 0, None, {})),
        (False, MemoryReading(LIMIT, 0, LIMIT, {})),
    ],
)
def test_unknown_memory_no_limit_and_a_guard_that_is_off_never_refuse(
    enabled: bool, reading: MemoryReading | None
) -> None:
    guard = Guard(
        Thresholds(0.75, 0.88),
        enabled=enabled,
        read=lambda: reading,
        cleanup=lambda: None,
        monotonic=lambda: 0,
    )
    assert guard.check() is None


def test_a_guard_without_a_limit_says_that_it_does_nothing(caplog: pytest.LogCaptureFixture) -> None:
    limits = [None, None, LIMIT, LIMIT, None]
    guard = Guard(
        Thresholds(0.75, 0.88),
        enabled=True,
        read=lambda: MemoryReading(1, 0, limits.pop(0), {}),
        cleanup=lambda: None,
        monotonic=lambda: 0,
    )
    with caplog.at_level("INFO", "sn17.trellis.guard"):
        while limits:
            guard.check()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]
    assert "SN17_MEMORY_LIMIT_BYTES" in caplog.records[0].message


def test_a_self_recycle_waits_and_happens_once_per_interval_across_restarts(tmp_path: Path) -> None:
    now = [10_000.0]

    def book() -> SelfRecycle:
        return SelfRecycle(
            tmp_path / "book.json", after_seconds=600, interval_seconds=1800, clock=lambda: now[0]
        )

    first = book()
    assert not first.due(599, refusing=True)
    assert not first.due(9999, refusing=False)
    assert first.due(600, refusing=True)
    again = book()
    assert again.count == 1
    assert not again.due(600, refusing=True)
    now[0] += 1799
    assert not again.due(600, refusing=True)
    now[0] += 1
    assert again.due(600, refusing=True)
    assert book().count == 2


def test_one_whose_last_end_helped_ends_again_as_soon_as_memory_is_full(tmp_path: Path) -> None:
    now = [10_000.0]
    path = tmp_path / "book.json"

    def book() -> SelfRecycle:
        return SelfRecycle(path, after_seconds=600, interval_seconds=900, clock=lambda: now[0])

    assert book().due(600, refusing=True, leaks=True)
    now[0] += 200
    cured = book()
    assert not cured.due(600, refusing=True, leaks=True), "nothing was made since"
    cured.helped()
    assert not cured.due(600, refusing=True), "a broken device or a full volume is another matter"
    assert cured.due(600, refusing=True, leaks=True)
    assert not cured.due(600, refusing=True, leaks=True)
    assert book().count == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"count": "x", "last": 1}', '{"count": 3}'])
def test_a_damaged_book_is_started_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "book.json"
    path.write_text(content)
    book = SelfRecycle(path, after_seconds=1, interval_seconds=1800, clock=lambda: 0.0)
    assert book.count == 0
    assert book.due(2, refusing=True)


def test_a_clock_that_jumped_back_does_not_forbid_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "book.json"
    path.write_text('{"count": 1, "last": 999999999999}')
    assert SelfRecycle(path, after_seconds=1, interval_seconds=1800, clock=lambda: 0.0).due(2, refusing=True)


class Levels:
    """A guard over levels of memory that a test sets."""

    def __init__(self) -> None:
        self.used, self.now, self.cleanups, self.resting = 0, 0.0, 0, False
        self.guard = Guard(
            Thresholds(0.75, 0.88),
            enabled=True,
            read=lambda: MemoryReading(self.used, 0, LIMIT, {}),
            cleanup=self.clean,
            monotonic=lambda: self.now,
            resting=lambda: self.resting,
        )

    def clean(self) -> None:
        self.cleanups += 1

    def refuses(self, used: int, now: float = 0.0) -> bool:
        self.used, self.now = used, now
        return self.guard.check() is not None


@pytest.mark.parametrize(
    ("used", "cleanups", "refuses"),
    [(749, 0, False), (750, 1, False), (879, 1, False), (880, 1, True), (1000, 1, True)],
)
def test_a_threshold_is_reached_at_its_value(used: int, cleanups: int, refuses: bool) -> None:
    levels = Levels()
    assert levels.refuses(used) == refuses
    assert levels.cleanups == cleanups


def test_refusing_starts_anew_after_memory_came_back() -> None:
    """Its length decides on a self-recycle: an old start would end a worker that refused only now."""
    levels = Levels()
    assert levels.refuses(900, now=10.0)
    assert levels.refuses(900, now=20.0)
    assert levels.guard.refusing_since == 10.0
    assert not levels.refuses(500, now=30.0)
    assert levels.guard.refusing_since is None
    assert levels.refuses(900, now=4000.0)
    assert levels.guard.refusing_since == 4000.0


def test_nothing_is_refused_or_cleaned_while_two_model_processes_live() -> None:
    levels = Levels()
    levels.resting = True
    assert not levels.refuses(1000)
    assert levels.cleanups == 0
    levels.resting = False
    assert levels.refuses(1000)


def test_a_self_recycle_whose_book_cannot_be_written_still_happens_once(tmp_path: Path) -> None:
    """A full disk forgets the time across a restart only: within one life the interval holds."""
    now = [10_000.0]
    book = SelfRecycle(
        tmp_path / "no such folder" / "book.json",
        after_seconds=600,
        interval_seconds=1800,
        clock=lambda: now[0],
    )
    assert book.due(600, refusing=True)
    assert not book.due(9999, refusing=True)
    now[0] += 1800
    assert book.due(600, refusing=True)


@pytest.mark.parametrize(
    ("peak", "level", "worst"),
    [(300, "INFO", 0.98), (320, "WARNING", 1.0), (50, "INFO", 0.9)],
    ids=["fits", "reaches the limit", "never below the first step"],
)
def test_headroom_is_the_highest_growth_of_a_generation(
    peak: int, level: str, worst: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory falls again before the last step: its last level says nothing of the peak."""
    used = [200, 220, peak, 210, 210]
    headroom = Headroom(lambda: MemoryReading(used.pop(0), 0, LIMIT, {}))
    with caplog.at_level("INFO", "sn17.trellis.guard"):
        for _ in range(3):
            headroom.look()
        headroom.say(0.88)
    (record,) = caplog.records
    assert record.levelname == level
    assert vars(record)["worst_ratio"] == pytest.approx(worst)
