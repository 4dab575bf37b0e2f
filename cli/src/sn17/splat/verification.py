"""What was written is read back and compared, before anybody is told that it is fine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from sn17_splats import SplatError, Splats
from sn17_splats.convention import SH_C0

from sn17.splat.sniffing import Format


@dataclass(frozen=True, slots=True)
class Precision:
    """How exactly a format keeps a splat. Positions in its units; alpha in 0..1; colours as coefficients;
    scales as logarithms.

    ``colours`` and ``scales`` are the bounds beyond which values are cut off; ``degree`` the highest degree
    of spherical harmonics; ``ordered`` whether the order of the gaussians is kept.
    """

    position: float
    alpha: float
    colour: float
    scale: float
    colours: tuple[float, float] = (-np.inf, np.inf)
    scales: tuple[float, float] = (-np.inf, np.inf)
    degree: int = 3
    ordered: bool = True


_BYTE: Final = 1 / 255
_SPZ: Final = Precision(1 / 4096, _BYTE, 1 / 38.25, 1 / 16, (-3.34, 3.34), (-10.0, 5.9375))
PRECISIONS: Final = {
    Format.PLY: Precision(0.0, 0.0, 0.0, 0.0),
    Format.SUBNET: _SPZ,
    Format.NIANTIC: _SPZ,
    Format.SPLAT: Precision(
        0.0, _BYTE, _BYTE / SH_C0, 1e-4, (-0.5 / SH_C0, 0.5 / SH_C0), degree=0, ordered=False
    ),
}
"""Of the formats that are written."""


def losses(splats: Splats, back: Splats, kind: Format) -> list[str]:
    """What ``kind`` cannot hold of ``splats``, for the user to read; ``back`` is what was read again.

    Raises :class:`SplatError` where more was lost than the format says: a gaussian, a position, a colour.
    """
    precision = PRECISIONS[kind]
    if len(back) != len(splats):
        raise SplatError(
            f"as {kind} {len(back):,} of {len(splats):,} gaussians come back: nothing was written"
        )
    said = []
    if back.sh_degree != splats.sh_degree:
        if splats.sh_degree <= precision.degree:
            raise SplatError(
                f"as {kind} colours of degree {splats.sh_degree} come back with degree {back.sh_degree}: "
                "nothing was written"
            )
        said.append(f"{kind} has no room for colours of degree {splats.sh_degree}: {back.sh_degree} is kept")
    mine, theirs = (splats, back) if precision.ordered else (_sorted(splats), _sorted(back))
    _compare(kind, "position", mine.positions, theirs.positions, precision.position)
    _compare(kind, "opacity", _alpha(mine), _alpha(theirs), precision.alpha)
    _compare(kind, "scale", mine.log_scales.clip(*precision.scales), theirs.log_scales, precision.scale)
    if precision.ordered:
        _compare(kind, "colour", mine.f_dc.clip(*precision.colours), theirs.f_dc, precision.colour)
        cut = int(np.count_nonzero((mine.f_dc.clip(*precision.colours) != mine.f_dc).any(axis=1)))
        if cut:
            said.append(f"{cut:,} colours beyond what {kind} holds are cut off")
    return said


def _sorted(splats: Splats) -> Splats:
    order = np.lexsort(splats.positions.T)
    return splats.select(order)


def _alpha(splats: Splats) -> np.ndarray:
    with np.errstate(over="ignore"):
        alpha: np.ndarray = 1 / (1 + np.exp(-splats.opacity_logits.astype(np.float64)))
    return alpha


def _compare(kind: Format, what: str, mine: np.ndarray, theirs: np.ndarray, tolerance: float) -> None:
    """Raises :class:`SplatError` with the first gaussian that came back as another."""
    with np.errstate(invalid="ignore"):
        # Single precision on the way costs a last digit more.
        room = tolerance * 1.02 + 1e-6 * np.abs(mine)
        same = (np.abs(mine - theirs) <= room) | (np.isnan(mine) & np.isnan(theirs)) | (mine == theirs)
    wrong = np.flatnonzero(~same.reshape(len(mine), -1).all(axis=1))
    if len(wrong):
        first = int(wrong[0])
        raise SplatError(
            f"{kind} cannot hold this splat: the {what} of gaussian {first} is {_shown(mine[first])} and "
            f"comes back as {_shown(theirs[first])} ({len(wrong):,} of {len(mine):,}); nothing was written"
        )


def _shown(value: np.ndarray) -> str:
    return np.array2string(np.asarray(value, np.float64), precision=5, separator=" ")
