"""The prompt image of an image task: the scene from the front, on white, orthographic."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sn17_scene import PlacedObject, layout, lit, parse

from sn17_devnet.solids import inside

IMAGE_SIZE: Final = 256
"""Pixels along an edge; the image spans the unit cube, x to the right, y up."""

_COARSE_STEPS: Final = 33
_BISECTIONS: Final = 6


MAX_PIXELS: Final = 16_000_000


class PictureError(ValueError):
    """The bytes are no picture that can be compared with."""


def read_picture(file: bytes, longest_edge: int = IMAGE_SIZE) -> NDArray[np.float32]:
    """Pixels (h, w, 3) in [0, 1] of an image file, transparency on white, at most ``longest_edge`` high and
    wide.

    Raises:
        PictureError: it cannot be decoded or has more than 16 million pixels.
    """
    try:
        with Image.open(io.BytesIO(file)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PictureError(f"{image.width} x {image.height} pixels are too many")
            rgba = image.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(f"not an image: {error}") from error
    on_white = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    on_white.thumbnail((longest_edge, longest_edge))
    return np.asarray(on_white, dtype=np.float32) / 255.0


@lru_cache(maxsize=64)
def render_front(prompt: str, size: int = IMAGE_SIZE) -> bytes:
    """The PNG file (RGB) of the scene that ``prompt`` describes.

    Raises:
        PromptError: the prompt is not in the grammar.
    """
    image = np.ones((size, size, 3), dtype=np.float32)
    nearest = np.full((size, size), -np.inf, dtype=np.float32)
    for part in layout(parse(prompt)):
        _draw(part, image, nearest)
    pixels = (np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, "RGB").save(file, "PNG")
    return file.getvalue()


def _draw(part: PlacedObject, image: NDArray[np.float32], nearest: NDArray[np.float32]) -> None:
    """Draw one part over what lies behind it. Row 0 is the top of the image."""
    size = len(image)
    coordinates = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    x = (coordinates - part.centre[0]) / part.half_size[0]
    y = (-coordinates - part.centre[1]) / part.half_size[1]
    rows, columns = np.ix_(np.abs(y) <= 1, np.abs(x) <= 1)
    ux, uy = np.broadcast_arrays(x[columns], y[rows])
    front = _front(part.shape, ux.ravel(), uy.ravel()).reshape(ux.shape)
    z = part.centre[2] + front * part.half_size[2]
    seen = z > nearest[rows, columns]
    nearest[rows, columns] = np.where(seen, z, nearest[rows, columns])
    colour = lit(part.rgb, np.stack([ux, uy, np.where(seen, front, 0.0)], axis=-1).reshape(-1, 3))
    image[rows, columns] = np.where(seen[..., None], colour.reshape(*ux.shape, 3), image[rows, columns])


def _front(shape: str, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """The local z (n,) of the surface nearest the viewer, -inf where the line of sight misses the solid."""

    def hit(z: NDArray[np.float32]) -> NDArray[np.bool_]:
        return inside(shape, np.stack([x, y, z], axis=-1))

    found = np.full(x.shape, -np.inf, dtype=np.float32)
    before = np.full(x.shape, 1.0, dtype=np.float32)
    step = 2.0 / (_COARSE_STEPS - 1)
    for z in np.linspace(1.0, -1.0, _COARSE_STEPS, dtype=np.float32):
        fresh = np.isinf(found) & hit(np.full_like(x, z))
        found[fresh] = z
        before[fresh] = min(1.0, z + step)
    near, far = before, np.where(np.isinf(found), -1.0, found).astype(np.float32)
    for _ in range(_BISECTIONS):
        middle = ((near + far) / 2).astype(np.float32)
        within = hit(middle)
        far = np.where(within, middle, far)
        near = np.where(within, near, middle)
    return np.where(np.isinf(found), -np.inf, far).astype(np.float32)
