"""From samples to PASS, WARN and FAIL. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from sn17_contract.fixer import FixVerdict

# Two-sided 95 % quantiles of Student's t by degrees of freedom; beyond 30 the normal one is close enough.
_T95: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


class Grade(StrEnum):
    """How a check ended; a run passes unless one fails."""

    PASS = "PASS"  # noqa: S105
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The acceptance thresholds of the design."""

    gaussians_mean: float = 350_000
    generation_seconds: float = 35.0
    memory_ratio: float = 0.80
    """The lowest threshold at which the operator would act on memory."""
    opacity_std: tuple[float, float] = (3.0, 9.0)
    spread_kept: float = 0.9
    coverage_kept: float = 0.98


@dataclass(frozen=True, slots=True)
class Criteria:
    """What a run is held against: the fixer's policy and the thresholds."""

    policy: str = "measured"
    thresholds: Thresholds = field(default_factory=Thresholds)

    def with_options(self, options: Mapping[str, Any]) -> Criteria:
        """With those of ``options`` that are not None, by the names of the thresholds and ``policy``."""
        given = {name: value for name, value in options.items() if value is not None}
        if "opacity_std" in given:
            given["opacity_std"] = tuple(given["opacity_std"])
        policy = given.pop("policy", self.policy)
        return Criteria(policy, replace(self.thresholds, **given))


@dataclass(frozen=True, slots=True)
class Sample:
    """One generation and its fix. ``memory_ratio`` is the highest seen meanwhile; None without a limit."""

    prompt: str
    seed: int
    worker: str
    gaussians: int
    seconds: float
    memory_ratio: float | None
    verdict: FixVerdict
    changed: bool
    logit_std_before: float | None
    logit_std_after: float | None
    coverage_kept: float


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the verdict."""

    name: str
    measured: str
    wanted: str
    grade: Grade
    text: str = ""


def interval95(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95 % confidence interval (Student's t); the whole line for one value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, -math.inf, math.inf
    t = _T95[len(values) - 2] if len(values) - 2 < len(_T95) else 1.96
    half = t * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def judge(samples: Sequence[Sample], policy: str, thresholds: Thresholds, *, wanted: int) -> list[Check]:
    """Every check of the acceptance run; one without evidence fails, it never passes by silence."""
    checks = [_count(samples, wanted)]
    if samples:
        checks += [
            _gaussians(samples, thresholds),
            _seconds(samples, thresholds),
            _memory(samples, thresholds),
            _repairable(samples),
            _phase1(samples, thresholds) if policy == "phase1" else _spread(samples, thresholds),
            _render(samples, thresholds),
        ]
    return checks


def _count(samples: Sequence[Sample], wanted: int) -> Check:
    grade = Grade.PASS if len(samples) == wanted else Grade.FAIL
    return Check("generations", str(len(samples)), str(wanted), grade)


def _gaussians(samples: Sequence[Sample], thresholds: Thresholds) -> Check:
    mean, low, high = interval95([float(s.gaussians) for s in samples])
    wanted = thresholds.gaussians_mean
    if low <= wanted <= high:
        grade, text = Grade.WARN, "the 95 % interval contains the threshold: run more generations"
    else:
        grade, text = (Grade.PASS if mean > wanted else Grade.FAIL), ""
    return Check(
        "mean gaussians", f"{mean:,.0f} ({low:,.0f} to {high:,.0f})", f"> {wanted:,.0f}", grade, text
    )


def _seconds(samples: Sequence[Sample], thresholds: Thresholds) -> Check:
    worst = max(s.seconds for s in samples)
    grade = Grade.PASS if worst < thresholds.generation_seconds else Grade.FAIL
    return Check("slowest generation", f"{worst:.1f} s", f"< {thresholds.generation_seconds:g} s", grade)


def _memory(samples: Sequence[Sample], thresholds: Thresholds) -> Check:
    wanted = f"< {thresholds.memory_ratio:.0%} of the limit"
    known = [s.memory_ratio for s in samples if s.memory_ratio is not None]
    if len(known) < len(samples):
        return Check("memory", "unknown", wanted, Grade.FAIL, "a worker reports no memory limit")
    worst = max(known)
    return Check(
        "memory", f"{worst:.0%}", wanted, Grade.PASS if worst < thresholds.memory_ratio else Grade.FAIL
    )


def _repairable(samples: Sequence[Sample]) -> Check:
    bad = [s for s in samples if s.verdict is FixVerdict.UNREPAIRABLE]
    text = "; ".join(f"{s.prompt!r} seed {s.seed}" for s in bad[:3])
    return Check("unrepairable assets", str(len(bad)), "0", Grade.FAIL if bad else Grade.PASS, text)


def _phase1(samples: Sequence[Sample], thresholds: Thresholds) -> Check:
    low, high = thresholds.opacity_std
    name, wanted = "opacity std where phase1 acted", f"{low:g} to {high:g}"
    acted = [s.logit_std_after for s in samples if s.changed]
    if not acted:
        return Check(name, "it acted on none", wanted, Grade.PASS)
    stds = [std for std in acted if std is not None]
    off = len(acted) - sum(low <= std <= high for std in stds)
    measured = f"{min(stds):.2f} to {max(stds):.2f}" if stds else "none is finite"
    text = f"{off} of {len(acted)} outside" if off else f"{len(acted)} assets"
    return Check(name, measured, wanted, Grade.FAIL if off else Grade.PASS, text)


def _spread(samples: Sequence[Sample], thresholds: Thresholds) -> Check:
    ratios = [
        s.logit_std_after / s.logit_std_before
        for s in samples
        if s.changed and s.logit_std_before and s.logit_std_after is not None
    ]
    name, wanted = "opacity spread kept by the fix", f">= {thresholds.spread_kept:.0%}"
    if not ratios:
        return Check(name, "it changed none", wanted, Grade.PASS)
    grade = Grade.PASS if min(ratios) >= thresholds.spread_kept else Grade.FAIL
    return Check(name, f"{min(ratios):.0%}", wanted, grade, f"{len(ratios)} assets changed")


def _render(samples: Sequence[Sample], thresholds: Thresholds) -> Check:
    worst = min(s.coverage_kept for s in samples)
    grade = Grade.PASS if worst >= thresholds.coverage_kept else Grade.FAIL
    return Check("front view kept by the fix", f"{worst:.1%}", f">= {thresholds.coverage_kept:.0%}", grade)
