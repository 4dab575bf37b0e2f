"""Whether assets get smaller as memory fills, learned from one life to the next. Pure.

Sizes differ from prompt to prompt by more than a life's fading shows at first. So they are kept by how far
memory had filled, over many lives, and nothing is concluded before the fuller part is surely the smaller one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

PARTS: Final = 8
"""Of the way from a fresh life at rest to the refusing level."""
KEPT: Final = 96.0
"""Assets of a part after which the oldest count for little: a checkpoint or the prompts may change."""
LEAST: Final = 4.0
"""Assets on either side before anything is concluded."""
LONGEST: Final = 1000
"""Jobs of a life that are thought of."""
SURE: Final = 3.0
"""Standard errors between the fuller and the emptier part of lives: asked again after every job."""


@dataclass(slots=True)
class Part:
    """Logarithms of sizes: how many, their mean, and the sum of squares around it; older ones fade."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """One more."""
        keep = 1.0 - 1.0 / KEPT
        self.count, self.squares = self.count * keep + 1.0, self.squares * keep
        apart = value - self.mean
        self.mean += apart / self.count
        self.squares += apart * (value - self.mean)


@dataclass(slots=True)
class Fading:
    """Sizes of assets by how far memory had filled."""

    parts: list[Part] = field(default_factory=lambda: [Part() for _ in range(PARTS)])
    _shares: list[float] | None = None
    _asked: bool = False

    def add(self, way: float, gaussians: int) -> None:
        """An asset; ``way`` from 0 (rest) to 1 (refusing level) is how far memory had filled with it."""
        if gaussians > 0:
            self._asked = False
            self.parts[_part(way)].add(math.log(gaussians))

    def shares(self) -> list[float] | None:
        """What is left of an asset by part, at most 1 and never rising; None where nothing surely fades.

        The best such sequence for the means (pool adjacent violators, weighted by count). Kept until the next
        asset.
        """
        if not self._asked:
            self._shares, self._asked = self._pooled(), True
        return self._shares

    def _pooled(self) -> list[float] | None:
        if not any(self._surely_smaller(part) for part in range(1, PARTS)):
            return None
        pools: list[tuple[float, float, int]] = []
        for part in self.parts:
            pool = (part.count, part.mean, 1)
            while pools and (pool[0] == 0 or pools[-1][0] == 0 or pools[-1][1] < pool[1]):
                weight, mean, parts = pools.pop()
                both = weight + pool[0]
                level = (weight * mean + pool[0] * pool[1]) / both if both else 0.0
                pool = (both, level, parts + pool[2])
            pools.append(pool)
        return [math.exp(mean - pools[0][1]) for _, mean, parts in pools for _ in range(parts)]

    def _surely_smaller(self, first: int) -> bool:
        """Whether the assets from a part on are smaller than those before it."""
        emptier, fuller = _together(self.parts[:first]), _together(self.parts[first:])
        count = emptier.count + fuller.count
        if min(emptier.count, fuller.count) < LEAST:
            return False
        variance = (emptier.squares + fuller.squares) / (count - 2.0)
        error = math.sqrt(variance * (1.0 / emptier.count + 1.0 / fuller.count))
        return emptier.mean - fuller.mean > SURE * error


@dataclass(frozen=True, slots=True)
class Costs:
    """What the end of a life costs. Seconds; ``job_way`` and ``beside_way`` are how far along the way a job
    and a second process beside the old one lead. The old one makes ``jobs_meanwhile`` jobs during a swap.
    """

    job_seconds: float
    job_way: float
    beside_way: float
    jobs_meanwhile: int
    swap_seconds: float
    """Of the device."""
    replace_seconds: float
    idle_seconds: float = 0.0
    """Between two jobs, because there was no work."""

    def life(self, jobs: int, act_seconds: float) -> float:
        """How long so many jobs and what ends them take: an act costs what idle time does not cover."""
        return jobs * self.job_seconds + max(act_seconds, jobs * self.idle_seconds)


@dataclass(frozen=True, slots=True)
class Best:
    """How far a life should fill, and what should end it then."""

    way: float
    swap: bool


def best(shares: Sequence[float], costs: Costs) -> Best:
    """The level and the act that give the most whole assets per second.

    An asset is taken to be worth as much as is left of it, also of those that are made while two processes
    share the memory.
    """
    found, most, worth, jobs = Best(1.0, swap=True), 0.0, 0.0, 0
    while (way := jobs * costs.job_way) < 1.0 and jobs < LONGEST:
        worth += shares[_part(way)]
        jobs += 1
        after = jobs * costs.job_way
        meanwhile = [after + costs.beside_way + n * costs.job_way for n in range(costs.jobs_meanwhile)]
        swapped = worth + sum(shares[_part(way)] for way in meanwhile)
        swapped /= costs.life(jobs + costs.jobs_meanwhile, costs.swap_seconds)
        replaced = worth / costs.life(jobs, costs.replace_seconds)
        if swapped > most and (not meanwhile or meanwhile[-1] <= 1.0):
            found, most = Best(after, swap=True), swapped
        if replaced > most:
            found, most = Best(after, swap=False), replaced
    return found


def _part(way: float) -> int:
    return min(PARTS - 1, max(0, int(way * PARTS)))


def _together(parts: Sequence[Part]) -> Part:
    count = sum(part.count for part in parts)
    if not count:
        return Part()
    mean = sum(part.count * part.mean for part in parts) / count
    squares = sum(part.squares + part.count * (part.mean - mean) ** 2 for part in parts)
    return Part(count, mean, squares)
