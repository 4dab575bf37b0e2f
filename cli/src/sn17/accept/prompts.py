"""The fixed prompts and seeds of the acceptance run.

They are in the grammar of the local network, so that the procedural backend understands them too, and plain
enough for any text-to-3D model: shapes, colours, sizes, one to three objects, with and without a base.
"""

from __future__ import annotations

from typing import Final

PROMPTS: Final[tuple[str, ...]] = (
    "a red sphere",
    "a large blue cube on a brown table",
    "two green cones",
    "three small yellow spheres on a black plate",
    "an orange torus",
    "a purple star on a pink block",
    "two large cyan cylinders",
    "a small brown pyramid",
    "three red cubes on a green block",
    "a yellow diamond",
    "a large pink dome on a blue plate",
    "two black capsules",
    "a green cross on an orange table",
    "three purple wedges",
    "a large brown cylinder",
    "two small orange domes on a cyan block",
    "a black torus on a yellow plate",
    "three pink diamonds",
    "a blue capsule on a brown block",
    "two large red stars",
)
FIRST_SEED: Final = 1701


def acceptance_prompts(count: int = len(PROMPTS)) -> tuple[tuple[str, int], ...]:
    """``count`` pairs of prompt and seed, always the same; beyond the list prompts return with new seeds."""
    return tuple((PROMPTS[i % len(PROMPTS)], FIRST_SEED + i) for i in range(count))
