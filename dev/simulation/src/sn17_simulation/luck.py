"""What a result's acceptance is worth before it is drawn: takes most of the chance out of a comparison.

A result is accepted or not by its quality, of which the miner saw a score at most. Given what it saw, the
chance of acceptance is known. The difference between what was accepted and those chances is luck, has mean 0,
and can be taken off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Final

_NORMAL: Final = NormalDist()


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality of a task's results: mean 0 and variance 1, ``same_prompt`` of it common to all seeds; scores
    see it with normal noise of standard deviation ``noise``.
    """

    same_prompt: float
    noise: float

    def chance(self, cutoff: float, seen: Sequence[float], which: int | None) -> float:
        """That the result ``which`` of those with a score (None: one without) is at least ``cutoff``.

        Args:
            cutoff: in units of quality, less what is added to this result.
            seen: scores of the task's results in the order of their seeds.
        """
        own = 1.0 - self.same_prompt
        spread = own + self.noise**2
        precision = 1.0 / self.same_prompt + len(seen) / spread
        prompt = sum(seen) / spread / precision
        if which is None:
            mean, variance = prompt, own + 1.0 / precision
        else:
            weight = own / spread
            mean = (1.0 - weight) * prompt + weight * seen[which]
            variance = own * (1.0 - weight) + (1.0 - weight) ** 2 / precision
        return _NORMAL.cdf((mean - cutoff) / sqrt(variance))
