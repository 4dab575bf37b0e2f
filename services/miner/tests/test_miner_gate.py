"""The quality gate: values in, a choice and its reason out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sn17_contract.fixer import FixReport, FixVerdict
from sn17_miner.core.evidence import Belief, Evidence, signal_of
from sn17_miner.core.gate import (
    DUEL_WORTH,
    TRY_EVERY,
    Outlook,
    Situation,
    Step,
    best_rate,
    break_even,
    choose,
    lowest_score,
    worth,
)
from sn17_miner.core.learning import Learned
from sn17_miner.core.timing import Timing

CALM = Situation(
    signal="healthy",
    threshold=0.6,
    penalty=600,
    throttle=30,
    elapsed=12,
    generation=10,
    left=500,
    seeds_left=2,
    worker_free=True,
    now=0.0,
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
SIGNALS = ["healthy", "repaired", "fails_checks", "unrepairable", "score:0.50", "score:0.70"]


def told(**verdicts: tuple[int, int]) -> Evidence:
    """Evidence of so many results of a class, accepted and rejected."""
    evidence = Evidence()
    for signal, (accepted, rejected) in verdicts.items():
        for good in [True] * accepted + [False] * rejected:
            evidence.drawn(signal, again=False, now=0.0)
            evidence.decided(signal, handed_in=True, now=0.0)
            evidence.judged(signal, accepted=good, now=0.0)
    return evidence


def outlook_of(evidence: Evidence) -> Outlook:
    return Outlook.of(evidence, cycle=300, penalty=600, threshold=0.6, now=0.0)


def step(situation: Situation, evidence: Evidence) -> Step:
    return choose(situation, outlook_of(evidence), evidence).step


def test_signals() -> None:
    assert signal_of(GOOD, None) == "healthy"
    assert signal_of(GOOD, 0.7) == "score:0.70"
    assert signal_of(GOOD, 0.6999) == "score:0.65"
    assert signal_of(GOOD, 7.0) == "score:1.00"
    assert signal_of(BAD, 0.99) == "fails_checks"
    assert signal_of(REPAIRED, None) == "repaired"


def test_a_good_result_is_submitted_at_once() -> None:
    assert step(CALM, Evidence()) is Step.SUBMIT


def test_what_fails_the_checks_gets_another_seed_while_that_costs_little() -> None:
    assert step(replace(CALM, signal="fails_checks"), Evidence()) is Step.RETRY


@pytest.mark.parametrize(
    "change",
    [{"seeds_left": 0}, {"worker_free": False}, {"left": 5.0}, {"generation": 400.0, "left": 1000.0}],
)
def test_what_fails_the_checks_without_a_worthwhile_retry_is_skipped(change: dict[str, float]) -> None:
    situation = replace(CALM, signal="fails_checks", **change)  # type: ignore[arg-type]
    choice = choose(situation, outlook_of(Evidence()), Evidence())
    assert choice.step is Step.SKIP
    assert "600" in choice.detail


@pytest.mark.parametrize("accepted", [1, 2, 10, 19])
def test_a_class_that_is_all_there_is_is_handed_in_however_rarely_it_is_accepted(accepted: int) -> None:
    evidence = told(healthy=(accepted, 100 - accepted))
    assert step(replace(CALM, seeds_left=0), evidence) is Step.SUBMIT


def test_four_rejections_at_the_start_do_not_stop_it() -> None:
    """As live at an acceptance of 19 %, where everything was given back empty from then on."""
    assert step(replace(CALM, seeds_left=0), told(healthy=(0, 4))) is Step.SUBMIT


def test_a_class_that_never_passes_beside_a_good_one_is_held_back_and_told_why() -> None:
    evidence = told(healthy=(60, 10), repaired=(0, 40))
    situation = replace(CALM, signal="repaired", seeds_left=0)
    choice = choose(situation, outlook_of(evidence), evidence)
    assert choice.step is Step.SKIP
    for words in ("repaired: chance 0.0", "pays from", "accepted an hour", "no seed left"):
        assert words in choice.detail


def test_what_is_held_back_is_tried_now_and_then_and_taken_up_when_it_is_accepted() -> None:
    evidence = told(healthy=(60, 10), repaired=(0, 40))
    situation = replace(CALM, signal="repaired", seeds_left=0)
    tried = []
    for place in range(3 * TRY_EVERY):
        handed_in = step(situation, evidence) is Step.SUBMIT
        evidence.decided("repaired", handed_in=handed_in, now=0.0)
        if handed_in:
            evidence.judged("repaired", accepted=True, now=0.0)
            tried.append(place)
    assert tried[0] == TRY_EVERY - 1
    assert tried[1] == tried[0] + 2
    assert tried[-20:] == list(range(3 * TRY_EVERY - 20, 3 * TRY_EVERY))


def test_good_verdicts_in_a_row_take_a_class_up_again_before_all_of_its_history_does() -> None:
    evidence = told(healthy=(60, 10), repaired=(0, 40))
    for _ in range(6):
        evidence.judged("repaired", accepted=True, now=0.0)
    situation, outlook = replace(CALM, signal="repaired", seeds_left=0), outlook_of(evidence)
    assert evidence.surely_below("repaired", outlook.break_even, threshold=0.6, now=0.0)
    choice = choose(situation, outlook, evidence)
    assert choice.step is Step.SUBMIT
    assert "better than before" in choice.detail


def test_a_try_to_learn_waits_for_the_seeds_that_are_left() -> None:
    """Handed in at once it earned 1 to 2.5 % less than after another seed."""
    evidence = told(healthy=(60, 10), repaired=(0, 40))
    for _ in range(TRY_EVERY):
        evidence.decided("repaired", handed_in=False, now=0.0)
    due = replace(CALM, signal="repaired")
    assert step(due, evidence) is Step.RETRY
    assert step(replace(due, seeds_left=0), evidence) is Step.SUBMIT


def test_the_rate_is_that_of_the_best_choice() -> None:
    """One class: accepted per cycle and penalties. Two: without the one that costs more than it brings."""
    assert best_rate({"a": 1.0}, {"a": 0.2}, cycle=300, penalty=600) == pytest.approx(0.2 / (300 + 480))
    offers, chances = {"a": 0.5, "b": 0.5}, {"a": 0.9, "b": 0.02}
    expected = 0.45 / (300 + 0.05 * 600)
    assert best_rate(offers, chances, cycle=300, penalty=600) == pytest.approx(expected)


@given(
    st.dictionaries(st.sampled_from("abcde"), st.tuples(st.floats(0.01, 1), st.floats(0, 1)), min_size=1),
    st.floats(1, 3000),
    st.floats(0, 3000),
)
def test_the_rate_is_never_below_handing_everything_in(
    classes: dict[str, tuple[float, float]], cycle: float, penalty: float
) -> None:
    total = sum(share for share, _ in classes.values())
    offers = {name: share / total for name, (share, _) in classes.items()}
    chances = {name: chance for name, (_, chance) in classes.items()}
    mean = sum(offers[name] * chances[name] for name in offers)
    rate = best_rate(offers, chances, cycle=cycle, penalty=penalty)
    assert rate >= mean / (cycle + (1 - mean) * penalty) * (1 - 1e-9)


def test_the_break_even_follows_penalty_and_rate() -> None:
    assert break_even(1 / 300, 600) == pytest.approx(2 / (3 + DUEL_WORTH))
    assert break_even(1 / 300, 0) == 0.0
    assert break_even(0.0, 600) == 0.0
    mark = break_even(0.002, 600)
    assert worth(mark, 0.002, 600) == pytest.approx(0.0)


situations = st.builds(
    Situation,
    signal=st.sampled_from(SIGNALS),
    threshold=st.floats(0.1, 0.9),
    penalty=st.floats(0, 2000),
    throttle=st.floats(0, 60),
    elapsed=st.floats(0, 1000),
    generation=st.floats(0, 100),
    left=st.floats(-100, 600),
    seeds_left=st.integers(0, 3),
    worker_free=st.booleans(),
    now=st.floats(0, 1e6),
)
histories = st.lists(
    st.tuples(st.sampled_from(SIGNALS), st.sampled_from("djha"), st.booleans(), st.floats(0, 1e6))
)


def evidence_of(history: list[tuple[str, str, bool, float]]) -> Evidence:
    evidence = Evidence()
    for signal, what, good, now in history:
        if what == "d":
            evidence.drawn(signal, again=good, now=now)
        elif what == "h":
            evidence.decided(signal, handed_in=good, now=now)
        else:
            evidence.judged(signal, accepted=good, now=now)
    return evidence


@given(situations, histories)
def test_every_choice_can_be_carried_out_and_is_explained(
    situation: Situation, history: list[tuple[str, str, bool, float]]
) -> None:
    evidence = evidence_of(history)
    outlook = Outlook.of(
        evidence, cycle=300, penalty=situation.penalty, threshold=situation.threshold, now=situation.now
    )
    choice = choose(situation, outlook, evidence)
    mark = outlook.break_even
    assert 0.0 <= mark < 1.0
    assert f"pays from {mark:.2f}" in choice.detail
    if situation.signal == "unrepairable":
        assert choice.step is not Step.SUBMIT
    elif choice.step is Step.SKIP:
        assert evidence.surely_below(situation.signal, mark, threshold=situation.threshold, now=situation.now)
    if choice.step is Step.RETRY:
        assert situation.seeds_left > 0
        assert situation.worker_free
        assert situation.generation < situation.left


@given(histories)
def test_beliefs_are_chances_and_shares_add_up(history: list[tuple[str, str, bool, float]]) -> None:
    evidence = evidence_of(history)
    for signal in (*SIGNALS, "unheard of"):
        belief = evidence.belief(signal, threshold=0.6, now=1e6)
        assert 0.0 <= belief.mean <= belief.upper <= 1.0
    assert sum(evidence.offers(1e6).values()) == pytest.approx(1.0)
    assert sum(evidence.another_seed(1e6).values()) == pytest.approx(1.0)
    assert Evidence.load(evidence.dump(), evidence.half_life) == evidence


def test_belief_follows_what_the_validator_accepts_and_fades_back() -> None:
    evidence = Evidence()
    before = evidence.belief("healthy", threshold=0.6, now=0.0).mean
    for _ in range(20):
        evidence.judged("healthy", accepted=False, now=0.0)
    strict = evidence.belief("healthy", threshold=0.6, now=0.0).mean
    assert strict < 0.2 < 0.9 < before
    evidence.judged("healthy", accepted=True, now=0.0)
    much_later = evidence.belief("healthy", threshold=0.6, now=20 * evidence.half_life).mean
    assert much_later == pytest.approx(before, abs=0.01)
    assert evidence.belief("repaired", threshold=0.6, now=0.0).mean > 0.8


def test_rejections_in_a_row_are_not_forgotten() -> None:
    """A class held back at a slow validator is tried too rarely to be learned anew from day to day."""
    evidence = told(repaired=(0, 30))
    late = 10 * evidence.half_life
    assert evidence.surely_below("repaired", 0.4, threshold=0.6, now=late)
    evidence.judged("repaired", accepted=True, now=late)
    assert not evidence.surely_below("repaired", 0.4, threshold=0.6, now=late)


def test_one_acceptance_of_what_is_known_to_fail_is_enough_to_doubt_that() -> None:
    """The validators' own checks are known, and yet another one may not have them."""
    never, once = told(fails_checks=(0, 1)), told(fails_checks=(1, 0))
    assert never.belief("fails_checks", threshold=0.6, now=0.0).mean < 0.01
    assert once.belief("fails_checks", threshold=0.6, now=0.0).mean > 0.08
    assert never.surely_below("fails_checks", 0.4, threshold=0.6, now=0.0)
    assert not once.surely_below("fails_checks", 0.4, threshold=0.6, now=0.0)


def test_a_class_that_never_comes_up_does_not_raise_the_rate() -> None:
    """At 3 % a share of 2 % of made-up good results would be most of what is accepted."""
    evidence = told(repaired=(2, 60))
    assert evidence.offers(0.0) == {"repaired": 1.0}
    assert evidence.another_seed(0.0)["repaired"] == 1.0


@pytest.mark.parametrize(("rejections", "every"), [(0, 2), (1, 4), (2, 8), (3, 16), (4, 20), (50, 20)])
def test_tries_start_close_together(rejections: int, every: int) -> None:
    evidence = told(healthy=(60, 0), fails_checks=(0, rejections))
    situation = replace(CALM, signal="fails_checks", seeds_left=0)
    steps = []
    for _ in range(every):
        steps.append(step(situation, evidence))
        evidence.decided("fails_checks", handed_in=steps[-1] is Step.SUBMIT, now=0.0)
    assert steps == [Step.SKIP] * (every - 1) + [Step.SUBMIT]


def test_a_bound_needs_verdicts() -> None:
    assert not Belief(0.0, 4.0).surely_below(0.3)
    assert Belief(0.0, 40.0).surely_below(0.3)
    assert not Belief(0.4, 1e6).surely_below(0.3)


def test_the_half_life_follows_the_networks_speed() -> None:
    slow, quick = Learned.fresh(Timing()), Learned.fresh(Timing().scaled(0.05))
    assert quick.evidence.half_life == pytest.approx(slow.evidence.half_life * 0.05)
    again = Learned.load(slow.dump(), Timing().scaled(0.05))
    assert again.evidence.half_life == pytest.approx(quick.evidence.half_life)


def test_a_scarce_worker_makes_a_rejection_cheaper() -> None:
    """Where a validator waits long for a worker anyway, the penalty costs less of its time."""
    learned = Learned.fresh(Timing())
    before = learned.outlook(0.0).break_even
    for _ in range(50):
        learned.waited(3000.0)
    assert learned.outlook(0.0).break_even < before / 2
    learned.waited(1e9)
    assert learned.idle < 3100.0


def test_the_lowest_score_moves_with_a_strict_validator() -> None:
    mark = break_even(0.003, 600)
    before = lowest_score(Evidence(), threshold=0.6, least=mark, now=0.0)
    assert 0.4 < before < 0.6
    evidence = Evidence()
    for _ in range(30):
        for score in ("score:0.50", "score:0.60", "score:0.65"):
            evidence.judged(score, accepted=False, now=0.0)
    assert lowest_score(evidence, threshold=0.6, least=mark, now=0.0) >= 0.7
    assert lowest_score(Evidence(), threshold=0.8, least=mark, now=0.0) > before


def test_rejections_of_higher_scores_condemn_a_lower_one() -> None:
    evidence = Evidence()
    for _ in range(12):
        for score in ("score:0.30", "score:0.35", "score:0.40", "score:0.45", "score:0.50"):
            evidence.judged(score, accepted=False, now=0.0)
    assert evidence.surely_below("score:0.05", 0.12, threshold=0.6, now=0.0)
    assert not Evidence().surely_below("score:0.05", 0.12, threshold=0.6, now=0.0)
