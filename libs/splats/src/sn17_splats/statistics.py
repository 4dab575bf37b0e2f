"""Statistics of a splat in raw (logit, ln sigma) and user (alpha, sigma, rgb) space.

Moments are of the finite values, accumulated in float64; infinities and NaN are counted beside them and
never enter a mean. Alpha is taken per gaussian before it is averaged: the mean of sigmoids, not the
sigmoid of a mean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sn17_splats.container import Float32, Splats
from sn17_splats.convention import SH_C0, TRANSPARENT_ALPHA

HISTOGRAM_BINS: Final = 24


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """One column. ``minimum`` to ``p99`` are None where no value is finite; ``histogram`` counts the finite
    values in equal bins from ``minimum`` to ``maximum``."""

    name: str
    count: int
    nan: int
    pos_inf: int
    neg_inf: int
    minimum: float | None
    maximum: float | None
    mean: float | None
    std: float | None
    p01: float | None
    median: float | None
    p99: float | None
    histogram: tuple[int, ...]

    @property
    def finite(self) -> int:
        """How many values are finite."""
        return self.count - self.nan - self.pos_inf - self.neg_inf


@dataclass(frozen=True, slots=True)
class SplatStatistics:
    """A whole splat. ``raw`` holds the stored columns, ``user`` alpha, sigma and rgb; ``extent`` is the size
    of the bounding box of all finite positions; ``alpha_mean`` takes an infinite logit as opaque or
    transparent and leaves NaN out."""

    gaussians: int
    sh_degree: int
    raw: tuple[ColumnStatistics, ...]
    user: tuple[ColumnStatistics, ...]
    extent: tuple[float, float, float] | None
    center: tuple[float, float, float] | None
    alpha_mean: float | None
    transparent_share: float

    @property
    def logit(self) -> ColumnStatistics:
        """The raw opacity column."""
        return next(column for column in self.raw if column.name == "opacity")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def statistics(splats: Splats) -> SplatStatistics:
    """Describe every column of ``splats``; infinities and NaN are counted, never averaged."""
    raw = tuple(column_statistics(name, values) for name, values in raw_columns(splats))
    user = tuple(column_statistics(name, values) for name, values in user_columns(splats))
    box = [column for column in raw[:3] if column.minimum is not None and column.maximum is not None]
    alphas = alpha(splats.opacity_logits)
    known = alphas[~np.isnan(alphas)]
    transparent = int(np.count_nonzero(known < TRANSPARENT_ALPHA))
    return SplatStatistics(
        gaussians=len(splats),
        sh_degree=splats.sh_degree,
        raw=raw,
        user=user,
        extent=_triple(
            [c.maximum - c.minimum for c in box if c.maximum is not None and c.minimum is not None]
        ),
        center=_triple(
            [(c.maximum + c.minimum) / 2 for c in box if c.maximum is not None and c.minimum is not None]
        ),
        alpha_mean=float(known.mean(dtype=np.float64)) if known.size else None,
        transparent_share=transparent / len(splats) if len(splats) else 0.0,
    )


def alpha(logits: Float32) -> Float32:
    """Opacity in 0..1 of ``logits`` (any shape); +inf is 1, -inf is 0, NaN stays NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        out: Float32 = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return out


def raw_columns(splats: Splats) -> Iterator[tuple[str, Float32]]:
    """The stored columns by their PLY names (``f_rest`` as one column), each (n,) but for that one."""
    for i, axis in enumerate("xyz"):
        yield axis, splats.positions[:, i]
    for i in range(3):
        yield f"f_dc_{i}", splats.f_dc[:, i]
    if splats.f_rest is not None:
        yield "f_rest", splats.f_rest.reshape(-1)
    yield "opacity", splats.opacity_logits
    for i in range(3):
        yield f"scale_{i}", splats.log_scales[:, i]
    for i in range(4):
        yield f"rot_{i}", splats.rotations[:, i]


def user_columns(splats: Splats) -> Iterator[tuple[str, Float32]]:
    """The same in the units people think in: alpha, sigma per axis, red, green and blue."""
    yield "alpha", alpha(splats.opacity_logits)
    with np.errstate(over="ignore", invalid="ignore"):
        for i, axis in enumerate("xyz"):
            yield f"sigma_{axis}", np.exp(splats.log_scales[:, i])
        for i, name in enumerate(("red", "green", "blue")):
            yield name, np.float32(0.5) + np.float32(SH_C0) * splats.f_dc[:, i]


def column_statistics(name: str, values: NDArray[np.floating[Any]]) -> ColumnStatistics:
    """Describe ``values`` (n,)."""
    finite = values[np.isfinite(values)]
    counts = (
        int(np.count_nonzero(np.isnan(values))),
        int(np.count_nonzero(values == np.inf)),
        int(np.count_nonzero(values == -np.inf)),
    )
    if not finite.size:
        nothing = (None, None, None, None, None, None, None)
        return ColumnStatistics(name, len(values), *counts, *nothing, (0,) * HISTOGRAM_BINS)
    exact = finite.astype(np.float64)
    low, high = float(exact.min()), float(exact.max())
    p01, median, p99 = (float(value) for value in np.percentile(exact, (1, 50, 99)))
    span = high - low
    # Bins by hand: np.histogram refuses a range that is too narrow for float steps.
    bins = (
        ((exact - low) * (HISTOGRAM_BINS / span)).astype(np.intp)
        if span > 0
        else np.zeros(len(exact), np.intp)
    )
    histogram = np.bincount(bins.clip(0, HISTOGRAM_BINS - 1), minlength=HISTOGRAM_BINS)
    return ColumnStatistics(
        name,
        len(values),
        *counts,
        minimum=low,
        maximum=high,
        mean=float(exact.mean()),
        std=float(exact.std()),
        p01=p01,
        median=median,
        p99=p99,
        histogram=tuple(int(count) for count in histogram),
    )


def _triple(values: list[float]) -> tuple[float, float, float] | None:
    return (values[0], values[1], values[2]) if len(values) == 3 else None
