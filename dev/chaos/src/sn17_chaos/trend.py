"""Whether something grows: a robust slope over the last three quarters of a run, held against noise."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

POINTS = 400
TOLERANCE = 0.03
"""A growth below this share of the level is none: allocators round."""

Samples = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Trend:
    """``growth``: slope times length of the last three quarters; ``noise``: middle 90 % of what is left
    beside the slope. Both in the unit of the values."""

    name: str
    samples: int
    level: float
    slope_per_hour: float
    growth: float
    noise: float
    tolerance: float = TOLERANCE

    @property
    def flat(self) -> bool:
        return self.growth <= max(self.noise, self.tolerance * abs(self.level))


def trend(name: str, samples: Samples, *, tolerance: float = TOLERANCE) -> Trend:
    """Theil-Sen: the median slope of all pairs, which a few outliers do not move.

    samples: (seconds, value), in order. tolerance: share of the level below which a growth is none.

    Raises ValueError for fewer than eight in the last three quarters.
    """
    if not samples:
        raise ValueError(f"{name}: no samples")
    begin = samples[0][0] + (samples[-1][0] - samples[0][0]) / 4
    kept = [(at, value) for at, value in samples if at >= begin and math.isfinite(value)]
    if len(kept) < 8:
        raise ValueError(f"{name}: {len(kept)} samples are too few to tell a trend from")
    step = max(1, len(kept) // POINTS)
    times, values = np.array(kept[::step], dtype=float).T
    rows, columns = np.triu_indices(len(times), 1)
    slope = float(np.median((values[columns] - values[rows]) / (times[columns] - times[rows])))
    rest = values - slope * (times - times[0])
    low, high = np.percentile(rest, [5, 95])
    return Trend(
        name,
        len(kept),
        float(np.median(values)),
        slope * 3600,
        slope * float(times[-1] - times[0]),
        float(high - low),
        tolerance,
    )


def table(trends: Sequence[Trend], units: Mapping[str, float]) -> str:
    """One line per series; ``units``: what a value is divided by, by name."""
    head = f"{'':24}{'level':>12}{'slope / h':>12}{'growth':>12}{'noise':>12}   "
    lines = [head]
    for each in trends:
        unit = units.get(each.name, 1.0)
        numbers = (each.level, each.slope_per_hour, each.growth, each.noise)
        cells = "".join(f"{value / unit:12.2f}" for value in numbers)
        lines.append(f"{each.name:24}{cells}   {'flat' if each.flat else 'GROWS'}")
    return "\n".join(lines)


def rows(trends: Sequence[Trend]) -> list[dict[str, object]]:
    """As they are written to result files."""
    return [{**asdict(each), "flat": each.flat} for each in trends]


def write(path: Path, trends: Sequence[Trend], **about: object) -> None:
    path.write_text(json.dumps({**about, "trends": rows(trends)}, indent=1) + "\n")
