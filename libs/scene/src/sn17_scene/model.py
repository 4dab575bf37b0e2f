"""The vocabulary of the grammar and the values a prompt is parsed into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

Rgb = tuple[float, float, float]
Vector = tuple[float, float, float]

TORUS_TUBE: Final = 0.3
"""Radius of the torus' tube as a share of its outer radius."""
STAR_INNER: Final = 0.45
"""Radius of the star's inner corners as a share of the outer ones."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One solid of the grammar.

    ``aspect`` gives the half extents (x, y, z) relative to the largest. ``definition`` says which points
    are inside, in local coordinates ``u = (p - centre) / half_size`` with every ``|u_i| <= 1``,
    ``rho = hypot(ux, uz)``.
    """

    plural: str
    aspect: Vector
    definition: str


SHAPES: Final[Mapping[str, Shape]] = MappingProxyType(
    {
        "sphere": Shape("spheres", (1.0, 1.0, 1.0), "ux^2 + uy^2 + uz^2 <= 1"),
        "cube": Shape("cubes", (1.0, 1.0, 1.0), "max(|ux|, |uy|, |uz|) <= 1"),
        "cylinder": Shape("cylinders", (0.6, 1.0, 0.6), "rho <= 1"),
        "cone": Shape("cones", (0.7, 1.0, 0.7), "rho <= (1 - uy) / 2"),
        "pyramid": Shape("pyramids", (1.0, 0.9, 1.0), "max(|ux|, |uz|) <= (1 - uy) / 2"),
        "torus": Shape(
            "toruses",
            (1.0, 1.0, TORUS_TUBE),
            "(hypot(ux, uy) - (1 - TORUS_TUBE))^2 + (TORUS_TUBE uz)^2 <= TORUS_TUBE^2: stands up, axis z",
        ),
        "capsule": Shape("capsules", (0.5, 1.0, 0.5), "rho^2 + max(|2 uy| - 1, 0)^2 <= 1"),
        "dome": Shape("domes", (1.0, 0.5, 1.0), "rho^2 + ((uy + 1) / 2)^2 <= 1: half a ball, flat side down"),
        "diamond": Shape("diamonds", (0.8, 1.0, 0.8), "|ux| + |uy| + |uz| <= 1"),
        "star": Shape(
            "stars",
            (1.0, 1.0, 0.3),
            "(ux, uy) inside the pentagram polygon whose outer corners lie at radius 1 and angles "
            "90 + 72 k degrees, inner ones at STAR_INNER and 126 + 72 k degrees",
        ),
        "cross": Shape("crosses", (1.0, 1.0, 1.0), "at least two of |ux|, |uy|, |uz| are <= 1/3"),
        "wedge": Shape("wedges", (1.0, 0.7, 0.8), "uy <= ux: a ramp that rises to the right"),
    }
)

COLOURS: Final[Mapping[str, Rgb]] = MappingProxyType(
    {
        "red": (0.85, 0.10, 0.10),
        "orange": (0.95, 0.50, 0.05),
        "yellow": (0.92, 0.85, 0.10),
        "green": (0.10, 0.60, 0.15),
        "cyan": (0.10, 0.75, 0.80),
        "blue": (0.10, 0.20, 0.85),
        "purple": (0.50, 0.10, 0.65),
        "pink": (0.95, 0.45, 0.70),
        "brown": (0.45, 0.26, 0.10),
        "black": (0.06, 0.06, 0.06),
    }
)
"""sRGB in [0, 1]. No white: image prompts stand on white."""

COUNTS: Final[Mapping[str, int]] = MappingProxyType({"a": 1, "two": 2, "three": 3})
SIZES: Final[Mapping[str, float]] = MappingProxyType({"small": 0.55, "": 0.77, "large": 1.0})
"""Size word to the share of an object's slot that it fills; no word is the middle size."""
BASES: Final = ("table", "plate", "block")


@dataclass(frozen=True, slots=True)
class SceneObject:
    """``count`` equal objects standing side by side."""

    shape: str
    colour: str
    size: str = ""
    count: int = 1

    def __post_init__(self) -> None:
        if self.shape not in SHAPES or self.colour not in COLOURS or self.size not in SIZES:
            raise ValueError(f"not in the vocabulary: {self}")
        if self.count not in COUNTS.values():
            raise ValueError(f"count must be one of {sorted(COUNTS.values())}, not {self.count}")

    @property
    def rgb(self) -> Rgb:
        return COLOURS[self.colour]


@dataclass(frozen=True, slots=True)
class Base:
    """What the objects stand on."""

    kind: str
    colour: str

    def __post_init__(self) -> None:
        if self.kind not in BASES or self.colour not in COLOURS:
            raise ValueError(f"not in the vocabulary: {self}")

    @property
    def rgb(self) -> Rgb:
        return COLOURS[self.colour]


@dataclass(frozen=True, slots=True)
class Scene:
    objects: SceneObject
    base: Base | None = None
