"""The quality gate: values in, a choice and its reason out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sn17_contract.fixer import FixReport, FixVerdict
from sn17_miner.core.gate import (
    Evidence,
    Situation,
    Step,
    break_even,
    choose,
    confidence,
    lowest_score,
    observe,
    signal_of,
)

CALM = Situation(
    confidence=0.95,
    acceptance=0.9,
    base_cooldown=300,
    penalty=600,
    throttle=30,
    elapsed=12,
    generation=10,
    left=500,
    seeds_left=2,
    worker_free=True,
)
GOOD = FixReport(
    schema_="sn17.fixer/v1",
    verdict=FixVerdict.HEALTHY,
    reasons=(),
    gaussians_in=9000,
    gaussians_out=9000,
    alpha_mean=0.6,
    transparent_share=0.1,
    logit_mean=0.5,
    logit_std=4.0,
    pos_inf=0,
    gates_pass=True,
    steps=(),
)
REPAIRED = GOOD.model_copy(update={"verdict": FixVerdict.REPAIRED})
BAD = REPAIRED.model_copy(update={"gates_pass": False})


def test_signals() -> None:
    assert signal_of(GOOD, None) == "healthy"
    assert signal_of(GOOD, 0.7) == "score:0.70"
    assert signal_of(GOOD, 0.6999) == "score:0.65"
    assert signal_of(GOOD, 7.0) == "score:1.00"
    assert signal_of(BAD, 0.99) == "fails_checks"
    assert signal_of(REPAIRED, None) == "repaired"


def test_a_good_result_is_submitted_at_once() -> None:
    assert choose(CALM).step is Step.SUBMIT


def test_a_bad_result_gets_another_seed_while_that_costs_little() -> None:
    assert choose(replace(CALM, confidence=0.05)).step is Step.RETRY


@pytest.mark.parametrize(
    "change",
    [{"seeds_left": 0}, {"worker_free": False}, {"left": 5.0}, {"generation": 400.0, "left": 1000.0}],
)
def test_a_bad_result_without_a_worthwhile_retry_is_skipped(change: dict[str, float]) -> None:
    choice = choose(replace(CALM, confidence=0.05, **change))  # type: ignore[arg-type]
    assert choice.step is Step.SKIP
    assert "600" in choice.detail


def test_a_fair_result_is_submitted_when_no_retry_is_possible() -> None:
    assert choose(replace(CALM, confidence=0.7, seeds_left=0)).step is Step.SUBMIT


def test_the_mark_follows_penalty_and_acceptance() -> None:
    assert break_even(1.0, 300, 600) == pytest.approx(2 / 3)
    assert break_even(1.0, 300, 0) == 0.0
    assert break_even(0.5, 300, 600) == pytest.approx(0.5)


@given(
    st.builds(
        Situation,
        confidence=st.floats(0, 1),
        acceptance=st.floats(0.01, 1),
        base_cooldown=st.floats(1, 1000),
        penalty=st.floats(0, 2000),
        throttle=st.floats(0, 60),
        elapsed=st.floats(0, 1000),
        generation=st.floats(0, 100),
        left=st.floats(-100, 600),
        seeds_left=st.integers(0, 3),
        worker_free=st.booleans(),
    )
)
def test_never_a_foreseeable_loss(situation: Situation) -> None:
    choice = choose(situation)
    mark = break_even(situation.acceptance, situation.base_cooldown, situation.penalty)
    if choice.step is Step.SUBMIT:
        assert situation.confidence >= mark
    if choice.step is Step.SKIP:
        assert situation.confidence < mark
    if choice.step is Step.RETRY:
        assert situation.seeds_left > 0
        assert situation.worker_free
        assert situation.generation < situation.left
    assert choice.detail


def test_confidence_follows_what_the_validator_accepts_and_fades_back() -> None:
    evidence: Evidence = {}
    before = confidence("healthy", evidence, threshold=0.6, now=0.0)
    for _ in range(20):
        observe(evidence, "healthy", accepted=False, now=0.0)
    strict = confidence("healthy", evidence, threshold=0.6, now=0.0)
    assert strict < 0.2 < 0.9 < before
    much_later = confidence("healthy", evidence, threshold=0.6, now=20 * 4 * 3600.0)
    assert much_later == pytest.approx(before, abs=0.01)
    assert confidence("repaired", evidence, threshold=0.6, now=0.0) > 0.8


def test_the_score_threshold_moves_with_a_strict_validator() -> None:
    evidence: Evidence = {}
    mark = break_even(0.9, 300, 600)
    before = lowest_score(evidence, threshold=0.6, mark=mark, now=0.0)
    assert before == pytest.approx(0.6)
    for _ in range(10):
        observe(evidence, "score:0.65", accepted=False, now=0.0)
        observe(evidence, "score:0.60", accepted=False, now=0.0)
    after = lowest_score(evidence, threshold=0.6, mark=mark, now=0.0)
    assert after >= 0.7
    assert lowest_score({}, threshold=0.8, mark=mark, now=0.0) == pytest.approx(0.8)


@given(
    st.lists(
        st.tuples(st.sampled_from(["healthy", "score:0.50", "score:0.90"]), st.booleans(), st.floats(0, 1e6))
    )
)
def test_confidence_is_always_a_probability(history: list[tuple[str, bool, float]]) -> None:
    evidence: Evidence = {}
    for signal, accepted, now in history:
        observe(evidence, signal, accepted=accepted, now=now)
    for signal in ("healthy", "score:0.70", "fails_checks", "unheard of"):
        assert 0.0 <= confidence(signal, evidence, threshold=0.6, now=1e6) <= 1.0
