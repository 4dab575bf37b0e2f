"""What one validator did with results of each class, and how often each class comes up.

A class of evidence ("signal") is what is known of a result before it is handed in: a validation score where
there is one, else the fixer's verdict. Observations lose half their weight in ``half_life`` seconds, so that
a class is judged by what the validator does now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from math import exp, floor, isfinite, lgamma, log
from typing import Any, Final

from sn17_contract.fixer import FixReport

UNREPAIRABLE: Final = "unrepairable"
FAILS_CHECKS: Final = "fails_checks"
SCORE_STEP: Final = 0.05
_SCORE: Final = "score:"
_BINS: Final = round(1 / SCORE_STEP)

_PRIOR: Final = {"healthy": 0.92, "repaired": 0.88, FAILS_CHECKS: 0.005, UNREPAIRABLE: 0.01}
_PRIOR_WEIGHT: Final = {FAILS_CHECKS: 40.0, UNREPAIRABLE: 30.0}
"""The validators' own checks are known: those two priors are worth as many verdicts while they hold."""
_CHECKS_HOLD: Final = 0.95
"""How sure it is beforehand that a validator checks as the fixer does."""
_DEFAULT_WEIGHT: Final = 4.0
_SCORE_WEIGHT: Final = 6.0
_PRIOR_HALVED: Final = 15.0
"""Verdicts after which a prior counts half."""
_SCORE_WIDTH: Final = 0.03

_RECENT_FADE: Final = 0.7
"""Weight that a recent verdict loses with each newer one: some three verdicts of memory."""
_FIRST_OFFERS: Final = 2.0
"""Results of the class "healthy" that a validator without history is taken to have been offered."""
_FIRST_GONE: Final = 8.0
"""Real results after which that no longer counts: a class that never comes up must not raise the rate."""
_AGAIN_FROM_FIRST: Final = 3.0
"""Weight of what first seeds gave in the estimate of what another seed gives."""
SURE: Final = 4.5
"""Log of the odds, about 90 to 1, from which a class counts as known to be below a chance: high, since the
question is put again with every result."""


@dataclass(slots=True)
class Seen:
    """One class at one validator; all counts but ``held_back`` fade."""

    accepted: float = 0.0
    judged: float = 0.0
    recent_accepted: float = 0.0
    recent_judged: float = 0.0
    offered: float = 0.0
    """How often the final result of a task was of this class."""
    first: float = 0.0
    """How often a task's first seed gave it."""
    again: float = 0.0
    """How often another seed gave it."""
    held_back: int = 0
    """Results of this class in a row that were not handed in."""
    rejections: int = 0
    """In a row, since the last acceptance."""
    at: float = 0.0


_SEEN: Final = tuple(each.name for each in fields(Seen))


@dataclass(frozen=True, slots=True)
class Belief:
    """Chance of acceptance of a class: the mean, and the ``weight`` in observations behind it."""

    mean: float
    weight: float

    def surely_below(self, chance: float) -> bool:
        """Whether the evidence rules ``chance`` out (the bound of KL-UCB, Garivier and Cappé 2011)."""
        return self.mean < chance and self.weight * _divergence(self.mean, chance) > SURE

    @property
    def upper(self) -> float:
        """The highest chance that is not ruled out."""
        low, high = self.mean, 1.0
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (low, middle) if self.surely_below(middle) else (middle, high)
        return high


@dataclass(slots=True)
class Evidence:
    """Everything seen of one validator; ``half_life`` in seconds of the network's own time."""

    half_life: float = 24 * 3600.0
    classes: dict[str, Seen] = field(default_factory=dict)
    _told: tuple[float, dict[str, tuple[float, float]]] | None = field(
        default=None, init=False, repr=False, compare=False
    )
    """Verdicts as they counted at a time: asked for several times in one choice."""

    # --- what happened ------------------------------------------------------------------------------

    def drawn(self, signal: str, *, again: bool, now: float) -> None:
        """A seed gave a result of this class."""
        seen = self._now(signal, now)
        if again:
            seen.again += 1.0
        else:
            seen.first += 1.0

    def decided(self, signal: str, *, handed_in: bool, now: float) -> None:
        """The task's final result was of this class, and was handed in or not."""
        seen = self._now(signal, now)
        seen.offered += 1.0
        seen.held_back = 0 if handed_in else seen.held_back + 1

    def passed_over(self, signal: str, *, now: float) -> None:
        """Another seed was tried instead of handing in a result of this class."""
        self._now(signal, now).held_back += 1

    def judged(self, signal: str, *, accepted: bool, now: float) -> None:
        """The validator's verdict on a result of this class."""
        seen = self._now(signal, now)
        seen.accepted += accepted
        seen.judged += 1.0
        seen.recent_accepted = seen.recent_accepted * _RECENT_FADE + accepted
        seen.recent_judged = seen.recent_judged * _RECENT_FADE + 1.0
        seen.rejections = 0 if accepted else seen.rejections + 1

    def _now(self, signal: str, now: float) -> Seen:
        self._told = None
        seen = self.classes.setdefault(signal, Seen(at=now))
        fade = self._fade(seen, now)
        for name in ("accepted", "judged", "offered", "first", "again", "recent_accepted", "recent_judged"):
            setattr(seen, name, getattr(seen, name) * fade)
        seen.at = max(seen.at, now)
        return seen

    def _fade(self, seen: Seen, now: float) -> float:
        return float(0.5 ** (max(0.0, now - seen.at) / self.half_life))

    # --- what to expect -----------------------------------------------------------------------------

    def belief(self, signal: str, *, threshold: float, now: float) -> Belief:
        """The chance that this validator, whose threshold is ``threshold``, accepts a result of a class."""
        return _belief(signal, threshold, *_alike(signal, self._verdicts(now)))

    def surely_below(self, signal: str, chance: float, *, threshold: float, now: float) -> bool:
        """Whether a class is known to be accepted less often than ``chance``.

        A higher score is never worse, so that what happened to higher scores bounds a lower one.
        """
        verdicts = self._verdicts(now)
        if _belief(signal, threshold, *_alike(signal, verdicts)).surely_below(chance):
            return True
        if not signal.startswith(_SCORE):
            return False
        accepted = judged = 0.0
        for index in range(_bin(signal), _BINS + 1):
            if (verdict := verdicts.get(_name(index))) is None:
                continue
            accepted, judged = accepted + verdict[0], judged + verdict[1]
            if _belief(signal, threshold, accepted, judged).surely_below(chance):
                return True
        return False

    def _verdicts(self, now: float) -> dict[str, tuple[float, float]]:
        """Accepted and judged results by class, as they count now.

        Rejections in a row do not fade: where tasks are few, what is held back would otherwise be forgotten
        before it is tried again.
        """
        if self._told is not None and self._told[0] == now:
            return self._told[1]
        verdicts = {}
        for signal, seen in self.classes.items():
            if seen.judged:
                fade = self._fade(seen, now)
                verdicts[signal] = (seen.accepted * fade, max(seen.judged * fade, seen.rejections))
        self._told = now, verdicts
        return verdicts

    def recent(self, signal: str) -> float:
        """Share accepted of the last few verdicts on a class, with one rejection added."""
        seen = self.classes.get(signal)
        return 0.0 if seen is None else seen.recent_accepted / (seen.recent_judged + 1.0)

    def means(self, *, threshold: float, now: float) -> dict[str, float]:
        """Expected chance of every class that came up, and of "healthy"."""
        verdicts = self._verdicts(now)
        return {
            signal: _belief(signal, threshold, *_alike(signal, verdicts)).mean
            for signal in {**self.classes, "healthy": None}
        }

    def offers(self, now: float) -> dict[str, float]:
        """How often each class is a task's final result; shares that add up to 1."""
        counts = {signal: seen.offered * self._fade(seen, now) for signal, seen in self.classes.items()}
        return _shares(counts, _first_offers(counts))

    def another_seed(self, now: float) -> dict[str, float]:
        """How often another seed gives each class; shares that add up to 1."""
        first = {signal: seen.first * self._fade(seen, now) for signal, seen in self.classes.items()}
        prior = _shares(first, _first_offers(first))
        again = {signal: seen.again * self._fade(seen, now) for signal, seen in self.classes.items()}
        return _shares(again, {signal: share * _AGAIN_FROM_FIRST for signal, share in prior.items()})

    # --- kept over restarts -------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """As JSON values, by class."""
        return {signal: asdict(seen) for signal, seen in self.classes.items()}

    @classmethod
    def load(cls, values: Mapping[str, Any], half_life: float) -> Evidence:
        """Read ``dump``'s values; of what earlier versions wrote, as much as is still used.

        Raises:
            ValueError, TypeError: neither of them.
        """
        classes: dict[str, Seen] = {}
        for signal, value in values.items():
            if isinstance(value, Mapping):
                seen = Seen(**{name: value[name] for name in _SEEN if name in value})
            else:
                accepted, judged, at = (float(each) for each in value)
                seen = Seen(accepted=accepted, judged=judged, offered=judged, first=judged, at=at)
            if not all(isfinite(float(each)) for each in asdict(seen).values()):
                raise ValueError(f"evidence of {signal} is not finite")
            classes[signal] = seen
        return cls(half_life, classes)


def signal_of(report: FixReport, score: float | None) -> str:
    """The class of a result: a validation score where there is one, else the fixer's verdict."""
    if report.verdict == UNREPAIRABLE:
        return UNREPAIRABLE
    if not report.gates_pass:
        return FAILS_CHECKS
    return report.verdict.value if score is None else score_signal(score)


def score_signal(score: float) -> str:
    """The class of a validation score."""
    return _name(floor(min(1.0, max(0.0, score)) / SCORE_STEP + 1e-9))


def score_signals() -> Iterable[tuple[float, str]]:
    """Every class of scores below 1: its lowest score and its name."""
    return [(index * SCORE_STEP, _name(index)) for index in range(_BINS)]


@cache
def _name(index: int) -> str:
    return f"{_SCORE}{index * SCORE_STEP:.2f}"


@cache
def _bin(signal: str) -> int:
    return round(float(signal.removeprefix(_SCORE)) / SCORE_STEP)


def _belief(signal: str, threshold: float, accepted: float, judged: float) -> Belief:
    """A prior that gives way to what was seen, and what was seen."""
    mean, known = _prior(signal, threshold), _PRIOR_WEIGHT.get(signal)
    if known is not None:
        prior = _DEFAULT_WEIGHT + known * _holds(mean, known, accepted, judged)
    else:
        prior = _SCORE_WEIGHT if signal.startswith(_SCORE) else _DEFAULT_WEIGHT
    prior /= 1.0 + judged / _PRIOR_HALVED
    weight = prior + judged
    return Belief((mean * prior + accepted) / weight, weight)


def _holds(mean: float, weight: float, accepted: float, judged: float) -> float:
    """The chance that a class is accepted as its prior says, after so many verdicts (Bayes' rule).

    Against it stands a chance of acceptance that may be anything: one acceptance of what is known to fail is
    enough to doubt the prior.
    """
    if not judged:
        return _CHECKS_HOLD
    good, bad = mean * weight, (1.0 - mean) * weight
    rejected = max(0.0, judged - accepted)
    as_known = _log_beta(good + accepted, bad + rejected) - _log_beta(good, bad)
    anything = _log_beta(1.0 + accepted, 1.0 + rejected)
    odds = log((1.0 - _CHECKS_HOLD) / _CHECKS_HOLD) + anything - as_known
    return 1.0 / (1.0 + exp(min(700.0, odds)))


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _first_offers(counts: Mapping[str, float]) -> dict[str, float]:
    left = _FIRST_OFFERS * (1.0 - sum(counts.values()) / _FIRST_GONE)
    return {"healthy": left} if left > 0.0 or not counts else {}


@cache
def _prior(signal: str, threshold: float) -> float:
    if signal.startswith(_SCORE):
        score = _bin(signal) * SCORE_STEP + SCORE_STEP / 2
        return min(0.98, max(0.02, 1.0 / (1.0 + exp((threshold - score) / _SCORE_WIDTH))))
    return _PRIOR.get(signal, 0.5)


def _alike(signal: str, verdicts: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    """Accepted and judged results that say something of a class: neighbouring scores are evidence for each
    other.
    """
    if not signal.startswith(_SCORE):
        return verdicts.get(signal, (0.0, 0.0))
    accepted = judged = 0.0
    for name, weight in _neighbours(signal):
        if (verdict := verdicts.get(name)) is not None:
            accepted, judged = accepted + verdict[0] * weight, judged + verdict[1] * weight
    return accepted, judged


@cache
def _neighbours(signal: str) -> tuple[tuple[str, float], ...]:
    at = _bin(signal)
    return tuple((_name(index), exp(-((at - index) ** 2))) for index in range(at - 3, at + 4) if index >= 0)


def _shares(counts: Mapping[str, float], prior: Mapping[str, float]) -> dict[str, float]:
    total = sum(counts.values()) + sum(prior.values())
    return {
        signal: (counts.get(signal, 0.0) + prior.get(signal, 0.0)) / total for signal in {**counts, **prior}
    }


def _divergence(p: float, q: float) -> float:
    """Kullback-Leibler divergence of two coins, in nats."""
    p, q = min(1.0 - 1e-9, max(1e-9, p)), min(1.0 - 1e-9, max(1e-9, q))
    return p * log(p / q) + (1.0 - p) * log((1.0 - p) / (1.0 - q))
