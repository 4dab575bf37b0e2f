"""From the sums of one pass to a typed report with a verdict and its reasons."""

from __future__ import annotations

import math
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from sn17_splats import Splats
from sn17_splats.convention import MIN_GAUSSIANS

from sn17_fixer.conventions import foreign_conventions
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
from sn17_fixer.rows import ZERO_QUATERNION, good_rows
from sn17_fixer.scan import default_scanner
from sn17_fixer.scan.columns import (
    BINS_PER_LOGIT,
    COLUMNS,
    HISTOGRAM_LOW,
    OPACITY,
    POSITIONS,
    ROTATIONS,
    SCALES,
    Scan,
    Scanner,
)
from sn17_fixer.steps.placement import VALIDATOR_EXTENT
from sn17_fixer.strays import find_strays, generous_box

#: ln 9e-4, the least log-scale that the generator writes, and the step within which a file must reach it:
#: 8-bit log-scales are 1/16 apart.
SCALE_FLOOR: Final = math.log(9e-4)
SCALE_FLOOR_TOLERANCE: Final = 1 / 32
#: Sigma above this share of the extent is no detail of an object.
OVERSIZED_SHARE: Final = 0.5
FLAT_STD: Final = 0.05
#: A flat opacity is collapsed where it is below this (alpha 0.25); a flat opaque one is a style.
COLLAPSED_LOGIT: Final = -1.1
#: Alpha mistaken for a logit lies in 0..1 and spreads less than this.
ALPHA_STD: Final = 0.5
#: logit(1e-4), logit(1e-3) and their mirror images: where a clamp before a second logit ends up.
CLAMP_VALUES: Final = (-9.21034, -6.90675, 6.90675, 9.21034)
#: Single precision moves logit(0.9999) by 2e-4.
CLAMP_TOLERANCE: Final = 4e-4
REPEATED_LOGIT: Final = -6.0
REPEATED_SHARES: Final = (0.02, 0.95)
#: How much more frequent it is than the next.
REPEATED_DOMINANCE: Final = 5
DOUBLE_ACTIVATION_SHARE: Final = 0.5

_PERCENTS: Final = (1, 10, 50, 90, 99)


def diagnose(splats: Splats, *, scanner: Scanner | None = None, reference: Reference = TRELLIS) -> Diagnosis:
    """Describe ``splats`` in one pass and judge it; nothing is rendered and nothing changed.

    ``reference`` says which opacity of the generator's own files is suspect. An empty splat has the
    verdict ``unrepairable``.
    """
    scan = (scanner or default_scanner())(splats)
    opacity = _opacity(splats, scan)
    extents = _extents(splats, scan)
    fingerprint = Fingerprint(
        blocks_of_32=scan.count > 0 and scan.count % BLOCK == 0,
        scale_floor=abs(float(scan.minimum[SCALES].min()) - SCALE_FLOOR) <= SCALE_FLOOR_TOLERANCE,
    )
    gates = gates_of(scan.count, scan.transparent + opacity.nan, all_identity=_all_identity(scan))
    rotations = _rotations(splats, scan)
    bad_rows = _bad_rows(splats, scan, rotations)
    oversized = _oversized(splats, scan, extents)
    foreign = foreign_conventions(scan)
    reasons: list[Reason] = list(foreign)
    if opacity.nan:  # an infinite logit is opaque or transparent, not broken
        reasons.append(Reason.MISSING_OPACITY)
    if bad_rows > rotations.zero:
        reasons.append(Reason.NONFINITE_ROWS)
    if rotations.zero:
        reasons.append(Reason.ZERO_ROTATIONS)
    if oversized and Reason.LINEAR_SCALES not in foreign:
        reasons.append(Reason.OVERSIZED_SCALES)
    if extents.strays:
        reasons.append(Reason.STRAY_POINTS)
    signature = signature_of(opacity)
    if signature is not None:
        reasons.append(signature)
    elif fingerprint.is_trellis and is_suspect(opacity, reference):
        reasons.append(Reason.OPACITY_SUSPECT)
    reasons += [
        reason
        for reason, passed in (
            (Reason.TOO_FEW_GAUSSIANS, gates.enough_gaussians),
            (Reason.TOO_TRANSPARENT, gates.opaque_enough),
            (Reason.IDENTITY_ROTATIONS, gates.rotations_vary),
        )
        if not passed
    ]
    return Diagnosis(
        gaussians=scan.count,
        sh_degree=splats.sh_degree,
        columns=tuple(_column(scan, i) for i in range(len(COLUMNS))),
        opacity=opacity,
        extents=extents,
        rotations=rotations,
        fingerprint=fingerprint,
        gates=gates,
        bad_rows=bad_rows,
        oversized=oversized,
        verdict=_verdict(scan.count, gates, bad_rows, reasons),
        reasons=tuple(reasons),
    )


def signature_of(opacity: Opacity) -> Reason | None:
    """What happened to the opacity column, by features that no healthy file has."""
    mean, std = opacity.logit.mean, opacity.logit.std
    low, high = opacity.minimum, opacity.maximum
    if mean is None or std is None or low is None or high is None:
        return None
    infinite = opacity.pos_inf + opacity.neg_inf
    if std < FLAT_STD:
        collapsed = mean < COLLAPSED_LOGIT and not opacity.pos_inf
        return Reason.OPACITY_COLLAPSED if collapsed else None
    if low >= 0 and high <= 1 and std < ALPHA_STD and not infinite:
        return Reason.ALPHA_AS_LOGIT
    if double_activation_clamp(opacity) is not None:
        return Reason.DOUBLE_ACTIVATION
    least, most = REPEATED_SHARES
    if opacity.repeated is not None and not opacity.quantised and least <= opacity.repeated_share <= most:
        return Reason.OPACITY_CLAMPED
    return None


def double_activation_clamp(opacity: Opacity) -> float | None:
    """The clamp that a logit taken of logits ran into, or None where there was none.

    Half of the values or more sit at it, on either side, and none lie beyond.
    """
    if opacity.minimum is None or opacity.maximum is None or opacity.pos_inf or opacity.neg_inf:
        return None
    farthest = max(-opacity.minimum, opacity.maximum)
    for clamp in CLAMP_VALUES[2:]:
        share = opacity.clamp_shares[f"{clamp:.2f}"] + opacity.clamp_shares[f"{-clamp:.2f}"]
        opaque = opacity.clamp_shares[f"{clamp:.2f}"] > 0
        if opaque and share >= DOUBLE_ACTIVATION_SHARE and farthest <= clamp + CLAMP_TOLERANCE:
            return clamp
    return None


def is_suspect(opacity: Opacity, reference: Reference) -> bool:
    """Whether the generator's own file is so transparent that a render must tell."""
    mean = opacity.logit.mean
    total = sum(opacity.histogram)
    finite = total - opacity.pos_inf - opacity.neg_inf
    weighed = (mean or 0.0) * finite + CLAMP_LOGIT * (opacity.pos_inf - opacity.neg_inf)
    return total > 0 and weighed / total < reference.suspect_below


def _verdict(
    count: int, gates: Gates, bad_rows: int, reasons: list[Reason]
) -> Literal["healthy", "damaged", "unrepairable"]:
    # No repair adds gaussians or turns them; transparency may be damage that a repair undoes.
    if count - bad_rows < MIN_GAUSSIANS or not gates.rotations_vary:
        return "unrepairable"
    return "damaged" if reasons else "healthy"


def _all_identity(scan: Scan) -> bool:
    expected = np.array([1.0, 0, 0, 0])
    bounds = (scan.minimum[ROTATIONS], scan.maximum[ROTATIONS])
    finite = not scan.nonfinite[ROTATIONS].any()
    return scan.count > 0 and finite and all(bool((bound == expected).all()) for bound in bounds)


def _rotations(splats: Splats, scan: Scan) -> Rotations:
    zero = 0
    shortest, longest = scan.norms
    if shortest < ZERO_QUATERNION**2:
        with np.errstate(over="ignore", invalid="ignore"):
            squared = np.square(splats.rotations).sum(axis=1)
        zero = int(np.count_nonzero(squared < ZERO_QUATERNION**2))
    norms = [math.sqrt(value) if math.isfinite(value) else None for value in (shortest, longest)]
    return Rotations(zero, norms[0], norms[1])


def _bad_rows(splats: Splats, scan: Scan, rotations: Rotations) -> int:
    if not rotations.zero and not scan.nonfinite[:OPACITY].any() and math.isfinite(scan.norms[1]):
        return 0
    return scan.count - int(np.count_nonzero(good_rows(splats)))


def _opacity(splats: Splats, scan: Scan) -> Opacity:
    nan, pos_inf, neg_inf = (int(value) for value in scan.nonfinite[OPACITY])
    known = scan.count - nan
    column = _column(scan, OPACITY)
    percentiles = _percentiles(scan.histogram, column)
    mean = scan.alpha_total / known if known else None
    std = None
    if known and mean is not None:
        std = math.sqrt(max(scan.alpha_squares / known - mean * mean, 0.0))
    repeated, share, quantised = _repeated(splats, scan)
    coarse = scan.histogram[1:-1].reshape(-1, BINS_PER_LOGIT).sum(axis=1)
    coarse[0] += scan.histogram[0]
    coarse[-1] += scan.histogram[-1]
    return Opacity(
        nan=nan,
        pos_inf=pos_inf,
        neg_inf=neg_inf,
        minimum=column.minimum,
        maximum=column.maximum,
        logit=Spread(column.mean, column.std, *percentiles),
        alpha=Spread(mean, std, *(_sigmoid(value) for value in percentiles)),
        transparent_share=_share(scan.transparent, scan.count),
        clamp_shares={f"{value:.2f}": _share_at(splats, scan, value) for value in CLAMP_VALUES},
        repeated=repeated,
        repeated_share=share,
        quantised=quantised,
        histogram=tuple(int(count) for count in coarse),
    )


def _share_at(splats: Splats, scan: Scan, value: float) -> float:
    """Share of the logits at ``value``; counted only where the histogram allows 0.1 % or more."""
    place = int((value - HISTOGRAM_LOW) * BINS_PER_LOGIT) + 1
    if not scan.count or scan.histogram[place - 1 : place + 2].sum() < 1e-3 * scan.count:
        return 0.0
    with np.errstate(invalid="ignore"):
        at = np.abs(splats.opacity_logits - np.float32(value)) <= CLAMP_TOLERANCE
    return int(np.count_nonzero(at)) / scan.count


def _repeated(splats: Splats, scan: Scan) -> tuple[float | None, float, bool]:
    """The most frequent exact logit at or below -6 where it is frequent at all, its share, and whether
    the whole column holds so few different values that it went through 8 bits."""
    last = (int(REPEATED_LOGIT) - HISTOGRAM_LOW) * BINS_PER_LOGIT + 2
    low = scan.histogram[:last]
    finite_low = int(low.sum()) - int(scan.nonfinite[OPACITY, 2])
    if not scan.count or finite_low < REPEATED_SHARES[0] * scan.count:
        return None, 0.0, False
    logits = splats.opacity_logits
    below = logits[(logits <= REPEATED_LOGIT) & (logits > -np.inf) & (logits != np.float32(-CLAMP_LOGIT))]
    values, counts = np.unique(below, return_counts=True)
    if not len(values) or counts.max() < REPEATED_SHARES[0] * scan.count:
        return None, 0.0, False
    distinct = len(np.unique(logits[np.isfinite(logits)]))
    top = int(counts.argmax())
    if len(counts) > 1 and counts[top] < REPEATED_DOMINANCE * np.partition(counts, -2)[-2]:
        return None, 0.0, False  # one level among many of a quantised column
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


def _extents(splats: Splats, scan: Scan) -> Extents:
    low, high = scan.minimum[POSITIONS], scan.maximum[POSITIONS]
    if not np.isfinite(low).all():
        zero = (0.0, 0.0, 0.0)
        return Extents(zero, zero, 0.0, 0.0, 0.0, 0, 1.0, 0.0, zero)
    extent = float((high - low).max())
    box = generous_box(splats)
    strays = None
    if (low < box[0]).any() or (high > box[1]).any():
        strays = find_strays(splats, box)
    core = extent if strays is None or not strays.count else strays.core_extent
    finite = 3 * scan.count - int(scan.nonfinite[POSITIONS].sum())
    mean = float(scan.total[POSITIONS].sum()) / finite
    scale = VALIDATOR_EXTENT / extent if extent > 0 else 0.0
    offset = ((low + high) / 2 - mean) * scale
    return Extents(
        minimum=_triple(low),
        maximum=_triple(high),
        max_extent=extent,
        core_extent=core,
        scalar_mean=mean,
        strays=0 if strays is None else strays.count,
        size_ratio=extent / core if core > 0 else 1.0,
        alpha_factor=extent / VALIDATOR_EXTENT,
        offset=_triple(offset),
    )


def _oversized(splats: Splats, scan: Scan, extents: Extents) -> int:
    if extents.core_extent <= 0:
        return 0
    limit = math.log(OVERSIZED_SHARE * extents.core_extent)
    if scan.maximum[SCALES].max() <= limit and not scan.nonfinite[SCALES].any():
        return 0
    return int(np.count_nonzero((splats.log_scales > limit).any(axis=1)))


def _column(scan: Scan, i: int) -> Column:
    nan, pos_inf, neg_inf = (int(value) for value in scan.nonfinite[i])
    finite = scan.count - nan - pos_inf - neg_inf
    if not finite:
        return Column(COLUMNS[i], nan, pos_inf, neg_inf, None, None, None, None)
    mean = float(scan.total[i]) / finite
    variance = max(float(scan.squares[i]) / finite - (mean - float(scan.pivot[i])) ** 2, 0.0)
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
