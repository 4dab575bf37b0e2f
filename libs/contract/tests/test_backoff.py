"""Pauses after failures in a row."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from sn17_contract.backoff import Backoff


@given(
    st.floats(0.001, 100.0),
    st.floats(0.001, 1000.0),
    st.floats(0.0, 0.9),
    st.integers(0, 10_000),
    st.integers(),
)
def test_pauses_grow_to_their_cap_and_differ_by_their_jitter(
    first: float, cap: float, jitter: float, failures: int, seed: int
) -> None:
    backoff = Backoff(first, cap, jitter)
    pause = backoff.seconds(failures)
    assert min(first, cap) <= pause <= backoff.seconds(failures + 1) <= cap
    if failures > 80:
        assert pause == cap
    shaken = backoff.seconds(failures, Random(seed))
    assert pause * (1 - jitter) <= shaken * (1 + 1e-9)
    assert shaken <= pause * (1 + jitter) * (1 + 1e-9)


def test_the_first_pauses() -> None:
    assert [Backoff(1.0, 6.0).seconds(failures) for failures in (0, 1, 2, 3, 4)] == [1.0, 1.0, 2.0, 4.0, 6.0]
