"""The grid of four views that judges look at."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sn17_splats import Splats

from sn17_fixer.render.camera import IMAGE_SIZE, validator_camera
from sn17_fixer.render.scene import render, to_bytes, validator_model

VIEWS: Final = (1, 5, 9, 13)
GAP: Final = 5


def preview(splats: Splats, *, size: int = IMAGE_SIZE) -> NDArray[np.uint8]:
    """Two by two views of ``size`` pixels each, 5 black pixels between them: (1041, 1041, 3) by default.

    Raises :class:`sn17_splats.SplatError` where nothing can be drawn.
    """
    model = validator_model(splats)
    side = 2 * size + GAP
    grid = np.zeros((side, side, 3), np.uint8)
    for i, view in enumerate(VIEWS):
        row, column = (i // 2) * (size + GAP), (i % 2) * (size + GAP)
        picture, _ = render(model, validator_camera(view, size))
        grid[row : row + size, column : column + size] = to_bytes(picture)
    return grid


def png(picture: NDArray[np.uint8]) -> bytes:
    """PNG of a picture (height, width, 3)."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()


def preview_png(splats: Splats, *, size: int = IMAGE_SIZE) -> bytes:
    """PNG of :func:`preview`. Raises :class:`sn17_splats.SplatError` where nothing can be drawn."""
    return png(preview(splats, size=size))
