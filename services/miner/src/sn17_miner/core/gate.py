"""Whether to hand in a result, try another seed, or skip: by accepted tasks per second of one validator.

A task occupies its validator for ``cycle`` seconds, and for ``penalty`` seconds more when the result is
rejected. Where ``rate`` tasks per second are accepted, handing in a result that is accepted with chance ``p``
is worth ``p * (1 + DUEL_WORTH) - rate * (1 - p) * penalty`` tasks, skipping it nothing. The rate is that of
the best choice for every class of results, so that where all results are of one class they are always handed
in, however rarely they are accepted.

A class is held back only where the evidence is sure that it does not pay. What is held back is handed in now
and then all the same, once no other seed promises more, and whenever the last few verdicts were good:
otherwise nobody would find out that it pays by now. Only what the fixer calls beyond repair is never handed
in: the validator's own gates refuse it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sn17_miner.core.evidence import UNREPAIRABLE, Evidence, Seen, score_signals

DUEL_WORTH: Final = 0.17
"""What an accepted result is worth beyond itself, in tasks. An empty or rejected result loses its duel, so
pay is accepted results times a rating that follows the share of won duels ``w`` as
``400 * log10(w / (1 - w))``: at a rating of 1300 and a share of 0.23 a hundredth more of accepted results is
0.17 hundredths more of rating."""
_GAIN: Final = 0.05
"""Tasks that another seed must promise: below that the worker is better used by the next task."""
TRY_EVERY: Final = 20
"""Of so many results of a class in a row one is handed in, although the class does not pay: at first and
after an acceptance every other one, half as many after each rejection."""


class Step(StrEnum):
    """What to do with a result."""

    SUBMIT = "submit"
    RETRY = "retry"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Outlook:
    """What to expect of a validator: accepted tasks per second, and the chance from which handing in pays."""

    rate: float
    break_even: float
    another_seed: float
    """Tasks that the result of another seed is worth."""

    @classmethod
    def of(cls, evidence: Evidence, *, cycle: float, penalty: float, threshold: float, now: float) -> Outlook:
        """From what was seen; ``cycle`` and ``penalty`` in seconds."""
        means = evidence.means(threshold=threshold, now=now)
        rate = best_rate(evidence.offers(now), means, cycle=cycle, penalty=penalty)
        another = sum(
            share * max(0.0, worth(means[signal], rate, penalty))
            for signal, share in evidence.another_seed(now).items()
        )
        return cls(rate, break_even(rate, penalty), another)


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything the choice depends on besides the outlook; seconds."""

    signal: str
    threshold: float
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
    now: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The step and why."""

    step: Step
    detail: str


def best_rate(
    offers: Mapping[str, float], chances: Mapping[str, float], *, cycle: float, penalty: float
) -> float:
    """Accepted tasks per second if every class is handed in that pays at that rate (policy iteration).

    ``offers``: how often each class comes up; ``chances``: how often each is accepted.
    """
    rate = 0.0
    for _ in range(len(offers) + 1):
        handed_in = [s for s in offers if worth(chances[s], rate, penalty) > 0.0]
        accepted = sum(offers[s] * chances[s] for s in handed_in)
        seconds = cycle + penalty * sum(offers[s] * (1.0 - chances[s]) for s in handed_in)
        better = accepted / seconds
        if better <= rate:
            break
        rate = better
    return rate


def worth(chance: float, rate: float, penalty: float) -> float:
    """Tasks gained by handing in against skipping."""
    return chance * (1.0 + DUEL_WORTH) - rate * (1.0 - chance) * penalty


def break_even(rate: float, penalty: float) -> float:
    """The chance from which handing in beats skipping."""
    cost = rate * penalty
    return cost / (1.0 + DUEL_WORTH + cost)


def choose(s: Situation, outlook: Outlook, evidence: Evidence) -> Choice:
    """Submit, try another seed, or skip."""
    belief = evidence.belief(s.signal, threshold=s.threshold, now=s.now)
    least = outlook.break_even
    hopeless = evidence.surely_below(s.signal, least, threshold=s.threshold, now=s.now)
    recent = evidence.recent(s.signal)
    better = hopeless and recent >= least
    figures = (
        f"{s.signal}: chance {belief.mean:.2f} ({belief.weight:.0f} verdicts), pays from {least:.2f} at"
        f" {outlook.rate * 3600:.1f} accepted an hour"
    )
    seen = evidence.classes.get(s.signal)
    held_back, every = (0 if seen is None else seen.held_back), _try_every(seen)
    beyond_repair = s.signal == UNREPAIRABLE
    late = max(0.0, s.elapsed + s.generation - s.throttle) - max(0.0, s.elapsed - s.throttle)
    again = outlook.another_seed - outlook.rate * late
    # Time that is not free is spent only where this result is surely the worse one.
    doubt = belief.upper if late > 0.0 and not hopeless else belief.mean
    likely = recent if better else doubt
    now_worth = 0.0 if beyond_repair else max(0.0, worth(likely, outlook.rate, s.penalty))
    if s.seeds_left > 0 and s.worker_free and s.generation < s.left and again > now_worth + _GAIN:
        return Choice(
            Step.RETRY, f"another seed is worth {again:.2f} tasks, this one {now_worth:.2f}; {figures}"
        )
    if hopeless and not better and not beyond_repair and held_back + 1 >= every:
        return Choice(Step.SUBMIT, f"to learn: {held_back} of these were held back in a row; {figures}")
    gain = worth(belief.mean, outlook.rate, s.penalty)
    if beyond_repair:
        return Choice(Step.SKIP, f"beyond repair is never handed in; {figures}")
    if better:
        return Choice(Step.SUBMIT, f"the last verdicts were better than before ({recent:.2f}); {figures}")
    if not hopeless:
        return Choice(Step.SUBMIT, f"handing in is worth {gain:+.2f} tasks against a skip; {figures}")
    hint = "no seed left" if s.seeds_left <= 0 else "no worker or time for another seed, or none pays"
    return Choice(
        Step.SKIP,
        f"handing in is worth {gain:+.2f} tasks, a rejection costs {s.penalty:g} s, a skip nothing; {hint};"
        f" {held_back + 1} held back in a row, the {every}th is handed in to learn; {figures}",
    )


def _try_every(seen: Seen | None) -> int:
    rejections = 0 if seen is None else seen.rejections
    return int(min(TRY_EVERY, 2.0 ** min(10, rejections + 1)))


def lowest_score(evidence: Evidence, *, threshold: float, least: float, now: float) -> float:
    """The lowest validation score that is handed in for sure as things stand (1 for none)."""
    good = (
        score
        for score, signal in score_signals()
        if not evidence.surely_below(signal, least, threshold=threshold, now=now)
    )
    return min(good, default=1.0)
