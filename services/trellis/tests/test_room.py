"""Whether two model processes fit beside each other, and when a worker swaps by itself."""

from __future__ import annotations

import dataclasses
import os
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sn17_contract.http import WorkerState
from sn17_service import MemoryReading
from sn17_trellis.admission import Admission
from sn17_trellis.jobs import Jobs
from sn17_trellis.model_process.life import Life
from sn17_trellis.model_process.lives import OneLife
from sn17_trellis.model_process.meter import DEVICE_CONTEXT, Meter
from sn17_trellis.model_process.room import Measures, Terms, job_must_wait, no_room, not_worth_it
from sn17_trellis.swap_policy import SwapPolicy

GIB = 1 << 30
TERMS = Terms(
    limit=12 * GIB,
    refuse_ratio=0.88,
    fresh_peak=3 * GIB,
    rest=3 * GIB,
    growth=GIB // 10,
    swap_seconds=25.0,
    job_seconds=10.0,
)

terms_of_any_worker = st.builds(
    Terms,
    limit=st.integers(1 << 28, 1 << 37),
    refuse_ratio=st.floats(0.5, 0.95),
    fresh_peak=st.integers(0, 1 << 36),
    rest=st.integers(0, 1 << 36),
    growth=st.integers(0, 1 << 33),
    swap_seconds=st.floats(0.1, 300),
    job_seconds=st.floats(0.1, 60),
    idle_seconds=st.floats(0, 60),
)


def test_the_threshold_is_the_one_of_the_formula() -> None:
    # Three generations happen during 25 s of swap, and one more before it begins.
    assert TERMS.jobs_meanwhile == 3
    assert TERMS.threshold == int(0.88 * 12 * GIB) - 3 * GIB - 4 * (GIB // 10)
    assert no_room(TERMS, TERMS.threshold) is None


@given(terms_of_any_worker)
def test_a_swap_that_begins_at_the_threshold_stays_below_the_refusing_level(terms: Terms) -> None:
    if no_room(terms, terms.threshold) is None:
        worst = terms.threshold + terms.growth * (terms.jobs_meanwhile + 1) + terms.fresh_peak
        assert worst <= terms.refuse


def test_where_few_generations_fit_the_old_process_waits_for_the_rest_of_the_swap() -> None:
    """A leak of 10 % and weights that load in 60 s: a replacement loses all of the start, a swap a part."""
    quick = Terms(
        limit=1000,
        refuse_ratio=0.88,
        fresh_peak=210,
        rest=240,
        growth=100,
        jump=130,
        swap_seconds=71.0,
        job_seconds=20.0,
        start_seconds=71.0,
        device_seconds=11.0,
    )
    assert (quick.jobs_meanwhile, quick.swap_cost) == (2, 31.0)
    assert quick.rest < quick.threshold
    assert not_worth_it(quick, quick.threshold) is None
    in_time = dataclasses.replace(quick, growth=50, jump=65)
    assert (in_time.jobs_meanwhile, in_time.swap_cost) == (4, 11.0), "all four fit"


@given(terms_of_any_worker, st.floats(0, 300), st.integers(0, 1 << 36))
def test_a_swap_costs_what_it_needs_of_the_device_and_what_the_old_process_waits(
    terms: Terms, device: float, more: int
) -> None:
    one = dataclasses.replace(terms, device_seconds=device)
    worked = one.jobs_meanwhile * one.between_jobs
    assert one.swap_cost >= device
    assert one.swap_cost + worked >= one.swap_seconds - 1e-6
    wider = dataclasses.replace(one, limit=one.limit + more)
    assert wider.jobs_meanwhile >= one.jobs_meanwhile
    assert wider.swap_cost <= one.swap_cost


@given(terms_of_any_worker, st.integers(0, 1 << 37), st.integers(0, 1 << 33))
def test_more_memory_in_use_never_makes_room(terms: Terms, used: int, more: int) -> None:
    if no_room(terms, used) is not None:
        assert no_room(terms, used + more) is not None


def test_both_models_in_one_worker_are_replaced_and_not_swapped() -> None:
    both = dataclasses.replace(TERMS, fresh_peak=5 * GIB, rest=6 * GIB, growth=GIB // 4)
    assert "would be due" in str(no_room(both, both.rest))


def test_the_act_that_costs_less_for_each_generation_is_chosen() -> None:
    """A swap is due sooner: it does not pay where a start takes hardly longer than its part on the device."""
    quick = dataclasses.replace(
        TERMS, growth=GIB // 2, swap_seconds=15.0, start_seconds=15.0, device_seconds=11.0
    )
    assert no_room(quick, quick.rest) is None
    assert "replacements" in str(not_worth_it(quick, quick.rest))
    loads_long = dataclasses.replace(quick, swap_seconds=36.0, start_seconds=36.0)
    assert not_worth_it(loads_long, loads_long.rest) is None
    assert not_worth_it(dataclasses.replace(quick, growth=0), quick.rest) is None, "nothing leaks"


@given(terms_of_any_worker, st.floats(0.1, 300), st.floats(0, 300))
def test_a_longer_start_never_speaks_against_swaps(terms: Terms, start: float, more: float) -> None:
    one = dataclasses.replace(terms, start_seconds=start, device_seconds=min(start, 11.0))
    if one.swap_pays and one.threshold > one.rest:
        assert dataclasses.replace(one, start_seconds=start + more).swap_pays


def test_costs_are_measured_where_nothing_else_ran() -> None:
    measures = Measures()
    measures.held(warm_up=8.0, canary=3.0)
    measures.held(warm_up=9.0)
    for seconds in (36.0, 60.0):
        measures.started(1000, seconds)
    measures.at_rest(2000)
    terms = measures.terms(limit=GIB, refuse_ratio=0.88, job_seconds=20.0, device_free=None)
    assert terms is not None
    assert (terms.start_seconds, terms.device_seconds, terms.swap_seconds) == (36.0, 11.0, 60.0)


def test_a_start_without_a_canary_still_tells_what_the_device_is_needed_for() -> None:
    measures = Measures()
    measures.started(1000, 36.0)
    measures.at_rest(2000)
    known = {"limit": GIB, "refuse_ratio": 0.88, "job_seconds": 20.0, "device_free": None}
    for held, seconds in (
        ({}, 36.0),
        ({"warm_up": 8.0}, 8.0),
        ({"canary": 3.0}, 11.0),
        ({"canary": 4.0}, 11.0),
    ):
        measures.held(**held)
        terms = measures.terms(**known)
        assert terms is not None
        assert terms.device_seconds == seconds


def test_a_device_without_room_for_a_second_set_of_weights_is_said() -> None:
    full = dataclasses.replace(TERMS, device_need=7 * GIB, device_free=6 * GIB)
    assert "device" in str(no_room(full, full.rest))


def test_the_old_process_waits_where_its_job_would_take_what_the_fresh_one_needs() -> None:
    level = TERMS.refuse - TERMS.growth
    assert not job_must_wait(TERMS, level, fresh_now=TERMS.fresh_peak)
    assert job_must_wait(TERMS, level, fresh_now=TERMS.fresh_peak - 1)


def test_growth_is_of_later_generations_and_never_negative() -> None:
    measures = Measures()
    measures.at_rest(100)
    measures.after_job(900)
    assert measures.growth == 0, "the first job fills caches"
    for used in (910, 920, 930):
        measures.after_job(used)
    assert measures.growth == 10
    measures.at_rest(100)
    assert measures.growth == 10, "the next life will grow as the one before"
    measures.after_job(900)
    assert measures.growth == 10
    for used in (800, 700, 600):
        measures.after_job(used)
    assert measures.growth >= 0


def test_memory_that_the_service_holds_is_no_reason_for_another_swap() -> None:
    measures = Measures()
    measures.started(100, 30.0)
    measures.at_rest(1000)
    for used in range(1010, 1100, 10):
        measures.after_job(used)
    measures.at_rest(1085)
    known = {"limit": 10_000, "refuse_ratio": 0.88, "job_seconds": 20.0, "device_free": None}
    terms = measures.terms(**known)
    assert terms is not None
    assert "gives back 6%" in str(not_worth_it(terms, 1085))
    assert no_room(terms, 1085) is None, "for another reason it may be swapped"


@given(st.integers(5, 40), st.integers(1, 1000), st.floats(0.0, 1.0))
def test_what_the_service_itself_has_added_is_known_before_any_life_ends(
    jobs: int, growth: int, part: float
) -> None:
    measures = Measures()
    measures.started(100, 30.0)
    measures.at_rest(1000, 500)
    for job in range(1, jobs + 1):
        measures.after_job(1000 + job * growth, 500 + int(part * job * growth))
    terms = measures.terms(limit=1 << 20, refuse_ratio=0.88, job_seconds=20.0, device_free=None)
    assert terms is not None
    assert terms.freed == 1.0 - int(part * jobs * growth) / (jobs * growth)
    assert terms.freed >= 0.5 or "a model process gives back" in str(not_worth_it(terms, 1000))
    measures.at_rest(1000, 500)
    assert measures.freeable == 1.0, "that life's end gave everything back"


def test_a_service_that_has_hardly_grown_is_not_blamed() -> None:
    measures = Measures()
    measures.at_rest(1000, 500)
    for used in (1010, 1020, 1030, 1040):
        measures.after_job(used, used - 500)
    assert measures.freeable == 1.0


def test_the_meter_tells_what_its_own_process_holds() -> None:
    level = iter(range(1010, 1200, 10))
    meter = Meter(
        read_memory=lambda: MemoryReading(now := next(level), now, 10_000, {}),
        job_seconds=lambda: 20.0,
        refuse_ratio=0.88,
        own_bytes=iter(range(510, 700, 10)).__next__,
    )
    meter.measures.at_rest(1000, 500)
    for _ in range(10):
        meter.after_job(None, 3.0, alone=True)
    assert meter.measures.freeable == 0.0
    assert meter.measures.idle_seconds == 3.0


def test_a_process_needs_more_of_a_device_than_its_tensors() -> None:
    meter = Meter(read_memory=lambda: None, job_seconds=lambda: 20.0, refuse_ratio=0.88)
    life = SimpleNamespace(
        handle=SimpleNamespace(pid=os.getpid()), sample=lambda _: None, peak=1, began=0.0,
        gpu_memory={"reserved": 6 * GIB},
    )  # fmt: skip
    meter.started(cast(Life, life))
    assert meter.measures.device_need == 6 * GIB + DEVICE_CONTEXT
    life.gpu_memory = {}
    meter.started(cast(Life, life))
    assert meter.measures.device_need == 6 * GIB + DEVICE_CONTEXT, "no reading changes nothing"


def test_a_job_waits_while_memory_is_short_beside_a_fresh_process() -> None:
    meter = Meter(
        read_memory=lambda: MemoryReading(5 * GIB, 5 * GIB, 10 * GIB, {}),
        job_seconds=lambda: 20.0,
        refuse_ratio=0.88,
    )
    fresh = cast(Life, SimpleNamespace(handle=SimpleNamespace(pid=os.getpid())))
    assert not meter.must_wait(None, fresh), "nothing is known yet"
    meter.measures.started(GIB, 30.0)
    meter.measures.at_rest(3 * GIB)
    assert not meter.must_wait(None, fresh)
    meter.measures.started(8 * GIB, 30.0)
    assert meter.must_wait(None, fresh), "this process holds less than the 8 GiB that one like it will take"
    assert not meter.must_wait(None, None)


class Short(OneLife):
    """Lives beside a fresh one without memory for another job."""

    must_wait = True


@pytest.mark.parametrize(
    ("lives", "state"), [(OneLife("b"), WorkerState.READY), (Short("b"), WorkerState.BUSY)]
)
def test_a_worker_whose_next_job_would_wait_says_busy_so_that_others_get_it(
    lives: OneLife, state: WorkerState
) -> None:
    free = SimpleNamespace(
        drain=SimpleNamespace(current=None), refusing_since=None, fatal=False, degraded=None,
        read=lambda: SimpleNamespace(seconds_p50=None),
    )  # fmt: skip
    at = cast(Any, free)
    admission = Admission(at, at, at, Jobs(), at, lives)
    admission.started = True
    assert admission.state is state
    assert admission.not_ready() == (True, "")


def test_terms_are_unknown_until_all_were_measured() -> None:
    measures = Measures()
    known = {"limit": GIB, "refuse_ratio": 0.88, "job_seconds": None, "device_free": None}
    assert measures.terms(**known) is None
    measures.started(1000, 4.0)
    measures.at_rest(2000)
    first = measures.terms(**known)
    assert first is not None
    assert (first.job_seconds, first.jobs_meanwhile) == (4.0, 1), (
        "a job is taken to last as long as the start"
    )
    measures.canary_seconds = 2.0
    terms = measures.terms(**known)
    assert terms is not None
    assert (terms.jobs_meanwhile, terms.swap_seconds) == (2, 4.0)
    assert measures.terms(**{**known, "limit": None}) is None


def policy(**changes: float) -> SwapPolicy:
    values = {"after_seconds": 40.0, "idle_seconds": 20.0, **changes}
    return SwapPolicy(**values, random=lambda: 0.5)


def test_above_the_threshold_the_operator_has_its_time_first() -> None:
    one = policy()
    flat = dataclasses.replace(TERMS, growth=0)
    assert one.due(flat, flat.threshold - 1, now=0.0, idle_for=0.0) is None
    assert one.due(flat, flat.threshold, now=10.0, idle_for=0.0) is None
    assert one.due(flat, flat.threshold, now=59.9, idle_for=0.0) is None, "40 s and a quarter of jitter"
    assert "for 50 s" in str(one.due(flat, flat.threshold, now=60.0, idle_for=0.0))


def test_the_last_moment_at_which_a_swap_fits_is_not_missed() -> None:
    above = TERMS.threshold + 1
    assert policy().due(TERMS, above, now=0.0, idle_for=0.0) is None
    assert "would not fit" in str(policy().due(TERMS, above, now=0.0, idle_for=0.0, job_next=True))


def test_idle_above_half_way_it_swaps_once_a_life() -> None:
    one = policy()
    used = int(TERMS.half_way) + 1
    assert one.due(TERMS, used, now=0.0, idle_for=19.0) is None
    assert "idle" in str(one.due(TERMS, used, now=1.0, idle_for=20.0))
    assert one.due(TERMS, used, now=2.0, idle_for=21.0) is None
    one.new_life()
    assert one.due(TERMS, used, now=3.0, idle_for=22.0) is not None
    assert one.due(TERMS, int(TERMS.half_way) - 1, now=3.0, idle_for=99.0) is None


def test_without_room_it_never_asks() -> None:
    full = dataclasses.replace(TERMS, rest=9 * GIB)
    assert policy(after_seconds=0).due(full, 9 * GIB, now=0.0, idle_for=99.0) is None
    assert policy().due(None, 9 * GIB, now=0.0, idle_for=99.0) is None
