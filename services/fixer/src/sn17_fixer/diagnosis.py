"""From the sums of one pass to a typed report with a verdict and its reasons."""

from __future__ import annotations

import math
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from sn17_splats import Splats

from sn17_fixer.gates import gates_of
from sn17_fixer.model import (
    BLOCK,
    CLAMP_LOGIT,
    Column,
    Diagnosis,
    Extents,
    Fingerprint,
    Gates,
    Opacity,
    Reason,
    Rotations,
    Spread,
)
from sn17_fixer.reference import TRELLIS, Reference
from sn17_fixer.scan import BINS_PER_LOGIT, CLAMP_VALUES, COLUMNS, HISTOGRAM_LOW, Scan, Scanner, generous_box
from sn17_fixer.scanners import default_scanner
from sn17_fixer.strays import Strays, find_strays

#: ln 9e-4, the least log-scale that the generator writes, and the step within which a file must reach it:
#: 8-bit log-scales are 1/16 apart.
SCALE_FLOOR: Final = math.log(9e-4)
SCALE_FLOOR_TOLERANCE: Final = 1 / 32
#: Sigma above this share of the extent is no detail of an object.
OVERSIZED_SHARE: Final = 0.5
FLAT_STD: Final = 0.05
#: A flat opacity is collapsed where it is more transparent than this; a flat opaque one is a style.
COLLAPSED_ALPHA: Final = 0.25
REPEATED_LOGIT: Final = -6.0
REPEATED_SHARES: Final = (0.02, 0.95)
DOUBLE_ACTIVATION_SHARE: Final = 0.5

_OPACITY: Final = COLUMNS.index("opacity")
_SCALES: Final = slice(3, 6)
_PERCENTS: Final = (1, 10, 50, 90, 99)


def diagnose(splats: Splats, *, scanner: Scanner | None = None, reference: Reference = TRELLIS) -> Diagnosis:
    """Describe ``splats`` in one pass and judge it; nothing is rendered and nothing changed.

    ``reference`` says which opacity of the generator's own files is suspect. An empty splat has the
    verdict ``unrepairable``.
    """
    box = generous_box(splats)
    scan = (scanner or default_scanner())(splats, box)
    opacity = _opacity(splats, scan)
    strays = find_strays(splats, box) if scan.outside else None
    extents = _extents(scan, strays)
    fingerprint = Fingerprint(
        blocks_of_32=scan.count > 0 and scan.count % BLOCK == 0,
        scale_floor=abs(float(scan.minimum[_SCALES].min()) - SCALE_FLOOR) <= SCALE_FLOOR_TOLERANCE,
    )
    gates = gates_of(scan.count, scan.transparent + opacity.nan, scan.identity_rotations)
    oversized = _oversized(splats, scan, extents)
    reasons = tuple(_reasons(scan, opacity, extents, fingerprint, gates, oversized, reference))
    return Diagnosis(
        gaussians=scan.count,
        sh_degree=splats.sh_degree,
        columns=tuple(_column(scan, i) for i in range(len(COLUMNS))),
        opacity=opacity,
        extents=extents,
        rotations=Rotations(
            identity_share=_share(scan.identity_rotations, scan.count),
            zero=scan.zero_rotations,
            norm_min=_finite(scan.norm_min),
            norm_max=_finite(scan.norm_max),
        ),
        fingerprint=fingerprint,
        gates=gates,
        bad_rows=scan.bad_rows,
        oversized=oversized,
        verdict=_verdict(scan, gates, reasons),
        reasons=reasons,
    )


def is_flat(opacity: Opacity) -> bool:
    """Whether the logits carry no information."""
    return opacity.logit.std is not None and opacity.logit.std < FLAT_STD and not opacity.pos_inf


def _reasons(
    scan: Scan,
    opacity: Opacity,
    extents: Extents,
    fingerprint: Fingerprint,
    gates: Gates,
    oversized: int,
    reference: Reference,
) -> list[Reason]:
    found = []
    if opacity.nan:  # an infinite logit is opaque or transparent, not broken
        found.append(Reason.MISSING_OPACITY)
    if scan.bad_rows > scan.zero_rotations:
        found.append(Reason.NONFINITE_ROWS)
    if scan.zero_rotations:
        found.append(Reason.ZERO_ROTATIONS)
    if oversized:
        found.append(Reason.OVERSIZED_SCALES)
    if extents.strays:
        found.append(Reason.STRAY_POINTS)
    signature = _signature(scan, opacity)
    if signature is not None:
        found.append(signature)
    elif fingerprint.is_trellis and opacity_suspect(opacity, reference):
        found.append(Reason.OPACITY_SUSPECT)
    if not gates.enough_gaussians:
        found.append(Reason.TOO_FEW_GAUSSIANS)
    if not gates.opaque_enough:
        found.append(Reason.TOO_TRANSPARENT)
    if not gates.rotations_vary:
        found.append(Reason.IDENTITY_ROTATIONS)
    return found


def _signature(scan: Scan, opacity: Opacity) -> Reason | None:
    """What happened to the opacity column, by marks that no healthy file carries."""
    finite = scan.count - int(scan.nonfinite[_OPACITY].sum())
    mean, std = opacity.logit.mean, opacity.logit.std
    if not finite or mean is None or std is None:
        return None
    if std < FLAT_STD:
        alpha = 1 / (1 + math.exp(-max(mean, -50)))
        collapsed = alpha < COLLAPSED_ALPHA and not opacity.pos_inf
        return Reason.OPACITY_COLLAPSED if collapsed else None
    if scan.unit_interval == finite and std < 0.5:
        return Reason.ALPHA_AS_LOGIT
    if double_activation_clamp(scan, opacity) is not None:
        return Reason.DOUBLE_ACTIVATION
    if opacity.repeated is not None and not opacity.quantised:
        low, high = REPEATED_SHARES
        if low <= opacity.repeated_share <= high:
            return Reason.OPACITY_CLAMPED
    return None


def double_activation_clamp(scan: Scan, opacity: Opacity) -> float | None:
    """The clamp that a logit taken of logits ran into, or None where there was none.

    Half of the values or more sit at it, on either side, and none beyond.
    """
    for index, clamp in ((3, CLAMP_VALUES[3]), (2, CLAMP_VALUES[2])):
        at = int(scan.clamped[index] + scan.clamped[len(CLAMP_VALUES) - 1 - index])
        within = max(-scan.minimum[_OPACITY], scan.maximum[_OPACITY]) <= clamp + 1e-3
        infinite = opacity.pos_inf + opacity.neg_inf
        if within and not infinite and scan.clamped[index] and at >= DOUBLE_ACTIVATION_SHARE * scan.count:
            return clamp
    return None


def opacity_suspect(opacity: Opacity, reference: Reference) -> bool:
    """Whether the generator's own file is so transparent that a render must tell."""
    finite_mean = opacity.logit.mean
    if finite_mean is None:
        return True
    known = opacity.pos_inf + opacity.neg_inf
    total = sum(opacity.histogram)
    mean = (finite_mean * (total - known) + CLAMP_LOGIT * (opacity.pos_inf - opacity.neg_inf)) / max(total, 1)
    return mean < reference.suspect_below


def _verdict(
    scan: Scan, gates: Gates, reasons: tuple[Reason, ...]
) -> Literal["healthy", "damaged", "unrepairable"]:
    # No repair adds gaussians or turns them; transparency may be damage that a repair undoes.
    if not gates.enough_gaussians or not gates.rotations_vary or scan.bad_rows == scan.count:
        return "unrepairable"
    return "damaged" if reasons else "healthy"


def _opacity(splats: Splats, scan: Scan) -> Opacity:
    nan, pos_inf, neg_inf = (int(value) for value in scan.nonfinite[_OPACITY])
    known = scan.count - nan
    column = _column(scan, _OPACITY)
    percentiles = _percentiles(scan.histogram, column)
    mean = scan.alpha_total / known if known else None
    std = math.sqrt(max(scan.alpha_squares / known - mean * mean, 0)) if known and mean is not None else None
    repeated, share, quantised = _repeated(splats, scan)
    coarse = scan.histogram[1:-1].reshape(-1, BINS_PER_LOGIT).sum(axis=1)
    coarse[0] += scan.histogram[0]
    coarse[-1] += scan.histogram[-1]
    return Opacity(
        nan=nan,
        pos_inf=pos_inf,
        neg_inf=neg_inf,
        logit=Spread(column.mean, column.std, *percentiles),
        alpha=Spread(mean, std, *(_sigmoid(value) for value in percentiles)),
        transparent_share=_share(scan.transparent, scan.count),
        unit_interval_share=_share(scan.unit_interval, scan.count),
        clamp_shares={
            f"{value:.2f}": _share(int(count), scan.count)
            for value, count in zip(CLAMP_VALUES, scan.clamped, strict=True)
        },
        repeated=repeated,
        repeated_share=share,
        quantised=quantised,
        histogram=tuple(int(count) for count in coarse),
    )


def _repeated(splats: Splats, scan: Scan) -> tuple[float | None, float, bool]:
    """The most frequent exact logit at or below -6 where it is frequent at all, its share, and whether
    the whole column holds so few different values that it went through 8 bits."""
    last = (int(REPEATED_LOGIT) - HISTOGRAM_LOW) * BINS_PER_LOGIT + 2
    low = scan.histogram[:last]
    finite_low = int(low.sum()) - int(scan.nonfinite[_OPACITY, 2])
    if not scan.count or finite_low < REPEATED_SHARES[0] * scan.count:
        return None, 0.0, False
    logits = splats.opacity_logits
    below = logits[(logits <= REPEATED_LOGIT) & (logits > -np.inf) & (logits != np.float32(-CLAMP_LOGIT))]
    values, counts = np.unique(below, return_counts=True)
    if not len(values) or counts.max() < REPEATED_SHARES[0] * scan.count:
        return None, 0.0, False
    distinct = len(np.unique(logits[np.isfinite(logits)]))
    top = int(counts.argmax())
    return float(values[top]), _share(int(counts[top]), scan.count), 2 < distinct <= 256


def _percentiles(histogram: NDArray[np.int64], column: Column) -> tuple[float | None, ...]:
    total = int(histogram.sum())
    if not total:
        return (None,) * len(_PERCENTS)
    cumulative = np.cumsum(histogram)
    found: list[float | None] = []
    for percent in _PERCENTS:
        rank = percent / 100 * total
        index = int(np.searchsorted(cumulative, rank))
        before = int(cumulative[index - 1]) if index else 0
        if index == 0 or index == len(histogram) - 1:
            # Beyond +-16 only the bounds are known, and infinite values have none.
            bound = column.minimum if index == 0 else column.maximum
            infinite = column.neg_inf if index == 0 else column.pos_inf
            found.append(None if infinite or bound is None else bound)
            continue
        part = (rank - before) / max(int(histogram[index]), 1)
        found.append(HISTOGRAM_LOW + (index - 1 + part) / BINS_PER_LOGIT)
    return tuple(found)


def _extents(scan: Scan, strays: Strays | None) -> Extents:
    low, high = scan.minimum[:3], scan.maximum[:3]
    if not np.isfinite(low).all():
        zero = (0.0, 0.0, 0.0)
        return Extents(zero, zero, 0.0, 0.0, 0.0, 0, 1.0, 0.0, zero)
    extent = float((high - low).max())
    core = extent if strays is None or not strays.count else strays.core_extent
    finite = 3 * scan.count - int(scan.nonfinite[:3].sum())
    mean = float(scan.total[:3].sum()) / finite
    scale = 1.5 / extent if extent > 0 else 0.0
    offset = ((low + high) / 2 - mean) * scale
    return Extents(
        minimum=_triple(low),
        maximum=_triple(high),
        max_extent=extent,
        core_extent=core,
        scalar_mean=mean,
        strays=0 if strays is None else strays.count,
        size_ratio=extent / core if core > 0 else 1.0,
        alpha_factor=extent / 1.5,
        offset=_triple(offset),
    )


def _oversized(splats: Splats, scan: Scan, extents: Extents) -> int:
    if extents.core_extent <= 0:
        return 0
    limit = math.log(OVERSIZED_SHARE * extents.core_extent)
    if scan.maximum[_SCALES].max() <= limit and not scan.nonfinite[_SCALES].any():
        return 0
    return int(np.count_nonzero((splats.log_scales > limit).any(axis=1)))


def _column(scan: Scan, i: int) -> Column:
    nan, pos_inf, neg_inf = (int(value) for value in scan.nonfinite[i])
    finite = scan.count - nan - pos_inf - neg_inf
    if not finite:
        return Column(COLUMNS[i], nan, pos_inf, neg_inf, None, None, None, None)
    mean = float(scan.total[i]) / finite
    variance = max(float(scan.squares[i]) / finite - mean * mean, 0.0)
    low, high = float(scan.minimum[i]), float(scan.maximum[i])
    return Column(COLUMNS[i], nan, pos_inf, neg_inf, low, high, mean, math.sqrt(variance))


def _sigmoid(logit: float | None) -> float | None:
    return None if logit is None else 1 / (1 + math.exp(-max(min(logit, 50), -50)))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
