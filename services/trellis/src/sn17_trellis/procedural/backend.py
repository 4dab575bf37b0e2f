"""The ``procedural`` backend: the grammar's scenes and extruded pictures, by numpy alone.

A generator for tests and demonstrations, not a model. A prompt outside the grammar gives some object, always
the same one: of the shape and colour that it names, else of ones that a hash of its words chooses.
"""

from __future__ import annotations

import math
import platform
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import sn17_scene
from sn17_contract.metrics import GenerationKind
from sn17_splats.convention import MIN_GAUSSIANS

from sn17_trellis.backend import (
    BadPrompt,
    BadSampling,
    Cancelled,
    EmptyStructure,
    Generation,
    IsCancelled,
    Job,
    Progress,
    Sampling,
)
from sn17_trellis.procedural.gaussians import PER_VOXEL, gaussians_of
from sn17_trellis.procedural.image import image_surface
from sn17_trellis.procedural.voxels import Surface, scene_surface

RESOLUTION: Final = 64
MIN_RESOLUTION: Final = 8
ALGORITHM: Final = 3
"""Raise it when the same job gives other bytes than before, so that canaries are not compared."""
CANARY_PROMPT: Final = "two small red toruses on a brown table"
CANARY_SEED: Final = 17
STEPS: Final = 3
STEP_SECONDS: Final = 0.05
BALLAST_PARTS: Final = 8
"""Weights come in piece by piece."""


class ProceduralBackend:
    """Scenes of ``sn17_scene`` as 64^3 surface voxels with 32 gaussians each; no model, no device.

    A scene of more than ``max_gaussians`` is made on a coarser grid, which keeps its surface closed; one that
    validators would reject as too small, on a finer one.
    """

    name = "procedural"
    models = ("text", "image")

    def __init__(
        self,
        max_gaussians: int,
        *,
        ballast_bytes: int = 0,
        load_seconds: float = 0.0,
        warmup_seconds: float = 0.0,
        job_seconds: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._ballast_bytes = ballast_bytes
        self._load_seconds = load_seconds
        self._warmup_seconds = warmup_seconds
        self._job_seconds = job_seconds
        self._sleep = sleep
        self._ballast: list[np.ndarray[tuple[int], np.dtype[np.uint8]]] = []
        self._max_voxels = max(1, max_gaussians // PER_VOXEL)
        self._clock = clock
        self.identity = (
            f"procedural/{ALGORITHM} max={self._max_voxels * PER_VOXEL} "
            f"numpy={np.__version__} {platform.machine()}"
        )

    def load(self) -> None:
        """There is nothing to load, but time and memory can be spent as if there were."""
        for _ in range(BALLAST_PARTS):
            if self._load_seconds:
                self._sleep(self._load_seconds / BALLAST_PARTS)
            if self._ballast_bytes:
                self._ballast.append(np.ones(self._ballast_bytes // BALLAST_PARTS, dtype=np.uint8))

    def warmup(self, progress: Progress, cancelled: IsCancelled) -> None:
        self._spend(self._warmup_seconds, progress, cancelled)
        self.generate(self.canary(), progress, cancelled)

    def generate(self, job: Job, progress: Progress, cancelled: IsCancelled) -> Generation:
        if job.sampling not in (Sampling(), Sampling(lane="exact")):
            raise BadSampling(
                "the procedural backend has no sampler: leave preset, steps, guidance and the fast lane out"
            )
        started = self._clock()
        self._spend(self._job_seconds, progress, cancelled)
        surface = self._fit(job)
        structure_done = self._step(1, progress, cancelled)
        if len(surface) == 0:
            raise EmptyStructure("the scene has no voxel at this resolution")
        splats = gaussians_of(surface, self._rng(job))
        done = self._step(2, progress, cancelled)
        progress("decode", STEPS, STEPS)
        return Generation(
            splats,
            len(splats),
            {"structure": structure_done - started, "gaussians": done - structure_done},
        )

    def cleanup(self) -> None:
        """There is nothing cached."""

    def gpu_memory(self) -> Mapping[str, int]:
        return {}

    def canary(self) -> Job:
        return Job(GenerationKind.CANARY, CANARY_SEED, prompt=CANARY_PROMPT)

    def close(self) -> None:
        self._ballast.clear()

    def _spend(self, seconds: float, progress: Progress, cancelled: IsCancelled) -> None:
        """Pass time in steps, as a sampler on a device would."""
        steps = round(seconds / STEP_SECONDS)
        for step in range(1, steps + 1):
            self._sleep(seconds / steps)
            progress("sample", step, steps)
            if cancelled():
                raise Cancelled

    def _fit(self, job: Job) -> Surface:
        """The finest grid whose surface has at most the allowed voxels."""
        finest = RESOLUTION
        make = self._source(job)
        surface = make(finest)
        if 0 < len(surface) * PER_VOXEL < MIN_GAUSSIANS:
            finest = 2 * RESOLUTION
            surface = make(finest)
        resolution = finest
        while len(surface) > self._max_voxels and resolution > MIN_RESOLUTION:
            coarser = math.floor(resolution * math.sqrt(self._max_voxels / len(surface)))
            resolution = max(MIN_RESOLUTION, min(resolution - 1, coarser))
            surface = make(resolution)
        while resolution < finest and len(finer := make(resolution + 1)) <= self._max_voxels:
            resolution, surface = resolution + 1, finer
        if len(surface) > self._max_voxels:
            keep = slice(0, self._max_voxels)
            surface = Surface(surface.resolution, surface.coordinates[keep], surface.rgb[keep])
        return surface

    def _source(self, job: Job) -> Callable[[int], Surface]:
        if job.image is not None:
            image = job.image
            return lambda resolution: image_surface(image, resolution)
        objects = sn17_scene.layout(_scene(job.prompt or ""))
        return lambda resolution: scene_surface(objects, resolution)

    @staticmethod
    def _rng(job: Job) -> np.random.Generator:
        """Seed and prompt (or picture) decide every number."""
        content = job.image.tobytes() if job.image is not None else (job.prompt or "").encode()
        return np.random.Generator(np.random.SFC64([job.seed, zlib.crc32(content)]))

    def _step(self, step: int, progress: Progress, cancelled: IsCancelled) -> float:
        progress(("structure", "gaussians")[step - 1], step, STEPS)
        if cancelled():
            raise Cancelled
        return self._clock()


def _scene(prompt: str) -> sn17_scene.Scene:
    try:
        return sn17_scene.parse(prompt)
    except sn17_scene.PromptError:
        pass
    try:
        return sn17_scene.imagine(prompt)
    except sn17_scene.PromptError as error:
        raise BadPrompt(str(error)) from None
