"""Whether to hand in a result: by what each validator accepted so far, in tasks per second.

A rejected result costs the penalty, a skip only the cooldown that any task costs. With ``rate`` accepted
tasks per second, submitting is worth ``p - rate * (1 - p) * penalty`` tasks, skipping nothing, and another
seed what a fresh one is worth less the time it takes beyond the free window.

``p`` is estimated per validator and class of evidence: a prior, and observed verdicts that fade with time, so
that a class which was given up is tried again one day.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import exp, floor
from typing import Final

from sn17_contract.fixer import FixReport

PRIOR_WEIGHT: Final = 4.0
HALF_LIFE: Final = 4 * 3600.0
"""Seconds in which an observation loses half its weight: the subnet's own window."""
SCORE_STEP: Final = 0.05
UNREPAIRABLE: Final = "unrepairable"
_SCORE: Final = "score:"
_PRIOR: Final = {"healthy": 0.92, "repaired": 0.88, "fails_checks": 0.02, UNREPAIRABLE: 0.05}
_GAIN: Final = 0.05
"""Tasks that another seed must promise: below that the worker is better used by the next task."""

Evidence = dict[str, tuple[float, float, float]]
"""Per signal: accepted, judged (both fading), and when last updated."""


def signal_of(report: FixReport, score: float | None) -> str:
    """The class of evidence of a result: a validation score where there is one, else the fixer's word."""
    if report.verdict == UNREPAIRABLE:
        return UNREPAIRABLE
    if not report.gates_pass:
        return "fails_checks"
    if score is not None:
        steps = floor(min(1.0, max(0.0, score)) / SCORE_STEP + 1e-9)
        return f"{_SCORE}{steps * SCORE_STEP:.2f}"
    return report.verdict.value


def confidence(signal: str, evidence: Evidence, *, threshold: float, now: float) -> float:
    """The chance that this validator accepts a result of this class; ``threshold`` is its own mark."""
    accepted, judged = _prior(signal, threshold) * PRIOR_WEIGHT, PRIOR_WEIGHT
    for other, (good, seen, at) in evidence.items():
        weight = _likeness(signal, other) * 0.5 ** (max(0.0, now - at) / HALF_LIFE)
        accepted += good * weight
        judged += seen * weight
    return accepted / judged


def observe(evidence: Evidence, signal: str, *, accepted: bool, now: float) -> None:
    """Count a verdict."""
    good, seen, at = evidence.get(signal, (0.0, 0.0, now))
    fade = 0.5 ** (max(0.0, now - at) / HALF_LIFE)
    evidence[signal] = (good * fade + accepted, seen * fade + 1.0, now)


def _prior(signal: str, threshold: float) -> float:
    if signal.startswith(_SCORE):
        score = float(signal.removeprefix(_SCORE)) + SCORE_STEP / 2
        return min(0.98, max(0.02, 1.0 / (1.0 + exp((threshold - score) / 0.03))))
    return _PRIOR.get(signal, 0.5)


def _likeness(signal: str, other: str) -> float:
    """Neighbouring scores are evidence for each other."""
    if signal == other:
        return 1.0
    if signal.startswith(_SCORE) and other.startswith(_SCORE):
        steps = abs(float(signal.removeprefix(_SCORE)) - float(other.removeprefix(_SCORE))) / SCORE_STEP
        return exp(-(steps**2))
    return 0.0


class Step(StrEnum):
    """What to do with a result."""

    SUBMIT = "submit"
    RETRY = "retry"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything the choice depends on; seconds."""

    confidence: float
    acceptance: float
    """The validator's overall acceptance: what a fresh seed may be worth."""
    base_cooldown: float
    penalty: float
    throttle: float
    elapsed: float
    """Since the pull."""
    generation: float
    """What another generation takes, fixing and sending included."""
    left: float
    """Until the task's own deadline."""
    seeds_left: int
    worker_free: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """The step and why."""

    step: Step
    detail: str


def break_even(acceptance: float, base_cooldown: float, penalty: float) -> float:
    """The confidence from which submitting beats skipping."""
    cost = acceptance * penalty / base_cooldown
    return cost / (1.0 + cost)


def choose(s: Situation) -> Choice:
    """Submit, try another seed, or skip."""
    rate = s.acceptance / s.base_cooldown
    mark = break_even(s.acceptance, s.base_cooldown, s.penalty)

    def worth(p: float) -> float:
        return max(0.0, p - rate * (1.0 - p) * s.penalty)

    now_worth = worth(s.confidence)
    late = max(0.0, s.elapsed + s.generation - s.throttle) - max(0.0, s.elapsed - s.throttle)
    again = worth(s.acceptance) - rate * late
    figures = f"confidence {s.confidence:.2f}, break-even {mark:.2f}, {s.elapsed:.1f} s since the pull"
    if s.seeds_left > 0 and s.worker_free and s.generation < s.left and again > now_worth + _GAIN:
        return Choice(
            Step.RETRY, f"another seed is worth {again:.2f} tasks, this result {now_worth:.2f}; {figures}"
        )
    if s.confidence >= mark:
        return Choice(Step.SUBMIT, figures)
    hint = "no seed left" if s.seeds_left <= 0 else "no worker or time for another seed"
    return Choice(
        Step.SKIP, f"a rejection would cost {s.penalty:g} s, a skip costs nothing; {hint}; {figures}"
    )


def lowest_score(evidence: Evidence, *, threshold: float, mark: float, now: float) -> float:
    """The lowest validation score that is submitted: the gate's threshold as it stands (1 for none)."""
    steps = (n * SCORE_STEP for n in range(round(1 / SCORE_STEP)))
    good = (
        s for s in steps if confidence(f"{_SCORE}{s:.2f}", evidence, threshold=threshold, now=now) >= mark
    )
    return min(good, default=1.0)
