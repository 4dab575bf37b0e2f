"""Makes the tasks a validator hands out: a scene at random, told as a sentence or shown as a picture."""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass
from typing import Final

import numpy as np
from sn17_protocol import ImageTask, TextTask
from sn17_scene import layout, parse, random_prompt

from sn17_devnet.picture import render_front

MIN_AREA: Final = 0.25
"""Least area of all bounding boxes of a scene that is handed out: what is smaller cannot reach the 7000
gaussians that a validator asks for, at 32 for each surface voxel of a grid of 64."""


@dataclass(frozen=True, slots=True)
class SceneTask:
    """A task and the prompt of the scene that the validator has in mind with it."""

    task: TextTask | ImageTask
    scene: str


class TaskSource:
    """A seeded stream of tasks: the same seed gives the same tasks, ids included.

    Args:
        seed: any sequence of integers, as numpy takes them.
        image_ratio: share of image tasks, 0 to 1; 0.2 on the real network.
    """

    def __init__(self, seed: tuple[int, ...], image_ratio: float) -> None:
        self._rng = np.random.default_rng(seed)
        self._image_ratio = image_ratio

    def __call__(self) -> SceneTask:
        scene = random_prompt(self._rng)
        while _area(scene) < MIN_AREA:
            scene = random_prompt(self._rng)
        task_id = str(uuid.UUID(bytes=self._rng.bytes(16), version=4))
        if self._rng.random() < self._image_ratio:
            picture = base64.b64encode(render_front(scene)).decode()
            return SceneTask(ImageTask(type="image", id=task_id, prompt=picture), scene)
        return SceneTask(TextTask(id=task_id, prompt=scene), scene)


def _area(scene: str) -> float:
    halves = [part.half_size for part in layout(parse(scene))]
    return sum(8.0 * (x * y + y * z + z * x) for x, y, z in halves)
