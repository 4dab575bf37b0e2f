"""Values that diagnosis, repair and the service hand to each other. All are plain data and become JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from sn17_splats import Splats

#: Finite replacement for an infinite logit (alpha 0.9999). It is off the fingerprints of double activation
#: (logit of 0.9999 is 9.2103 or 9.2102), so that a repaired file is never taken for a damaged one.
CLAMP_LOGIT: Final = 9.2
#: The generator writes this many consecutive rows per voxel.
BLOCK: Final = 32

Scalar = int | float | str | bool


class PolicyName(StrEnum):
    """Which repairs are tried."""

    MEASURED = "measured"
    PHASE1 = "phase1"
    NONE = "none"


class Reason(StrEnum):
    """Findings of a diagnosis; closed, so that they can be counted."""

    MISSING_OPACITY = "missing_opacity"
    NONFINITE_ROWS = "nonfinite_rows"
    ZERO_ROTATIONS = "zero_rotations"
    OVERSIZED_SCALES = "oversized_scales"
    STRAY_POINTS = "stray_points"
    ALPHA_AS_LOGIT = "alpha_as_logit"
    DOUBLE_ACTIVATION = "double_activation"
    OPACITY_COLLAPSED = "opacity_collapsed"
    OPACITY_CLAMPED = "opacity_clamped"
    OPACITY_SUSPECT = "opacity_suspect"
    VISIBLY_TRANSPARENT = "visibly_transparent"
    LOW_MEAN_LOGIT = "low_mean_logit"
    TOO_FEW_GAUSSIANS = "too_few_gaussians"
    TOO_TRANSPARENT = "too_transparent"
    IDENTITY_ROTATIONS = "identity_rotations"
    LINEAR_SCALES = "linear_scales"
    ACTIVATED_COLOURS = "activated_colours"
    ROTATIONS_XYZW = "rotations_xyzw"


@dataclass(frozen=True, slots=True)
class Column:
    """One stored column. Moments and bounds are of the finite values, None where there are none."""

    name: str
    nan: int
    pos_inf: int
    neg_inf: int
    minimum: float | None
    maximum: float | None
    mean: float | None
    std: float | None


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation of the finite values; percentiles of all values but NaN, read off a
    histogram with bins of 1/64 logit, None where they are infinite."""

    mean: float | None
    std: float | None
    p01: float | None
    p10: float | None
    p50: float | None
    p90: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Opacity:
    """The opacity column in both spaces.

    ``alpha`` takes infinite logits as 0 and 1. ``histogram`` counts logits from -16 to 16 in bins of 1, the
    ends collecting what lies beyond. ``clamp_shares`` is the share of values at the logits that 1e-4, 1e-3
    and their complements map to; ``repeated`` the most frequent exact value at or below -6, with its share,
    where that share is above 2 %.
    """

    nan: int
    pos_inf: int
    neg_inf: int
    minimum: float | None
    maximum: float | None
    logit: Spread
    alpha: Spread
    transparent_share: float
    clamp_shares: dict[str, float]
    repeated: float | None
    repeated_share: float
    quantised: bool
    histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Extents:
    """Where the gaussians lie, in the units of the file.

    ``core_extent`` leaves the stray points out. The validator scales the largest extent to 1.5:
    ``size_ratio`` is how much larger the object would be drawn without the strays, ``alpha_factor`` what the
    validator multiplies every alpha with (before it clips at 1), ``offset`` how far off centre it draws the
    bounding box, in its own units.
    """

    minimum: tuple[float, float, float]
    maximum: tuple[float, float, float]
    max_extent: float
    core_extent: float
    scalar_mean: float
    strays: int
    size_ratio: float
    alpha_factor: float
    offset: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Rotations:
    """Quaternions: ``zero`` counts |q| < 1e-6; the norms are of the finite ones."""

    zero: int
    norm_min: float | None
    norm_max: float | None


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Signs of the generator: rows in blocks of 32, and the floor of its log-scales, ln 9e-4."""

    blocks_of_32: bool
    scale_floor: bool

    @property
    def is_trellis(self) -> bool:
        """Both signs are there."""
        return self.blocks_of_32 and self.scale_floor


@dataclass(frozen=True, slots=True)
class Gates:
    """The checks of the subnet's validator before it renders."""

    enough_gaussians: bool
    opaque_enough: bool
    rotations_vary: bool
    passed: bool


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that is known of a splat without rendering it."""

    gaussians: int
    sh_degree: int
    columns: tuple[Column, ...]
    opacity: Opacity
    extents: Extents
    rotations: Rotations
    fingerprint: Fingerprint
    gates: Gates
    bad_rows: int
    oversized: int
    verdict: Literal["healthy", "damaged", "unrepairable"]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class RenderCheck:
    """Accumulated alpha inside the geometric silhouette over a few small views.

    ``alpha_p10`` is its 10th percentile, ``coverage`` its mean; both are near 1 for a solid object.
    """

    alpha_p10: float
    coverage: float


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of a policy: how many gaussians it changed or dropped, and what it saw."""

    name: str
    changed: int
    detail: dict[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Repair:
    """What a step returns: the splat after it, and its line in the report."""

    splats: Splats
    step: Step
