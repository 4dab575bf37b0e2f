"""Scores a submission against the scene its prompt describes, in place of the real service's neural metrics.

A model is seen as cameras see it: what is occupied, and the first colour met from six sides. Both are
compared with the same view of the scene's surface, apart for the objects and for the base they stand on,
since a large base would drown a wrong object. The worse part decides. An image task's model is compared
with the picture itself: silhouette and colours from the front, apart for bands of its height.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sn17_devnet import preprocess
from sn17_devnet.picture import PictureError, read_picture
from sn17_devnet.preprocess import Array, IntakeError, Model
from sn17_devnet.solids import surface

Mask = NDArray[np.bool_]

SPANS: Final = (40, 32, 24)
"""How many cells span a normalised model: as many as its gaussians are fine enough for."""
BORDER: Final = 4
"""Cells on either side of a normalised model."""
SIGMAS_PER_CELL: Final = 1.9

OPAQUE_MASS: Final = 0.7
"""A cell is occupied when light that crosses its gaussians is dimmed by half: -ln(1 - alpha) adds up to
0.7.
"""

VISIBLE_ALPHA: Final = 0.02
FULL_ALPHA: Final = 0.2
"""Mean opacity from which a model counts as solid."""
FOG_SIGMA: Final = 0.12
"""Gaussians larger than this are fog, not surface."""
BACKGROUND: Final = 0.06
"""How far from white a pixel has to be to belong to the object."""
BAND: Final = 8
BAND_CELLS: Final = 24
COLOUR_REACH: Final = 0.35
"""RGB distance at which colours count as different; the grammar's nearest two are 0.355 apart."""

PER_SURFACE_POINT: Final = 12.0
"""Gaussians for each point of the scene's surface from which a model is fine; the generator makes 14."""
FULL_SPREAD: Final = 0.03
"""Standard deviation of the opacities from which a surface counts as drawn softly; the generator's is 0.1."""

FRONT: Final = 5
"""Index of the view from +z."""


@dataclass(frozen=True, slots=True)
class View:
    """First surface met along an axis: ``hit`` (c, c), ``row`` the y cell of the hit, ``rgb`` (c, c, 3)."""

    hit: Mask
    depth: NDArray[np.int64]
    height: NDArray[np.int64]
    rgb: Array


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of a model: ``hull`` (c, c, c) is what lies between first and last surface on all three
    axes.
    """

    hull: Mask
    views: tuple[View, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """``value`` in 0 to 1, and what it is made of; ``reason`` names what pulled it down most."""

    value: float
    shape: float = 0.0
    colour: float = 0.0
    opacity: float = 0.0
    placement: float = 0.0
    detail: float = 1.0
    reason: str = ""


def score_text(
    data: str, scene: str, *, compression: int = 2, strictness: float = 1.0, detail: bool = False
) -> Score:
    """Judge the ``results`` of a submission for the prompt ``scene``.

    ``strictness`` is the exponent put on the score: above 1 it is harder to pass. With ``detail`` it matters
    how finely the model is drawn: how many gaussians there are, and whether their opacities differ.

    Raises:
        PromptError: ``scene`` is not in the grammar.
    """
    surface(scene)
    try:
        model = _take_in(data, compression)
    except IntakeError as error:
        return Score(0.0, reason=str(error))
    span = _span_for(model)
    seen = _look(model.points - _centre_of(model.points), model.rgb, model.alpha, span)
    shape, colour = _compare(seen, *_expected(scene, span))
    fine = _detail(model, len(surface(scene)[0])) if detail else 1.0
    return _combine(model, shape, colour, strictness, fine)


def score_image(data: str, picture: bytes, *, compression: int = 2, strictness: float = 1.0) -> Score:
    """Judge the ``results`` of a submission for a picture (an image file, the object on white).

    Raises:
        PictureError: the picture cannot be read, or shows nothing.
    """
    _front_of(picture, SPANS[0])
    try:
        model = _take_in(data, compression)
    except IntakeError as error:
        return Score(0.0, reason=str(error))
    span = _span_for(model)
    seen = _look(_fit_front(model.points), model.rgb, model.alpha, span).views[FRONT]
    shape, colour = _compare_front(seen, _front_of(picture, span))
    return _combine(model, shape, colour, strictness)


def _take_in(data: str, compression: int) -> Model:
    """Decode, check and normalise; what nobody could see is left out."""
    splats = preprocess.decode(data, compression=compression)
    preprocess.check(splats)
    model = preprocess.normalise(splats)
    seen = model.alpha > VISIBLE_ALPHA
    if not seen.any():
        raise IntakeError("nothing visible")
    return Model(model.points[seen], model.rgb[seen], model.alpha[seen], model.sigma[seen])


def _span_for(model: Model) -> int:
    """Cells no smaller than the gaussians: a model cannot be told apart more finely than it is made."""
    fit = preprocess.NORMAL_EXTENT / (SIGMAS_PER_CELL * max(float(np.median(model.sigma)), 1e-6))
    return next((span for span in SPANS if span <= fit), SPANS[-1])


def _detail(model: Model, surface_points: int) -> float:
    """1 for a model as the generator makes them; 0.7 where all opacities are alike."""
    spread = min(1.0, float(model.alpha.std()) / FULL_SPREAD)
    density = min(1.0, len(model.points) / (PER_SURFACE_POINT * surface_points))
    return float((0.7 + 0.3 * spread) * density**0.25)


def _combine(model: Model, shape: float, colour: float, strictness: float, detail: float = 1.0) -> Score:
    size = float((model.points.max(axis=0) - model.points.min(axis=0)).max()) / preprocess.NORMAL_EXTENT
    drift = float(np.abs(_centre_of(model.points)).max())
    placement = min(1.0, size / 0.95) ** 2 * min(1.0, max(0.0, 2.0 - 2.0 * drift))
    fog = float(model.alpha[model.sigma > FOG_SIGMA].sum() / model.alpha.sum())
    opacity = min(1.0, float(model.alpha.mean()) / FULL_ALPHA) * (1.0 - fog) ** 2
    parts = {"shape": shape, "colour": colour, "opacity": opacity, "placement": placement, "detail": detail}
    value = float(np.prod(list(parts.values()))) ** strictness
    return Score(value, **parts, reason=min(parts, key=lambda name: parts[name]))


def _centre_of(points: Array) -> Array:
    centre: Array = (points.max(axis=0) + points.min(axis=0)) / 2
    return centre


@lru_cache(maxsize=64)
def _expected(scene: str, span: int) -> tuple[Sight, int | None]:
    """The sight of the scene itself, and the cell row of its base's top."""
    points, rgb, floor = surface(scene)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = preprocess.NORMAL_EXTENT / float((high - low).max())
    centre = (low + high) / 2
    sight = _look((points - centre) * scale, rgb, np.ones(len(points), dtype=np.float32), span)
    if floor is None:
        return sight, None
    return sight, int((floor - centre[1]) * scale / preprocess.NORMAL_EXTENT * span + BORDER + span / 2)


@lru_cache(maxsize=64)
def _front_of(picture: bytes, span: int) -> View:
    """The picture as the view from the front: what is not white, one point for every pixel."""
    pixels = read_picture(picture)
    rows, columns = np.nonzero((1.0 - pixels).max(axis=-1) > BACKGROUND)
    if len(rows) == 0:
        raise PictureError("the picture is white all over")
    points = np.stack([columns, -rows, np.zeros_like(rows)], axis=-1).astype(np.float32)
    solid = np.ones(len(points), dtype=np.float32)
    return _look(_fit_front(points), pixels[rows, columns], solid, span).views[FRONT]


def _fit_front(points: Array) -> Array:
    """Centre the points, and scale them until their silhouette from the front has the normal extent."""
    low, high = points.min(axis=0), points.max(axis=0)
    extent = float((high - low)[:2].max())
    scaled: Array = (points - (low + high) / 2) * np.float32(preprocess.NORMAL_EXTENT / max(extent, 1e-6))
    # Depth is the generator's guess: squeeze it into the grid instead of cutting it off.
    scaled[:, 2] = np.clip(scaled[:, 2], -preprocess.NORMAL_EXTENT / 2, preprocess.NORMAL_EXTENT / 2)
    return scaled


def _look(points: Array, rgb: Array, alpha: Array, span: int) -> Sight:
    side = span + 2 * BORDER
    index = np.floor(points * (span / preprocess.NORMAL_EXTENT) + side / 2).astype(np.int64)
    kept = ((index >= 0) & (index < side)).all(axis=1)
    flat = np.ravel_multi_index(tuple(index[kept].T), (side,) * 3)
    weight = alpha[kept].astype(np.float64)
    cells = side**3
    mass = np.bincount(flat, -np.log1p(-np.minimum(weight, 0.999)), cells)
    total = np.maximum(np.bincount(flat, weight, cells), 1e-9)
    colour = np.stack([np.bincount(flat, weight * rgb[kept, c], cells) / total for c in range(3)], axis=-1)
    solid = (mass >= OPAQUE_MASS).reshape((side,) * 3)
    paint = colour.astype(np.float32).reshape((*solid.shape, 3))
    hull = np.ones_like(solid)
    for axis in range(3):
        ahead = np.logical_or.accumulate(solid, axis)
        behind = np.flip(np.logical_or.accumulate(np.flip(solid, axis), axis), axis)
        hull &= ahead & behind
    views = tuple(_view(solid, paint, axis, backwards) for axis in range(3) for backwards in (False, True))
    return Sight(hull, views)


def _view(solid: Mask, paint: Array, axis: int, backwards: bool) -> View:
    lines = np.moveaxis(solid, axis, 0)
    colours = np.moveaxis(paint, axis, 0)
    hit = lines.any(axis=0)
    first = (len(lines) - 1 - lines[::-1].argmax(axis=0)) if backwards else lines.argmax(axis=0)
    rgb = np.take_along_axis(colours, first[None, ..., None], axis=0)[0]
    heights = np.arange(len(lines))
    # The y axis is the second of x and z views' remaining ones, or the line of sight itself.
    height = first if axis == 1 else np.broadcast_to(heights if axis == 2 else heights[:, None], hit.shape)
    return View(np.asarray(hit), first, height, rgb)


def _compare(sight: Sight, expected: Sight, floor: int | None) -> tuple[float, float]:
    """Shape and colour, each of the worse part."""
    heights = np.arange(len(sight.hull))[:, None]
    # The row at the boundary belongs to neither part: a base half a cell too high is no object.
    parts = [heights >= 0] if floor is None else [heights > floor + 1, heights < floor]
    shapes = [_ratio(*_overlap(sight.hull & part, expected.hull & part)) for part in parts]
    colours = [_alike(sight.views, expected.views, part) for part in parts]
    return min(shapes), min(colours)


def _compare_front(view: View, wanted: View) -> tuple[float, float]:
    """Shape and colour of the worst band; bands that hold little of either view do not count."""
    both, missing, surplus = _overlap(view.hit, wanted.hit)
    close = _similarity(view.rgb, wanted.rgb)
    # Pixels at the rim are half background, whoever drew them.
    inner = _shrunk(view.hit) & _shrunk(wanted.hit)
    bands = [slice(None), *(slice(low, low + BAND) for low in range(0, len(view.hit), BAND))]
    shapes, colours = [], []
    for band in bands:
        shared = int(both[:, band].sum())
        wrong = int(missing[:, band].sum()) + int(surplus[:, band].sum())
        if shared + wrong >= BAND_CELLS:
            shapes.append(shared / (shared + wrong))
        if int(inner[:, band].sum()) >= BAND_CELLS:
            colours.append(float(close[:, band][inner[:, band]].mean()))
    if not colours and both.any():
        colours = [float(close[both].mean())]
    return min(shapes, default=0.0), min(colours, default=0.0)


def _overlap(seen: Mask, wanted: Mask) -> tuple[Mask, Mask, Mask]:
    """What both have, what is missing, what is too much; one cell of tolerance at the border."""
    return seen & wanted, wanted & ~_grown(seen), seen & ~_grown(wanted)


def _ratio(both: Mask, missing: Mask, surplus: Mask) -> float:
    """Intersection over union."""
    shared = int(both.sum())
    return shared / max(1, shared + int(missing.sum()) + int(surplus.sum()))


def _grown(mask: Mask) -> Mask:
    padded = np.pad(mask, 1)
    inner = (slice(1, -1),) * mask.ndim
    result = mask.copy()
    for axis in range(mask.ndim):
        for shift in (-1, 1):
            result |= np.roll(padded, shift, axis)[inner]
    return result


def _shrunk(mask: Mask) -> Mask:
    return ~_grown(~mask)


def _alike(views: tuple[View, ...], wanted: tuple[View, ...], part: Mask) -> float:
    """Mean similarity of the first colours met, over all views, where both meet something at the same
    depth.
    """
    values = []
    for view, want in zip(views, wanted, strict=True):
        met = view.hit & want.hit & part[want.height, 0] & (np.abs(view.depth - want.depth) <= 2)
        values.append(_similarity(view.rgb, want.rgb)[met])
    joined = np.concatenate(values)
    return float(joined.mean()) if len(joined) else 0.0


def _similarity(seen: Array, wanted: Array) -> Array:
    distance = np.linalg.norm(seen - wanted, axis=-1)
    similarity: Array = np.clip(1.0 - distance / COLOUR_REACH, 0.0, 1.0)
    return similarity
