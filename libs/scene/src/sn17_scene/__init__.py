"""The prompt grammar of the local network and where its scenes lie in space.

``parse`` and ``describe`` translate between prompts and scenes, ``layout`` says where every part of a
scene lies, ``lit`` how its surface is coloured. Generator and scorer share these four and nothing else:
each turns placed objects into voxels its own way, from the definitions in :data:`SHAPES`. ``imagine`` is for
the generator alone: a scene for texts that are not in the grammar.
"""

from sn17_scene.grammar import PromptError, describe, imagine, parse, random_prompt
from sn17_scene.layout import LIGHT, PlacedObject, layout, lit
from sn17_scene.model import (
    BASES,
    COLOURS,
    COUNTS,
    SHAPES,
    SIZES,
    STAR_INNER,
    TORUS_TUBE,
    Base,
    Rgb,
    Scene,
    SceneObject,
    Shape,
)

__all__ = [
    "BASES",
    "COLOURS",
    "COUNTS",
    "LIGHT",
    "SHAPES",
    "SIZES",
    "STAR_INNER",
    "TORUS_TUBE",
    "Base",
    "PlacedObject",
    "PromptError",
    "Rgb",
    "Scene",
    "SceneObject",
    "Shape",
    "describe",
    "imagine",
    "layout",
    "lit",
    "parse",
    "random_prompt",
]
