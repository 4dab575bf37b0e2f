"""The opacity that a generator's healthy assets have, and how to learn it from one's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Reference:
    """Mean and standard deviation of the logits of healthy assets, infinities modelled, not counted.

    A file of the generator with a mean below ``suspect_below`` is rendered before it is called healthy.
    """

    mean: float
    std: float
    assets: int

    @property
    def suspect_below(self) -> float:
        """One standard deviation below the mean."""
        return self.mean - self.std


#: Fitted to one real asset, with the values that 8-bit alpha censors modelled as a normal tail.
TRELLIS: Final = Reference(mean=3.86, std=2.78, assets=1)
