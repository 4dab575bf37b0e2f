"""How long a worker is left alone: a signed header, the least of all pollers, the idle swap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sn17_contract.leave_alone import FRESH_SECONDS, HEADER_LEAVE_ALONE, LeaveAlone, read_leave_alone
from sn17_trellis.left_alone import HEARD_SECONDS, LeftAlone
from sn17_trellis.model_process.room import Terms
from sn17_trellis.swap_policy import SwapPolicy

TOKEN = "correct horse"
NOW = 1_700_000_000
MIB = 1024 * 1024
NAMES = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)


class Clocks:
    def __init__(self) -> None:
        self.now = float(NOW)

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now - NOW


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def left_alone(clocks: Clocks) -> LeftAlone:
    return LeftAlone(lambda: TOKEN, clock=clocks.wall, monotonic=clocks.monotonic)


def word(seconds: int, poller: str = "miner", token: str = TOKEN, at: int = NOW) -> str:
    return LeaveAlone(poller, seconds, at).header(token)


@given(poller=NAMES, seconds=st.integers(0, 999_999), late=st.floats(-FRESH_SECONDS, FRESH_SECONDS))
def test_a_fresh_word_is_read_as_it_was_said(poller: str, seconds: int, late: float) -> None:
    said = LeaveAlone(poller, seconds, NOW)
    assert read_leave_alone(said.header(TOKEN), TOKEN, NOW + late) == said
    assert read_leave_alone(said.header("another"), TOKEN, NOW) is None
    assert read_leave_alone(said.header(TOKEN), TOKEN, NOW + FRESH_SECONDS + 1) is None
    assert read_leave_alone(said.header(TOKEN), TOKEN, NOW - FRESH_SECONDS - 1) is None


@given(text=st.text(max_size=200), place=st.integers(0, 200), letter=st.characters())
def test_what_was_not_signed_is_not_believed(text: str, place: int, letter: str) -> None:
    good = word(60)
    assert read_leave_alone(text, TOKEN, NOW) is None
    changed = good[: place % len(good)] + letter + good[place % len(good) + 1 :]
    assert read_leave_alone(changed, TOKEN, NOW) is None or changed == good


def test_the_least_of_all_pollers_counts_and_runs_down(left_alone: LeftAlone, clocks: Clocks) -> None:
    assert left_alone.seconds() is None
    left_alone.heard(word(300, "one"))
    left_alone.heard(word(100, "two"))
    left_alone.heard(word(1, "three", token="forged"))
    left_alone.heard(None)
    left_alone.heard("nonsense")
    assert left_alone.seconds() == 100
    clocks.now += 20
    assert left_alone.seconds() == 80
    left_alone.heard(word(500, "two", at=NOW + 20))
    assert left_alone.seconds() == 280
    clocks.now += HEARD_SECONDS
    assert left_alone.seconds() is None, "a poller that is silent may come at any moment"


def test_without_a_token_nothing_is_believed(clocks: Clocks) -> None:
    for token in (None, ""):
        nobody = LeftAlone(lambda token=token: token, clock=clocks.wall, monotonic=clocks.monotonic)
        nobody.heard(word(60, token=""))
        assert nobody.seconds() is None


def due(idle_for: float, alone_for: float | None) -> bool:
    terms = Terms(12_000 * MIB, 0.9, 2_600 * MIB, 3_000 * MIB, 10 * MIB, swap_seconds=30.0, job_seconds=3.0)
    policy = SwapPolicy(after_seconds=45, idle_seconds=20, random=lambda: 0.0)
    used = int(terms.half_way) + MIB
    return policy.due(terms, used, now=0.0, idle_for=idle_for, alone_for=alone_for) is not None


@pytest.mark.parametrize(
    ("idle_for", "alone_for", "swaps"),
    [
        (19.0, None, False),
        (20.0, None, True),
        (1.0, 30.0, True),
        (1.0, 29.0, False),
        (500.0, 29.0, False),
        (0.0, 300.0, False),
    ],
)
def test_idle_swap_goes_by_the_word_where_there_is_one(
    idle_for: float, alone_for: float | None, swaps: bool
) -> None:
    """A job at work (idle for 0 s) is never idle, whatever is said."""
    assert due(idle_for, alone_for) is swaps


def test_the_header_of_a_status_poll_reaches_the_worker(
    running: Any, wait_until: Callable[[Callable[[], object]], None]
) -> None:
    clock = running.service.clock
    running.data("GET", "/v1/worker", headers={HEADER_LEAVE_ALONE: word(60, at=int(clock()))})
    assert 50 < running.worker.left_alone.seconds() <= 60
    forged = word(5, "other", token="forged", at=int(clock()))
    assert running.data("GET", "/v1/worker", headers={HEADER_LEAVE_ALONE: forged}).status_code == 200
    assert running.worker.left_alone.seconds() > 50
