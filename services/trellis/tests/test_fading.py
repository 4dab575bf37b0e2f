"""Assets that get smaller as memory fills: noticed, and answered by the act that leaves the most of them."""

from __future__ import annotations

import dataclasses
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from sn17_trellis.model_process.fading import PARTS, Costs, Fading, best
from sn17_trellis.model_process.room import Measures, Terms, not_worth_it, too_small
from sn17_trellis.swap_policy import SwapPolicy

COSTS = Costs(
    job_seconds=20.0,
    job_way=0.025,
    beside_way=0.3,
    jobs_meanwhile=3,
    swap_seconds=11.0,
    replace_seconds=36.0,
)
LATE = [1.0, 1.0, 1.0, 0.5, 0.3, 0.2, 0.2, 0.2]
"""What is left of an asset, by eighths of the way."""


def seen(shares: list[float], lives: int, seed: int = 1) -> Fading:
    """As prompts do, sizes vary by a factor of two."""
    fading, rng = Fading(), Random(seed)
    for _ in range(lives):
        for job in range(26):
            way = job / 26
            fading.add(way, int(370_000 * shares[int(way * PARTS)] * rng.lognormvariate(0.0, 0.65)))
    return fading


def test_two_lives_tell_it_and_what_is_left_never_rises() -> None:
    shares = seen(LATE, 2).shares()
    assert shares is not None
    assert shares[0] == 1.0
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.4


def test_sizes_that_only_vary_are_hardly_ever_taken_for_it() -> None:
    found = [seen([1.0] * PARTS, 6, seed).shares() for seed in range(200)]
    assert sum(each is not None for each in found) <= 4


@given(st.lists(st.tuples(st.floats(-1, 2), st.integers(0, 1 << 24)), max_size=60))
def test_whatever_is_made_shares_are_shares(made: list[tuple[float, int]]) -> None:
    fading = Fading()
    for way, gaussians in made:
        fading.add(way, gaussians)
    shares = fading.shares()
    assert shares is None or (len(shares) == PARTS and all(0.0 <= share <= 1.0 for share in shares))


def test_where_a_second_process_makes_them_small_too_a_replacement_is_the_better_act() -> None:
    found = best(LATE, COSTS)
    assert not found.swap
    assert 0.3 < found.way < 0.5
    alone = best(LATE, dataclasses.replace(COSTS, beside_way=0.0))
    assert alone.swap
    assert 0.2 < alone.way < 0.4


def test_what_does_not_fade_is_used_up_to_the_end() -> None:
    found = best([1.0] * PARTS, dataclasses.replace(COSTS, replace_seconds=11.0, jobs_meanwhile=0))
    assert found.way >= 1.0


@given(st.floats(0, 60), st.floats(0, 60), st.floats(0.3, 0.9))
def test_a_worker_with_less_to_do_never_lets_a_life_fill_further(
    idle: float, more: float, last: float
) -> None:
    """An act then costs only what the time without work does not cover."""
    shares = [1.0 - (1.0 - last) * part / (PARTS - 1) for part in range(PARTS)]
    alone = dataclasses.replace(COSTS, swap_seconds=1e9, idle_seconds=idle)
    busier, idler = (
        best(shares, dataclasses.replace(alone, idle_seconds=each)) for each in (idle, idle + more)
    )
    assert idler.way <= max(busier.way, 1 / PARTS), "within the first part nothing fades: there it is a draw"


def test_a_worker_that_is_idle_half_of_the_time_ends_its_lives_sooner() -> None:
    busy = best(LATE, dataclasses.replace(COSTS, replace_seconds=60.0, swap_seconds=60.0))
    idle = best(LATE, dataclasses.replace(COSTS, replace_seconds=60.0, swap_seconds=60.0, idle_seconds=20.0))
    assert idle.way < busy.way


def filled(beside: float) -> Terms:
    """Of a worker whose memory fills by a fortieth with each job, and whose assets fade on the way."""
    whole = 1_000_000
    measures = Measures(warm_up_held=8.0, canary_held=3.0, fading=seen(LATE, 6))
    measures.started(int(beside * whole), 36.0)
    measures.at_rest(whole)
    for job in range(20):
        measures.after_job(whole + job * whole // 40)
    terms = measures.terms(limit=4 * whole, refuse_ratio=0.5, job_seconds=20.0, device_free=None)
    assert terms is not None
    return terms


def test_a_swap_is_due_where_assets_fade_and_not_where_it_just_fits() -> None:
    terms = filled(0.0)
    assert terms.rest < terms.due < terms.threshold
    policy = SwapPolicy(after_seconds=40.0, idle_seconds=0.0, random=lambda: 0.0)
    assert policy.due(terms, terms.due, now=0.0, idle_for=0.0) is None
    assert "assets get smaller" in str(policy.due(terms, terms.due, now=41.0, idle_for=0.0))
    assert too_small(terms, terms.due) is None


def test_a_replacement_is_due_where_a_swap_would_make_small_ones() -> None:
    terms = filled(0.3)
    assert "replacement pays" in str(too_small(terms, terms.due))
    assert too_small(terms, terms.due - 1) is None
    assert "replacements" in str(not_worth_it(terms, terms.due))
    assert too_small(dataclasses.replace(terms, freed=0.1), terms.due) is None, "nothing is gained by it"
