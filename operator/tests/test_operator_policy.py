"""Each rule on its own: values at, above and below the marks, dwell, gaps, restarts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sn17_operator.api import Spec, scaled
from sn17_operator.core.context import GRAVITY, trailing_run
from sn17_operator.core.evidence import Raw, attribute
from sn17_operator.core.model import Finding, Health, History, Outcome, Phase, Pod, RuleName, Verdict
from sn17_operator.core.policy import judge
from sn17_operator.core.readings import Evidence, Gap, Monitoring, Reading, Series, Signal
from sn17_operator.core.remediation import RESOLVE_SECONDS
from sn17_operator.core.rules import CHAIN
from sn17_simulation.fleet.play import SPEC, spec_with

NOW = 10_000.0
LIMIT = 1_000.0
POD = Pod("u", "w", "ns", 0.0, phase=Phase.RUNNING, container_id="c", started_at=1_000.0, ready=True)


def series(*values: float, every: float = 15.0, age: float = 5.0) -> Series:
    """Samples ending ``age`` seconds ago."""
    last = NOW - age
    return Series(tuple((last - every * (len(values) - 1 - i), v) for i, v in enumerate(values)))


def healthy(**changes: Reading) -> dict[Signal, Reading]:
    base: dict[Signal, Reading] = {
        Signal.BOOT: series(*[1.0] * 12),
        Signal.MEMORY: series(*[300.0] * 8),
        Signal.LIMIT: series(LIMIT),
        Signal.GAUSSIANS: series(350_000),
        Signal.GENERATIONS: series(20),
        Signal.SECONDS_P50: series(12),
        Signal.JOBS: series(*[0.0] * 12),
        Signal.PROGRESS: series(*[NOW - 100] * 12),
        Signal.CANARY: series(0.01),
        Signal.GPU_ERRORS: series(0),
        Signal.UP: series(*[1.0] * 10),
    }
    return {**base, **{Signal[name]: value for name, value in changes.items()}}


def judged(
    spec: Spec = SPEC, pod: Pod = POD, monitoring: Monitoring | None = None, **changes: Reading
) -> Verdict:
    monitoring = monitoring or Monitoring(NOW, 35, 15, {}, NOW - 5, 10, 155)
    return judge(spec, pod, Evidence("b", healthy(**changes)), monitoring)


def finding(verdict: Verdict, rule: RuleName) -> Finding:
    return next(f for f in verdict.findings if f.rule == rule)


def outcome(rule: RuleName, **changes: Reading) -> Outcome:
    return finding(judged(**changes), rule).outcome


def test_all_is_well() -> None:
    assert judged().health is Health.HEALTHY


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([800, 800, 800], Outcome.BREACH),  # at the mark, for exactly the dwell
        ([800, 800], Outcome.DWELL),
        ([799, 799, 799], Outcome.OK),
        ([900, 790, 800, 800], Outcome.DWELL),  # a dip starts the dwell anew
        ([300, 300, 850], Outcome.DWELL),
        ([850, 850, 850, 600], Outcome.OK),
    ],
)
def test_memory_high(values: Sequence[float], expected: Outcome) -> None:
    assert outcome(RuleName.MEMORY_HIGH, MEMORY=series(*values)) is expected


def test_memory_high_needs_an_unbroken_run() -> None:
    broken = Series(((NOW - 120, 850.0), (NOW - 5, 850.0)))
    assert outcome(RuleName.MEMORY_HIGH, MEMORY=broken) is Outcome.DWELL


@pytest.mark.parametrize(("seen", "said"), [(False, True), (True, False), (None, False)])
def test_pod_memory_that_nobody_scrapes_is_said_and_changes_no_verdict(seen: bool | None, said: bool) -> None:
    verdict = judged(monitoring=Monitoring(NOW, 35, 15, {}, NOW - 5, 10, 155, pod_memory=seen))
    found = [f for f in verdict.findings if f.rule is RuleName.POD_MEMORY_HIGH]
    assert [(f.outcome, "cAdvisor is not scraped" in f.message) for f in found] == [
        (Outcome.IDLE, True)
    ] * said
    assert verdict.health is Health.HEALTHY


def test_memory_emergency_has_no_dwell() -> None:
    assert outcome(RuleName.MEMORY_EMERGENCY, MEMORY=series(300, 900)) is Outcome.BREACH
    assert outcome(RuleName.MEMORY_EMERGENCY, MEMORY=series(300, 899)) is Outcome.OK


@pytest.mark.parametrize("limit", [series(0), series(math.inf), series(math.nan), Gap.ABSENT, Gap.AMBIGUOUS])
def test_memory_without_a_limit_is_unknown(limit: Reading) -> None:
    verdict = judged(LIMIT=limit, MEMORY=series(950, 950, 950))
    assert finding(verdict, RuleName.MEMORY_HIGH).outcome is Outcome.UNKNOWN
    assert verdict.health is Health.UNKNOWN


@pytest.mark.parametrize(
    ("mean", "count", "expected"),
    [
        (149_999, 8, Outcome.BREACH),
        (150_000, 8, Outcome.OK),
        (50_000, 7, Outcome.IDLE),
        (math.nan, 0, Outcome.IDLE),
        (math.nan, 9, Outcome.UNKNOWN),
    ],
)
def test_gaussians(mean: float, count: float, expected: Outcome) -> None:
    assert outcome(RuleName.GAUSSIANS_LOW, GAUSSIANS=series(mean), GENERATIONS=series(count)) is expected


def test_single_small_healthy_mean_of_eight_is_no_verdict() -> None:
    # 350,000 is what an acceptance asks for; healthy means of eight fall below it in a quarter of cases.
    assert outcome(RuleName.GAUSSIANS_LOW, GAUSSIANS=series(300_000), GENERATIONS=series(8)) is Outcome.OK


@pytest.mark.parametrize(("p50", "expected"), [(35.0, Outcome.OK), (35.1, Outcome.BREACH)])
def test_slow(p50: float, expected: Outcome) -> None:
    assert outcome(RuleName.SLOW, SECONDS_P50=series(p50)) is expected


@pytest.mark.parametrize(
    ("drift", "expected"),
    [
        (series(0.2), Outcome.OK),
        (series(0.21), Outcome.BREACH),
        (series(math.inf), Outcome.BREACH),
        (series(math.nan), Outcome.IDLE),
        (Gap.ABSENT, Outcome.IDLE),
        (Gap.AMBIGUOUS, Outcome.UNKNOWN),
    ],
)
def test_canary(drift: Reading, expected: Outcome) -> None:
    assert outcome(RuleName.CANARY_DRIFT, CANARY=drift) is expected


@pytest.mark.parametrize(
    ("jobs", "progress", "expected"),
    [
        (series(*[1.0] * 12), series(*[500.0] * 12), Outcome.BREACH),
        (series(*[1.0] * 8), series(*[500.0] * 12), Outcome.DWELL),  # the job is younger than the mark
        (series(*[1.0] * 12), series(*range(12)), Outcome.OK),
        (series(*[0.0] * 12), series(*[500.0] * 12), Outcome.OK),
        (Gap.ABSENT, series(1), Outcome.IDLE),
        (series(*[1.0] * 12), Gap.ABSENT, Outcome.UNKNOWN),
    ],
)
def test_stalled(jobs: Reading, progress: Reading, expected: Outcome) -> None:
    assert outcome(RuleName.STALLED, JOBS=jobs, PROGRESS=progress) is expected


def test_stalled_compares_no_clocks() -> None:
    """A worker whose clock is years off makes progress all the same."""
    moving = series(*[v / 10 for v in range(12)])
    assert outcome(RuleName.STALLED, JOBS=series(*[1.0] * 12), PROGRESS=moving) is Outcome.OK


@pytest.mark.parametrize(
    ("up", "monitoring", "expected"),
    [
        (series(*[1.0] * 10), Monitoring(NOW, 35, 15, {}, NOW - 5, 10, 155), Outcome.OK),
        (series(*[0.0] * 10), Monitoring(NOW, 35, 15, {}, NOW - 5, 10, 155), Outcome.BREACH),
        (series(1.0, *[0.0] * 7), Monitoring(NOW, 35, 15, {}, NOW - 5, 10, 155), Outcome.DWELL),
        (Gap.ABSENT, Monitoring(NOW, 35, 15, {}, NOW - 5, 10, 155), Outcome.BREACH),
        # Nothing else is scraped either, no longer, or only since a short while.
        (series(*[0.0] * 10), Monitoring(NOW, 35, 15, {}, None, 0, 155), Outcome.UNKNOWN),
        (series(*[0.0] * 10), Monitoring(NOW, 35, 15, {}, NOW - 60, 10, 155), Outcome.UNKNOWN),
        (Gap.ABSENT, Monitoring(NOW, 35, 15, {}, NOW - 5, 2, 155), Outcome.UNKNOWN),
        (Gap.QUERY_FAILED, Monitoring(NOW, 35, 15, {}, NOW - 5, 10, 155), Outcome.UNKNOWN),
    ],
)
def test_unreachable(up: Reading, monitoring: Monitoring, expected: Outcome) -> None:
    verdict = judged(monitoring=monitoring, UP=up)
    assert finding(verdict, RuleName.UNREACHABLE).outcome is expected


def test_unreachable_worker_that_just_started_has_time() -> None:
    young = Pod("u", "w", "ns", 0.0, phase=Phase.RUNNING, container_id="c", started_at=NOW - 60, ready=True)
    verdict = judged(pod=young, UP=Gap.ABSENT)
    assert finding(verdict, RuleName.UNREACHABLE).outcome is Outcome.DWELL


@pytest.mark.parametrize(
    ("errors", "expected"),
    [(series(0), Outcome.OK), (series(1), Outcome.BREACH), (Gap.ABSENT, Outcome.IDLE)],
)
def test_gpu_errors(errors: Reading, expected: Outcome) -> None:
    assert outcome(RuleName.GPU_ERROR, GPU_ERRORS=errors) is expected


@pytest.mark.parametrize("signal", [Signal.MEMORY, Signal.LIMIT, Signal.GENERATIONS, Signal.GAUSSIANS])
@pytest.mark.parametrize("gap", [Gap.AMBIGUOUS, Gap.QUERY_FAILED, Gap.OTHER_INCARNATION, Gap.STALE])
def test_gap_is_unknown_and_never_zero(signal: Signal, gap: Gap) -> None:
    verdict = judged(**{signal.name: gap})
    assert verdict.health is Health.UNKNOWN
    assert verdict.breaches == ()


@pytest.mark.parametrize("signal", [Signal.MEMORY, Signal.GENERATIONS, Signal.JOBS])
def test_old_sample_proves_nothing(signal: Signal) -> None:
    old = series(*[950.0] * 12, age=36.0)
    assert judged(**{signal.name: old}).health is Health.UNKNOWN


def test_idle_is_neither_good_nor_bad() -> None:
    verdict = judged(GENERATIONS=series(0), CANARY=Gap.ABSENT)
    assert verdict.health is Health.IDLE


def test_breach_outweighs_what_is_unknown() -> None:
    verdict = judged(MEMORY=series(950, 950, 950), GENERATIONS=Gap.AMBIGUOUS)
    assert verdict.health is Health.DEGRADED
    assert [f.rule for f in verdict.breaches] == [RuleName.MEMORY_EMERGENCY, RuleName.MEMORY_HIGH]


def test_rule_that_is_off_or_observed_does_not_degrade() -> None:
    off = spec_with(rules={"memory": {"action": "Off"}})
    assert judged(spec=off, MEMORY=series(950, 950, 950)).health is Health.HEALTHY
    observed = judged(spec=spec_with(rules={"memory": {"action": "Observe"}}), MEMORY=series(950, 950, 950))
    assert observed.health is Health.HEALTHY
    assert finding(observed, RuleName.MEMORY_HIGH).outcome is Outcome.BREACH
    assert not finding(observed, RuleName.MEMORY_HIGH).enforced


def test_rest_after_a_canary_holds_for_that_incarnation_only() -> None:
    low = {"GAUSSIANS": series(50_000)}
    rest = History(rest={RuleName.GAUSSIANS_LOW: NOW + 60}, rest_container="c")
    resting = Pod(
        "u", "w", "ns", 0.0, phase=Phase.RUNNING, container_id="c", started_at=1.0, ready=True, history=rest
    )
    assert finding(judged(pod=resting, **low), RuleName.GAUSSIANS_LOW).outcome is Outcome.RESTING
    reborn = Pod(
        "u", "w", "ns", 0.0, phase=Phase.RUNNING, container_id="d", started_at=1.0, ready=True, history=rest
    )
    assert finding(judged(pod=reborn, **low), RuleName.GAUSSIANS_LOW).outcome is Outcome.BREACH


def test_container_that_does_not_run_is_starting() -> None:
    waiting = Pod("u", "w", "ns", 0.0, phase=Phase.WAITING, phase_reason="ImagePullBackOff")
    verdict = judge(SPEC, waiting, Evidence(), Monitoring(NOW, 35))
    assert verdict.health is Health.STARTING
    assert verdict.message == "ImagePullBackOff"


# --- whose samples these are --------------------------------------------------------------------------


def test_samples_belong_to_the_incarnation_whose_boot_marker_has_their_time() -> None:
    """A worker restarted in the middle of the window: nothing of its earlier life counts."""
    raw = Raw(
        (("old", ((100.0, 1.0), (115.0, 1.0))), ("new", ((130.0, 1.0), (145.0, 1.0)))),
        {Signal.MEMORY: [((100.0, 950.0), (115.0, 950.0), (130.0, 200.0), (145.0, 210.0))]},
    )
    evidence = attribute(raw, 120.0, {})
    assert evidence.boot_id == "new"
    assert evidence.reading(Signal.MEMORY) == Series(((130.0, 200.0), (145.0, 210.0)))


def test_samples_from_before_the_container_started_are_of_another_life() -> None:
    raw = Raw((("old", ((100.0, 1.0),)),), {Signal.MEMORY: [((100.0, 950.0),)]})
    evidence = attribute(raw, 120.0, {})
    assert evidence.boot_id is None
    assert evidence.reading(Signal.MEMORY) is Gap.OTHER_INCARNATION


def test_two_boot_markers_at_once_are_ambiguous() -> None:
    raw = Raw(
        (("a", ((100.0, 1.0), (115.0, 1.0))), ("b", ((101.0, 1.0), (116.0, 1.0)))),
        {Signal.MEMORY: [((100.0, 950.0),)]},
    )
    evidence = attribute(raw, 0.0, {})
    assert evidence.boot_id is None
    assert evidence.reading(Signal.MEMORY) is Gap.AMBIGUOUS


def test_duplicate_series_are_ambiguous_and_failed_queries_unknown() -> None:
    boots = (("a", ((100.0, 1.0),)),)
    doubled = Raw(boots, {Signal.MEMORY: [((100.0, 1.0),), ((100.0, 1.0),)]})
    assert attribute(doubled, 0.0, {}).reading(Signal.MEMORY) is Gap.AMBIGUOUS
    failed = attribute(Raw(boots), 0.0, {Signal.MEMORY: "timeout"})
    assert failed.reading(Signal.MEMORY) is Gap.QUERY_FAILED
    blind = attribute(Raw(boots, {Signal.MEMORY: [((100.0, 1.0),)]}), 0.0, {Signal.BOOT: "timeout"})
    assert blind.boot_id is None
    assert blind.reading(Signal.MEMORY) is Gap.QUERY_FAILED


times = st.lists(st.integers(0, 50).map(float), min_size=1, max_size=20, unique=True).map(sorted)


@given(times, st.lists(st.sampled_from([0.0, 1.0]), min_size=20, max_size=20), st.floats(1, 60))
def test_trailing_run_is_unbroken_and_maximal(at: list[float], values: list[float], gap: float) -> None:
    samples = tuple(zip(at, values, strict=False))
    start = trailing_run(Series(samples), lambda v: v > 0, gap)
    if start is None:
        assert samples[-1][1] == 0
        return
    inside = [(t, v) for t, v in samples if t >= start]
    assert all(v > 0 for _, v in inside)
    assert all(b[0] - a[0] <= gap for a, b in pairwise(inside))
    before = [(t, v) for t, v in samples if t < start]
    assert not before or before[-1][1] == 0 or inside[0][0] - before[-1][0] > gap


@given(st.integers(0, 10_000), st.integers(1, 100))
def test_share_is_never_zero_and_never_more_than_its_part(expected: int, percent: int) -> None:
    allowed = scaled(f"{percent}%", expected)
    assert allowed >= 1
    assert allowed == 1 or allowed * 100 <= percent * expected


# --- the defaults, as the rules are specified -----------------------------------------------------------

DEFAULTS = {
    "mode": "Recycle",
    "strategy": "Swap",
    "max_unavailable": "25%",
    "max_unhealthy": "50%",
    "rules.memory.high_percent": 80,
    "rules.memory.high_for_seconds": 30,
    "rules.memory.clear_percent": 70,
    "rules.memory.clear_for_seconds": 60,
    "rules.memory.emergency_percent": 90,
    "rules.memory.swap_seconds": 180,
    "rules.gaussians.minimum_mean": 150_000,
    "rules.gaussians.minimum_generations": 8,
    "rules.gaussians.window_seconds": 1_800,
    "rules.canary.drift_percent": 20,
    "rules.slow.p50_seconds": 35,
    "rules.slow.minimum_generations": 8,
    "rules.stalled.after_seconds": 120,
    "rules.unreachable.after_seconds": 120,
    "rules.gpu_errors.maximum": 0,
    "rules.model_failing.minimum_starts": 5,
    "drain.timeout_seconds": 120,
    "drain.lease_seconds": 60,
    "recycle.exit_timeout_seconds": 60,
    "recycle.replacement_timeout_seconds": 600,
    "recycle.cooldown_seconds": 600,
    "recycle.storm_cooldown_seconds": 600,
    "recycle.young_seconds": 600,
    "recycle.leftover_percent": 25,
    "recycle.maximum_evictions": 2,
    "recycle.eviction_window_seconds": 6 * 3_600,
}


@pytest.mark.parametrize("path", DEFAULTS)
def test_default(path: str) -> None:
    value: object = SPEC
    for name in path.split("."):
        value = getattr(value, name)
    assert value == DEFAULTS[path]


def test_rules_are_enforced_by_default_and_resolving_takes_at_most_three_minutes() -> None:
    observed = {name for rule in CHAIN if rule.action(SPEC.rules) != "Enforce" for name in rule.names}
    assert observed == {"DeviceUnhealthy"}, "kubelet and the driver are believed once a person says so"
    assert len(CHAIN) == len(type(SPEC.rules).model_fields), "each rule has its settings, and none has two"
    assert sorted(GRAVITY) == sorted(name for rule in CHAIN for name in rule.names)
    assert RESOLVE_SECONDS == 180
