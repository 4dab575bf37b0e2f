"""Prompts to scenes and back.

    prompt := count [size] colour shape ["on" article [colour] base]

Case, extra white space and a final full stop do not matter; a few everyday synonyms are understood
("ball", "ring", "big", "violet", "wooden" for brown). ``describe`` gives the one
canonical wording, so that ``parse(describe(scene)) == scene``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final, TypeVar

import numpy as np

from sn17_scene.model import BASES, COLOURS, COUNTS, SHAPES, SIZES, Base, Scene, SceneObject

T = TypeVar("T")

MAX_PROMPT: Final = 1024
_WORD: Final = re.compile(r"\w+")
DEFAULT_BASE_COLOUR: Final = "brown"

_COUNT_WORDS: Final = {**COUNTS, "an": 1, "one": 1, "the": 1, "1": 1, "2": 2, "3": 3}
_SIZE_WORDS: Final = {
    **{word: word for word in SIZES if word},
    "big": "large",
    "huge": "large",
    "tiny": "small",
    "little": "small",
    "medium": "",
}
_COLOUR_WORDS: Final = {
    **{word: word for word in COLOURS},
    "violet": "purple",
    "turquoise": "cyan",
    "wooden": "brown",
}
_SINGULAR: Final = {**{word: word for word in SHAPES}, "ball": "sphere", "box": "cube", "ring": "torus"}
_PLURAL: Final = {
    **{shape.plural: word for word, shape in SHAPES.items()},
    "balls": "sphere",
    "boxes": "cube",
    "rings": "torus",
    "tori": "torus",
}


class PromptError(ValueError):
    """The prompt is not in the grammar; the message says which word and what is understood."""


def parse(prompt: str) -> Scene:
    """Read a prompt into its scene.

    Raises:
        PromptError: a word is unknown or out of place, or the prompt is empty or too long.
    """
    if len(prompt) > MAX_PROMPT:
        raise PromptError(f"the prompt has {len(prompt)} characters; at most {MAX_PROMPT} are taken")
    words = prompt.strip().removesuffix(".").lower().split()
    if not words:
        raise PromptError("the prompt is empty; say for example 'two small red cubes on a green table'")
    if "on" in words:
        split = words.index("on")
        return Scene(_objects(words[:split]), _base(words[split + 1 :]))
    return Scene(_objects(words))


def imagine(text: str) -> Scene:
    """A scene for any text, the same for the same words: what the grammar knows of it, the rest by a hash.

    For texts that :func:`parse` refuses, and for a generator alone: whoever judges by a text outside the
    grammar knows nothing of what it should show.

    Raises:
        PromptError: there is nothing but white space.
    """
    words = _WORD.findall(text.lower()) or text.split()
    if not words:
        raise PromptError("the prompt is empty; say for example 'two small red cubes on a green table'")
    drawn = hashlib.sha256(" ".join(words).encode()).digest()
    place = words.index("on") if "on" in words else len(words)
    about, below = words[:place], words[place:]
    counts = {**_COUNT_WORDS, **dict.fromkeys(_PLURAL, 2)}
    base = _first(below, {kind: kind for kind in BASES})
    return Scene(
        SceneObject(
            _first(about, {**_SINGULAR, **_PLURAL}) or list(SHAPES)[drawn[0] % len(SHAPES)],
            _first(about, _COLOUR_WORDS) or list(COLOURS)[drawn[1] % len(COLOURS)],
            _first(about, _SIZE_WORDS) or "",
            max((counts[word] for word in about if word in counts), default=1),
        ),
        None if base is None else Base(base, _first(below, _COLOUR_WORDS) or DEFAULT_BASE_COLOUR),
    )


def describe(scene: Scene) -> str:
    """The canonical prompt of a scene."""
    objects = scene.objects
    noun = objects.shape if objects.count == 1 else SHAPES[objects.shape].plural
    number = next(word for word, count in COUNTS.items() if count == objects.count)
    words = [word for word in (number, objects.size, objects.colour, noun) if word]
    if scene.base is not None:
        words += ["on", "a", scene.base.colour, scene.base.kind]
    return " ".join(_with_article(words))


def random_prompt(rng: np.random.Generator) -> str:
    """A canonical prompt, every word drawn evenly; half of the scenes stand on a base."""

    def pick(words: Iterable[str]) -> str:
        choices = list(words)
        return choices[int(rng.integers(len(choices)))]

    objects = SceneObject(pick(SHAPES), pick(COLOURS), pick(SIZES), COUNTS[pick(COUNTS)])
    others = [colour for colour in COLOURS if colour != objects.colour]
    base = Base(pick(BASES), pick(others)) if rng.random() < 0.5 else None
    return describe(Scene(objects, base))


def _objects(words: list[str]) -> SceneObject:
    rest = list(words)
    count = _take(rest, _COUNT_WORDS, None, "a count")
    size = _take(rest, _SIZE_WORDS, "", "a size")
    colour = _take(rest, _COLOUR_WORDS, None, "a colour")
    shape = _take(rest, _SINGULAR if count == 1 else _PLURAL, None, "a shape")
    if rest:
        raise PromptError(f"nothing is understood after the shape but 'on' and a base; found {rest[0]!r}")
    return SceneObject(shape, colour, size, count)


def _base(words: list[str]) -> Base:
    rest = list(words)
    _take(rest, {"a": 1, "an": 1, "the": 1}, None, "an article")
    colour = _take(rest, _COLOUR_WORDS, DEFAULT_BASE_COLOUR, "a colour")
    kind = _take(rest, {kind: kind for kind in BASES}, None, "a base")
    if rest:
        raise PromptError(f"nothing is understood after the base; found {rest[0]!r}")
    return Base(kind, colour)


def _first(words: list[str], known: dict[str, str]) -> str | None:
    return next((known[word] for word in words if word in known), None)


def _take(words: list[str], known: dict[str, T], default: T | None, what: str) -> T:
    if words and words[0] in known:
        return known[words.pop(0)]
    if default is not None:
        return default
    found = repr(words[0][:40]) if words else "the end"
    raise PromptError(f"expected {what} ({', '.join(known)}), found {found}")


def _with_article(words: list[str]) -> list[str]:
    return [
        "an" if word == "a" and following.startswith(tuple("aeiou")) else word
        for word, following in zip(words, [*words[1:], ""], strict=True)
    ]
