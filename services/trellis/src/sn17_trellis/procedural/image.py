"""A front view to surface voxels: silhouette and colours, extruded and rounded towards the rim."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sn17_trellis.backend import BadImage
from sn17_trellis.procedural.voxels import Mask, Surface, shell

BACKGROUND_DISTANCE: Final = 0.08
"""Largest difference of any channel from the background that still counts as background."""
RIM_DEPTH: Final = 0.04
LAYER_DEPTH: Final = 0.025
MAX_HALF_DEPTH: Final = 0.2


def image_surface(image: NDArray[np.uint8], resolution: int) -> Surface:
    """Extrude an RGBA picture (h, w, 4) that spans the unit cube's front, x right, y up.

    Where the picture has transparency that is the silhouette, else whatever differs from white. The
    depth grows with the distance from the rim.

    Raises:
        BadImage: nothing stands out from the background.
    """
    pixels = _square(image, resolution)
    mask = _silhouette(pixels)
    if not mask.any():
        raise BadImage("the image shows nothing but background; send an object on white or on transparency")
    depth = _half_depth(mask)
    # Image rows run down and columns right; the grid's axes are x, y (up), z (towards the viewer).
    front = np.flipud(mask).T
    half = np.flipud(depth).T
    z = np.abs((np.arange(resolution, dtype=np.float32) + 0.5) / resolution - 0.5)
    solid = front[:, :, None] & (z[None, None, :] <= half[:, :, None])
    coordinates = np.argwhere(shell(solid)).astype(np.int32)
    colours = np.flipud(pixels[..., :3]).transpose(1, 0, 2)
    return Surface(resolution, coordinates, colours[coordinates[:, 0], coordinates[:, 1]])


def _square(image: NDArray[np.uint8], resolution: int) -> NDArray[np.float32]:
    """Fit the picture into a square of ``resolution`` on a white, transparent ground."""
    height, width = image.shape[:2]
    side = max(height, width)
    canvas = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    canvas.paste(Image.fromarray(image), ((side - width) // 2, (side - height) // 2))
    opaque = bool((image[..., 3] == 255).all())
    if opaque and height != width:
        padded = Image.new("RGBA", (side, side), (255, 255, 255, 255))
        padded.paste(canvas, mask=canvas.getchannel("A"))
        canvas = padded
    small = canvas.resize((resolution, resolution), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / np.float32(255)


def _silhouette(pixels: NDArray[np.float32]) -> Mask:
    alpha = pixels[..., 3]
    if alpha.min() < 0.5:
        inside: Mask = alpha >= 0.5
    else:
        inside = (1.0 - pixels[..., :3]).max(axis=-1) > BACKGROUND_DISTANCE
    return inside


def _half_depth(mask: Mask) -> NDArray[np.float32]:
    """Depth by layers of erosion from the rim."""
    depth = np.zeros(mask.shape, dtype=np.float32)
    layer = mask
    for reach in np.arange(RIM_DEPTH, MAX_HALF_DEPTH, LAYER_DEPTH, dtype=np.float32):
        if not layer.any():
            break
        depth[layer] = reach
        padded = np.pad(layer, 1)
        layer = layer & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return depth
