"""Verdicts of `sn17 accept` and `sn17 watch`: pure functions, every grade and its border."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sn17.accept.measure import coverage_kept, logit_std
from sn17.accept.prompts import PROMPTS, acceptance_prompts
from sn17.accept.targets import parse_targets
from sn17.accept.verdict import Check, Grade, Sample, Thresholds, interval95, judge
from sn17.accept.watch import by_validator, tally
from sn17.accept.watch import judge as judge_tasks
from sn17_contract.fixer import FixVerdict
from sn17_contract.tasks import Enhancement, Outcome, TaskKind, TaskState, TaskView
from sn17_scene import parse
from sn17_splats import Splats


def sample(**changes: object) -> Sample:
    values: dict[str, object] = {
        "prompt": "a red sphere",
        "seed": 1,
        "worker": "w",
        "gaussians": 400_000,
        "seconds": 10.0,
        "memory_ratio": 0.4,
        "verdict": FixVerdict.REPAIRED,
        "changed": True,
        "logit_std_before": 5.0,
        "logit_std_after": 5.0,
        "coverage_kept": 1.0,
    }
    return Sample(**{**values, **changes})  # type: ignore[arg-type]


def grades(checks: Sequence[Check]) -> dict[str, Grade]:
    return {check.name: check.grade for check in checks}


def judged(samples: Sequence[Sample], policy: str = "measured") -> dict[str, Grade]:
    return grades(judge(samples, policy, Thresholds(), wanted=len(samples)))


def many(count: int = 20, **changes: object) -> list[Sample]:
    return [sample(gaussians=400_000 + 100 * i, **changes) for i in range(count)]


def test_a_healthy_run_passes() -> None:
    assert set(judged(many()).values()) == {Grade.PASS}
    assert set(judged(many(), "phase1").values()) == {Grade.PASS}


@pytest.mark.parametrize(
    ("changes", "policy", "failing"),
    [
        ({"seconds": 35.0}, "measured", "slowest generation"),
        ({"memory_ratio": 0.8}, "measured", "memory"),
        ({"memory_ratio": None}, "measured", "memory"),
        ({"verdict": FixVerdict.UNREPAIRABLE}, "measured", "unrepairable assets"),
        ({"logit_std_after": 4.4}, "measured", "opacity spread kept by the fix"),
        ({"coverage_kept": 0.9}, "measured", "front view kept by the fix"),
        ({"logit_std_after": 9.5}, "phase1", "opacity std where phase1 acted"),
        ({"logit_std_after": 2.9}, "phase1", "opacity std where phase1 acted"),
        ({"logit_std_after": None}, "phase1", "opacity std where phase1 acted"),
    ],
)
def test_one_bad_sample_fails_its_check_alone(changes: dict[str, object], policy: str, failing: str) -> None:
    found = judged([*many(19), sample(**changes)], policy)
    assert found.pop(failing) is Grade.FAIL
    assert Grade.FAIL not in found.values()


def test_opacity_is_judged_only_where_phase1_acted() -> None:
    untouched = sample(changed=False, logit_std_after=20.0)
    assert judged([*many(19), untouched], "phase1")["opacity std where phase1 acted"] is Grade.PASS


@pytest.mark.parametrize(
    ("counts", "grade"),
    [
        ([500_000] * 19 + [500_001], Grade.PASS),
        ([100_000] * 19 + [100_001], Grade.FAIL),
        ([60_000] * 10 + [700_000] * 10, Grade.WARN),
    ],
)
def test_the_mean_is_judged_with_its_interval(counts: list[int], grade: Grade) -> None:
    assert judged([sample(gaussians=count) for count in counts])["mean gaussians"] is grade


def test_too_few_generations_never_pass() -> None:
    assert grades(judge([], "measured", Thresholds(), wanted=20)) == {"generations": Grade.FAIL}
    assert grades(judge(many(19), "measured", Thresholds(), wanted=20))["generations"] is Grade.FAIL


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_the_interval_holds_the_mean(values: list[float]) -> None:
    mean, low, high = interval95(values)
    assert low <= mean + 1e-6
    assert mean <= high + 1e-6
    assert math.isinf(high) == (len(values) == 1)


def test_the_interval_is_students() -> None:
    mean, low, high = interval95([1.0, 2.0, 3.0, 4.0])
    assert (mean, round(high - low, 3)) == (2.5, round(2 * 3.182 * math.sqrt(5 / 3) / 2, 3))


def test_prompts_are_fixed_diverse_and_understood_by_every_backend() -> None:
    assert len(PROMPTS) == len(set(PROMPTS)) == 20
    for prompt in PROMPTS:
        parse(prompt)
    again = acceptance_prompts(45)
    assert len({seed for _, seed in again}) == 45
    assert again[:20] == acceptance_prompts(20)


def cloud(logit: float, count: int = 4000) -> Splats:
    rng = np.random.default_rng(1)
    array = np.float32
    return Splats(
        positions=rng.uniform(-0.5, 0.5, (count, 3)).astype(array),
        log_scales=np.full((count, 3), -5, array),
        rotations=np.tile(np.array([1, 0, 0, 0], array), (count, 1)),
        opacity_logits=np.full(count, logit, array),
        f_dc=np.zeros((count, 3), array),
    )


def test_a_fix_that_fades_or_drops_shows_in_the_view() -> None:
    before = cloud(6.0)
    assert coverage_kept(before, before) == pytest.approx(1.0)
    assert coverage_kept(before, cloud(-4.0)) < 0.5
    assert coverage_kept(before, before.select(np.arange(len(before)) % 3 == 0)) < 0.98
    assert coverage_kept(before, before.replace(opacity_logits=np.full(4000, np.inf, np.float32))) >= 1.0


def test_spread_ignores_what_is_not_finite() -> None:
    logits = np.array([1, 3, np.inf, np.nan], np.float32)
    assert logit_std(cloud(0.0, 4).replace(opacity_logits=logits)) == pytest.approx(1.0)
    assert logit_std(cloud(np.inf, 4)) is None


def booked(
    n: int, outcome: Outcome | None, pulled_at: float = 100.0, *, validator: str = "v", uid: int | None = 7
) -> TaskView:
    return TaskView(
        n=n,
        task_id=f"t{n}",
        validator=validator,
        uid=uid,
        kind=TaskKind.TEXT,
        prompt="a red sphere",
        enhancement=Enhancement.NONE,
        state=TaskState.DONE if outcome else TaskState.GENERATING,
        outcome=outcome,
        reason=None,
        score=None,
        pulled_at=pulled_at,
        finished_at=None,
        submits=1,
        attempts=(),
        events=None,
    )


def test_success_and_yield_are_both_counted_and_skipping_does_not_look_like_winning() -> None:
    outcomes = [*[Outcome.ACCEPTED] * 5, *[Outcome.REJECTED] * 3, *[Outcome.SKIPPED] * 10, Outcome.EXPIRED]
    counted = tally([booked(i, o) for i, o in enumerate([*outcomes, None])], since=50)
    assert counted.submissions == 8
    assert counted.success == pytest.approx(5 / 9)
    assert counted.yield_ == pytest.approx(5 / 19)
    assert grades(judge_tasks(counted)) == {"success": Grade.PASS, "yield": Grade.FAIL}


@pytest.mark.parametrize(
    ("accepted", "grade"), [(44, Grade.FAIL), (45, Grade.WARN), (54, Grade.WARN), (55, Grade.PASS)]
)
def test_targets(accepted: int, grade: Grade) -> None:
    tasks = [booked(i, Outcome.ACCEPTED if i < accepted else Outcome.REJECTED) for i in range(100)]
    assert set(grades(judge_tasks(tally(tasks, 0))).values()) == {grade}


def test_only_tasks_pulled_since_the_start_count() -> None:
    assert tally([booked(1, Outcome.ACCEPTED, pulled_at=10)], since=50).pulled == 0
    assert set(grades(judge_tasks(tally([], 0))).values()) == {Grade.FAIL}


DESIGN = parse_targets(
    """{"validators": {"27": {"least": 0.44, "expected": 0.81}, "128": {"least": 0.19, "expected": 0.56}}}""",
    "the design",
)


def of_validators(*shares: tuple[int, int], tasks: int = 100) -> list[TaskView]:
    return [
        booked(
            uid * 1000 + i, Outcome.ACCEPTED if i < good else Outcome.REJECTED, validator=f"5V{uid}", uid=uid
        )
        for uid, good in shares
        for i in range(tasks)
    ]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (81, 56, {"27": Grade.PASS, "128": Grade.PASS}),
        (80, 19, {"27": Grade.WARN, "128": Grade.WARN}),
        (43, 18, {"27": Grade.FAIL, "128": Grade.FAIL}),
        (90, 10, {"27": Grade.PASS, "128": Grade.FAIL}),
    ],
)
def test_each_validator_is_judged_by_its_own_targets(
    first: int, second: int, expected: dict[str, Grade]
) -> None:
    """The sum of a good and a bad validator hides the bad one."""
    tasks = of_validators((27, first), (128, second))
    found = grades(judge_tasks(tally(tasks, 0), by_validator(tasks, 0), DESIGN))
    for uid, grade in expected.items():
        assert found[f"success, uid {uid} (5V{uid})"] is grade
        assert found[f"yield, uid {uid} (5V{uid})"] is grade
    assert list(found)[2].startswith("success, uid 27")


def test_a_validator_without_targets_of_its_own_is_judged_by_those_of_all() -> None:
    tasks = of_validators((3, 50))
    assert grades(judge_tasks(tally(tasks, 0), by_validator(tasks, 0)))["success, uid 3 (5V3)"] is Grade.WARN


def test_a_validator_with_targets_that_gave_no_task_fails() -> None:
    tasks = of_validators((27, 90))
    found = grades(judge_tasks(tally(tasks, 0), by_validator(tasks, 0), DESIGN))
    assert found["success, 128"] is Grade.FAIL


def test_a_few_tasks_of_one_validator_condemn_nobody() -> None:
    tasks = of_validators((27, 0), tasks=4)
    assert (
        grades(judge_tasks(tally(tasks, 0), by_validator(tasks, 0)))["success, uid 27 (5V27)"] is Grade.WARN
    )


def test_targets_may_name_a_hotkey() -> None:
    named = parse_targets('{"validators": {"5V27": {"least": 0.1, "expected": 0.2}}}', "x")
    assert named.of("5V27abc", None).expected == 0.2
    assert named.of("5V28abc", 27).expected == 0.55
