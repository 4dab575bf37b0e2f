"""One validator and the gate, in expected values: what the gate earns against handing everything in.

Verdicts are drawn, so that the gate learns as it does in life; what it earns is counted as chances and
expected seconds, and classes of results come up in an even sequence, so that days say what months would.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import log10, pi, sin
from random import Random
from typing import Final

from sn17_miner.core import gate
from sn17_miner.core.learning import Learned
from sn17_miner.core.timing import Timing

DAY: Final = 86400.0
_EVEN: Final = 0.6180339887498949
"""Multiples of it fill the unit interval evenly."""


@dataclass(frozen=True, slots=True)
class Steady:
    """A chance that stays."""

    chance: float

    def __call__(self, at: float) -> float:
        return self.chance


@dataclass(frozen=True, slots=True)
class Switching:
    """Two chances in turns, each for half of ``hours``."""

    low: float
    high: float
    hours: float

    def __call__(self, at: float) -> float:
        return self.low if at % (self.hours * 3600) < self.hours * 1800 else self.high


@dataclass(frozen=True, slots=True)
class Swinging:
    """A chance that goes up and down over the day, evenly."""

    low: float
    high: float

    def __call__(self, at: float) -> float:
        return (self.low + self.high) / 2 + (self.high - self.low) / 2 * sin(2 * pi * at / DAY)


@dataclass(frozen=True, slots=True)
class Duels:
    """Whom a miner meets: how often the other is accepted, and how often ours wins where both are."""

    opponent: float = 1.0
    wins: float = 0.5

    def rating(self, accepted: float) -> float:
        """That the share of won duels leads to against a rating of 1500, at a share of accepted results.

        An empty or rejected result loses, unless both are: that is a draw.
        """
        won = accepted * (1.0 - self.opponent + self.opponent * self.wins)
        won += (1.0 - accepted) * (1.0 - self.opponent) / 2
        won = min(0.99, max(0.01, won))
        return 1500.0 + 400.0 * log10(won / (1.0 - won))


@dataclass(frozen=True, slots=True)
class Kind:
    """A class of results: how often a seed gives it, and how often it is accepted at a time of day."""

    signal: str
    share: float
    chance: Callable[[float], float]
    """Of the seconds since the start."""


@dataclass(frozen=True, slots=True)
class LaneWorld:
    """Constants of the validator and of the miner's fleet; seconds."""

    kinds: tuple[Kind, ...]
    base_cooldown: float = 300.0
    penalty: float = 600.0
    throttle: float = 30.0
    generation: float = 12.0
    max_seeds: int = 3
    same_again: float = 0.5
    """How often another seed gives the same class, since the prompt is hard; else it is drawn anew."""
    days: float = 10.0
    restarts: float = 0.0
    """A day: what was learned goes through the journal's text."""
    duels: Duels = field(default_factory=Duels)

    def clear_gain(self) -> float:
        """What a gate that knows every chance earns with one seed, against handing everything in."""
        offers = {kind.signal: kind.share for kind in self.kinds}
        chances = {kind.signal: kind.chance(0.0) for kind in self.kinds}
        mean = sum(offers[signal] * chances[signal] for signal in offers)
        cycle = self.base_cooldown + max(0.0, 2.0 + self.generation - self.throttle)
        best = gate.best_rate(offers, chances, cycle=cycle, penalty=self.penalty)
        return best / (mean / (cycle + (1.0 - mean) * self.penalty))


@dataclass(slots=True)
class Earned:
    """Expected accepted results, seconds and tasks."""

    accepted: float = 0.0
    seconds: float = 0.0
    tasks: int = 0
    handed_in: int = 0
    again: int = 0

    @property
    def a_day(self) -> float:
        """Accepted results."""
        return self.accepted / self.seconds * DAY

    def pay(self, duels: Duels) -> float:
        """Accepted results a day times the rating that follows from the duels."""
        return self.a_day * duels.rating(self.accepted / self.tasks)


@dataclass(slots=True)
class Lane:
    """Plays one world. ``gated``: the real gate, else everything is handed in."""

    world: LaneWorld
    seed: int
    gated: bool = True
    time_scale: float = 1.0
    now: float = 1_700_000_000.0
    earned: Earned = field(default_factory=Earned)

    def play(self) -> Earned:
        """``days`` of it."""
        world, rng = self.world, Random(self.seed)
        policy = Timing(
            base_cooldown=world.base_cooldown,
            penalty=world.penalty,
            throttle=world.throttle,
            max_seeds=world.max_seeds,
        )
        learned = Learned.fresh(policy)
        started, even = self.now, rng.random()
        next_restart = DAY / world.restarts if world.restarts else float("inf")
        while self.earned.seconds < world.days * DAY:
            self.now = started + self.earned.seconds
            if self.earned.seconds > next_restart:
                learned = Learned.load(learned.dump(), policy)
                next_restart += DAY / world.restarts
            even = (even + _EVEN) % 1.0
            self._task(learned, policy, self._kind(even), rng)
        return self.earned

    def _task(self, learned: Learned, policy: Timing, first: Kind, rng: Random) -> None:
        world, best, drawn, elapsed = self.world, first, first, 2.0 + self.world.generation
        evidence, now, seeds = learned.evidence, self.now, 1
        if self.gated:
            evidence.drawn(drawn.signal, again=False, now=now)
        while True:
            situation = gate.Situation(
                signal=best.signal,
                threshold=0.6,
                penalty=learned.penalty,
                throttle=world.throttle,
                elapsed=elapsed,
                generation=world.generation,
                left=600.0 - elapsed,
                seeds_left=world.max_seeds - seeds,
                worker_free=True,
                now=now,
            )
            step = gate.Step.SUBMIT
            if self.gated:
                step = gate.choose(situation, learned.outlook(now), evidence).step
            if step is not gate.Step.RETRY:
                break
            evidence.passed_over(best.signal, now=now)
            drawn = drawn if rng.random() < world.same_again else self._kind(rng.random())
            evidence.drawn(drawn.signal, again=True, now=now)
            elapsed, seeds = elapsed + world.generation, seeds + 1
            self.earned.again += 1
            if self._likely(learned, drawn) > self._likely(learned, best):
                best = drawn
        handed_in = step is gate.Step.SUBMIT
        chance = best.chance(now - 1_700_000_000.0) if handed_in else 0.0
        if self.gated:
            evidence.decided(best.signal, handed_in=handed_in, now=now)
            if handed_in:
                evidence.judged(best.signal, accepted=rng.random() < chance, now=now)
            learned.delivered(elapsed)
        self.earned.tasks += 1
        self.earned.handed_in += handed_in
        self.earned.accepted += chance
        self.earned.seconds += world.base_cooldown + max(0.0, elapsed - world.throttle)
        self.earned.seconds += world.penalty * (1.0 - chance) * handed_in

    def _likely(self, learned: Learned, kind: Kind) -> float:
        return learned.evidence.belief(kind.signal, threshold=0.6, now=self.now).mean

    def _kind(self, point: float) -> Kind:
        for kind in self.world.kinds:
            point -= kind.share
            if point < 0.0:
                return kind
        return self.world.kinds[-1]


def ratio(world: LaneWorld, seed: int) -> tuple[float, float]:
    """What the gate earns against handing everything in: accepted a day, and pay."""
    ours, theirs = Lane(world, seed).play(), Lane(world, seed, gated=False).play()
    return ours.a_day / theirs.a_day, ours.pay(world.duels) / theirs.pay(world.duels)
