"""The validator's cameras."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

VIEWS: Final = 16
IMAGE_SIZE: Final = 518
RADIUS: Final = 2.5
FIELD_OF_VIEW: Final = 49.1  # degrees, vertical
ELEVATION: Final = 15.0  # degrees above the horizon


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """A square pinhole camera: ``rotation`` (3, 3) and ``translation`` (3,) take world points (y up) to view
    space (x right, y down, z forward);
    ``focal`` and ``size`` are in pixels."""

    rotation: NDArray[np.float32]
    translation: NDArray[np.float32]
    focal: float
    size: int


def validator_camera(view: int, size: int = IMAGE_SIZE) -> Camera:
    """One of the 16 views, 24 degrees apart: view 0 looks from the front (+z), view 15 is view 0."""
    theta = math.radians(view * 360 / (VIEWS - 1))
    phi = math.radians(ELEVATION)
    eye = RADIUS * np.array([math.cos(phi) * math.sin(theta), math.sin(phi), math.cos(phi) * math.cos(theta)])
    forward = -eye / RADIUS
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    rotation = np.stack([right, down, forward])
    focal = size / (2 * math.tan(math.radians(FIELD_OF_VIEW) / 2))
    return Camera(rotation.astype(np.float32), (-rotation @ eye).astype(np.float32), focal, size)
