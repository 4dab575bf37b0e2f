"""The one array container that every room passes around, with the limits and errors of the codecs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

#: Number of ``f_rest`` columns (three channels) -> spherical-harmonics degree.
SH_DEGREE_BY_REST: Final = {0: 0, 9: 1, 24: 2, 45: 3}


class SplatError(ValueError):
    """The bytes are no splat that this library accepts; the message says what is wrong and where."""


class SplatTooLarge(SplatError):  # noqa: N818 (the interface name)
    """The splat is over a limit of :class:`Limits`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader accepts. ``max_bytes`` holds for the input and for what it unpacks to."""

    max_bytes: int = 500 * 1024**2
    max_gaussians: int = 5_000_000

    def check_bytes(self, size: int, what: str) -> None:
        """Raise :class:`SplatTooLarge` where ``size`` bytes of ``what`` are over the limit."""
        if size > self.max_bytes:
            raise SplatTooLarge(f"{what} of {size} bytes is over the limit of {self.max_bytes} bytes")

    def check_gaussians(self, count: int) -> None:
        """Raise :class:`SplatError` for no gaussians and :class:`SplatTooLarge` for too many."""
        if count < 1:
            raise SplatError("the splat holds no gaussians")
        if count > self.max_gaussians:
            raise SplatTooLarge(
                f"the header announces {count} gaussians, over the limit of {self.max_gaussians}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Splats:
    """Gaussians as a structure of arrays, float32 in the units of the INRIA PLY convention.

    Shapes: ``positions`` (n, 3); ``log_scales`` (n, 3), the natural logarithm of sigma; ``rotations``
    (n, 4) as w, x, y, z, not necessarily of unit length; ``opacity_logits`` (n,); ``f_dc`` (n, 3), the
    constant spherical-harmonics term; ``f_rest`` (n, 3k) with k in {3, 8, 15}, channel-major as in PLY
    (all of red, then green, then blue), or None.

    The arrays may be read-only strided views of one buffer: copy before writing. Other dtypes are
    converted to float32. Raises :class:`ValueError` where shapes do not fit together.
    """

    positions: Float32
    log_scales: Float32
    rotations: Float32
    opacity_logits: Float32
    f_dc: Float32
    f_rest: Float32 | None = None

    def __post_init__(self) -> None:
        n = len(self.positions)
        for name, shape in (
            ("positions", (n, 3)),
            ("log_scales", (n, 3)),
            ("rotations", (n, 4)),
            ("opacity_logits", (n,)),
            ("f_dc", (n, 3)),
        ):
            array = np.asarray(getattr(self, name), dtype=np.float32)
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
            object.__setattr__(self, name, array)
        if self.f_rest is not None:
            rest = np.asarray(self.f_rest, dtype=np.float32)
            if rest.ndim != 2 or len(rest) != n or rest.shape[1] not in (9, 24, 45):
                raise ValueError(f"f_rest has shape {rest.shape}, expected ({n}, 9), ({n}, 24) or ({n}, 45)")
            object.__setattr__(self, "f_rest", rest)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return 0 if self.f_rest is None else SH_DEGREE_BY_REST[self.f_rest.shape[1]]

    @property
    def nbytes(self) -> int:
        """Bytes that the gaussians take as float32, without padding or normals."""
        return len(self) * 4 * (14 + (0 if self.f_rest is None else self.f_rest.shape[1]))

    def select(self, index: NDArray[Any] | slice) -> Splats:
        """The gaussians that ``index`` (a mask, integers or a slice) picks, in its order."""
        return Splats(
            self.positions[index],
            self.log_scales[index],
            self.rotations[index],
            self.opacity_logits[index],
            self.f_dc[index],
            None if self.f_rest is None else self.f_rest[index],
        )

    def replace(self, **arrays: Any) -> Self:
        """A copy in which the named arrays are exchanged."""
        return dataclasses.replace(self, **arrays)
