"""A device is shared by turns: who holds it, who waits, and how a process that is made ready yields."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sn17_trellis.device_turn import DeviceTurn, Spent
from sn17_trellis.model_process.messages import Turns
from sn17_trellis.model_process.room import ASKED_SHARE, GENTLE_SHARE, Measures, Terms, turn_seconds

MIB = 1024 * 1024


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_was_held_is_added_up_over_turns_and_offers(tmp_path: Path) -> None:
    clock = Clock()
    turn = DeviceTurn(tmp_path / "lock", clock)
    spent = Spent(turn)
    with turn:
        clock.now += 2
        turn.offer()
        clock.now += 3
    clock.now += 100
    with turn:
        clock.now += 1
    assert (spent.held, spent.waited) == (6, 0)
    assert Spent(turn).held == 0
    turn.close()


def test_it_is_offered_only_after_it_was_held_for_long_enough(tmp_path: Path) -> None:
    """Another process that waits gets it at an offer, and not before."""
    clock = Clock()
    turn = DeviceTurn(tmp_path / "lock", clock)
    waits = (
        "import fcntl, os, sys; f = os.open(sys.argv[1], os.O_RDWR); print('waits', flush=True);"
        "fcntl.flock(f, fcntl.LOCK_EX); print('has it', flush=True); sys.stdin.read()"
    )
    with turn:
        other = subprocess.Popen(
            [sys.executable, "-c", waits, str(tmp_path / "lock")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "waits\n"
        clock.now += 0.9
        turn.offer(1.0)
        assert not DeviceTurn(tmp_path / "lock").try_enter(), "it is still held"
        other.stdin.close()
        clock.now += 0.2
        turn.offer(1.0)
    assert other.stdout.readline() == "has it\n"
    assert other.wait(30) == 0
    other.stdout.close()
    turn.close()


@pytest.mark.parametrize(("elapsed", "held"), [(0.0, 0.3), (9.9, 0.3), (10.0, 3.0), (100.0, 3.0)])
def test_patience_has_an_end(elapsed: float, held: float) -> None:
    assert Turns(hold_seconds=0.3, patient_seconds=10, hurried_seconds=3).at(elapsed) == held


@given(
    seconds=st.floats(0.1, 600),
    device=st.floats(0.1, 60),
    waited=st.floats(0, 300),
)
def test_a_swap_counts_as_long_as_one_in_a_hurry_takes(seconds: float, device: float, waited: float) -> None:
    """Short turns make a swap long; its length in a hurry decides how much room it needs."""
    measures = Measures(start_seconds=1.0)
    measures.swapped(seconds, device, waited)
    counted = measures.swap_seconds
    assert counted is not None
    assert counted <= seconds
    if waited <= device:
        assert counted == seconds


@given(
    job=st.floats(0.1, 60),
    needed=st.floats(0, 120) | st.just(math.inf),
    left=st.floats(0, 600),
)
def test_turns_are_as_short_as_the_time_left_allows(job: float, needed: float, left: float) -> None:
    turn = turn_seconds(job, needed, left)
    assert ASKED_SHARE * job <= turn <= job
    if needed == math.inf or (needed == 0 and left > 0):
        assert turn == ASKED_SHARE * job
    elif turn < job:
        cycles = needed / turn
        assert cycles * (job + turn) <= left * 1.000001, "it is through in time"
    else:
        assert left <= 2 * needed * 1.000001, "turns and jobs alternate only where there is no time for less"


def test_turns_of_a_swap_measured_on_a_gpu() -> None:
    """5.4 s of an H200 beside jobs of 1.7 s with 80 s to go: the jobs wait for a fifteenth of their time."""
    assert turn_seconds(1.7, 5.4, 80) == pytest.approx(0.123, abs=0.001)
    assert turn_seconds(1.7, 1.5, 80) == pytest.approx(0.085, abs=0.001)


@given(growth=st.integers(0, 200), job=st.floats(0.5, 30), device=st.floats(0.1, 30))
def test_short_turns_are_chosen_only_where_all_the_jobs_between_them_fit(
    growth: int, job: float, device: float
) -> None:
    terms = Terms(12_000 * MIB, 0.9, 2_600 * MIB, 3_000 * MIB, growth * MIB, 30.0, job, device_seconds=device)
    measures = Measures()
    used = 5_000 * MIB
    if measures.room_to_be_gentle(terms, used):
        jobs = device / (GENTLE_SHARE * job)
        assert used + terms.fresh_peak + jobs * terms.growth <= terms.refuse
    else:
        assert growth > 0
