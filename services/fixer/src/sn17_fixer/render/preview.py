"""The grid of four views that judges look at."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from PIL import Image
from sn17_splats import Splats

from sn17_fixer.render.camera import IMAGE_SIZE, validator_camera
from sn17_fixer.render.scene import render, to_bytes, validator_model

VIEWS: Final = (1, 5, 9, 13)
GAP: Final = 5


def preview_png(splats: Splats, *, size: int = IMAGE_SIZE) -> bytes:
    """PNG of two by two views of ``size`` pixels each, 5 black pixels between them (1041 x 1041 by default).

    Raises :class:`sn17_splats.SplatError` where nothing can be drawn.
    """
    model = validator_model(splats)
    side = 2 * size + GAP
    grid = np.zeros((side, side, 3), np.uint8)
    for i, view in enumerate(VIEWS):
        row, column = (i // 2) * (size + GAP), (i % 2) * (size + GAP)
        picture, _ = render(model, validator_camera(view, size))
        grid[row : row + size, column : column + size] = to_bytes(picture)
    out = io.BytesIO()
    Image.fromarray(grid).save(out, "PNG")
    return out.getvalue()
