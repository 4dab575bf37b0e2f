"""The ``reference`` backend: Microsoft's own `trellis` package, where a user has installed it.

Never a dependency: it needs CUDA, spconv and more to import. It serves comparisons, not production.
"""

from __future__ import annotations

import importlib
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sn17_contract.metrics import GenerationKind

from sn17_trellis.backend import (
    BadSampling,
    EmptyStructure,
    Generation,
    GpuOutOfMemory,
    IsCancelled,
    Job,
    Progress,
)
from sn17_trellis.engine.config import PRESETS
from sn17_trellis.settings import WorkerSettings

PIPELINES = {"text": "TrellisTextTo3DPipeline", "image": "TrellisImageTo3DPipeline"}


class ReferenceBackend:
    """Prompts and pictures through the package's own pipelines and PLY writer, byte for byte.

    It knows no progress and cannot be cancelled between steps: a job is one step.
    """

    name = "reference"

    def __init__(self, text: Path | None = None, image: Path | None = None, preset: str = "phase1") -> None:
        self._directories = {"text": text, "image": image}
        self._preset = preset
        self._pipelines: dict[str, Any] = {}
        names = " ".join(f"{kind}={path.name}" for kind, path in self._directories.items() if path)
        self.identity = f"reference {names} preset={preset}"

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self._pipelines)

    def load(self) -> None:
        try:
            pipelines = importlib.import_module("trellis.pipelines")
        except ImportError as error:
            raise RuntimeError(
                f"the reference package is not installed ({error.name}); see github.com/microsoft/TRELLIS"
            ) from error
        for kind, directory in self._directories.items():
            if directory is not None:
                pipeline = getattr(pipelines, PIPELINES[kind]).from_pretrained(str(directory))
                pipeline.cuda()
                self._pipelines[kind] = pipeline

    def warmup(self, progress: Progress, cancelled: IsCancelled) -> None:
        self.generate(self.canary(), progress, cancelled)

    def generate(self, job: Job, progress: Progress, cancelled: IsCancelled) -> Generation:
        name = job.sampling.preset or self._preset
        if name not in PRESETS:
            raise BadSampling(f"no preset {name[:40]!r}: choose one of {', '.join(PRESETS)}")
        preset, asked = PRESETS[name], job.sampling
        progress("all", 0, 1)
        started = time.perf_counter()
        try:
            out = self._pipelines[job.model].run(
                job.prompt if job.image is None else Image.fromarray(job.image, "RGBA"),
                seed=job.seed,
                formats=["gaussian"],
                sparse_structure_sampler_params={
                    "steps": _chosen(asked.structure_steps, preset.structure_steps),
                    "cfg_strength": _chosen(asked.structure_guidance, preset.structure_cfg),
                },
                slat_sampler_params={
                    "steps": _chosen(asked.latent_steps, preset.latent_steps),
                    "cfg_strength": _chosen(asked.latent_guidance, preset.latent_cfg),
                },
            )
        except RuntimeError as error:
            if "Expected reduction dim" in str(error):
                raise EmptyStructure("no voxel is occupied: try another seed or other words") from error
            if "out of memory" in str(error):
                raise GpuOutOfMemory(str(error).splitlines()[0]) from error
            raise
        gaussian = out["gaussian"][0]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "asset.ply"
            gaussian.save_ply(str(path))
            ply = path.read_bytes()
        progress("all", 1, 1)
        return Generation(ply, len(gaussian.get_xyz), {"all": time.perf_counter() - started})

    def cleanup(self) -> None:
        """The package caches nothing that can be freed from outside."""

    def gpu_memory(self) -> Mapping[str, int]:
        cuda = importlib.import_module("torch").cuda
        if not cuda.is_available():
            return {}
        return {
            "allocated": cuda.memory_allocated(),
            "reserved": cuda.memory_reserved(),
            "free": cuda.mem_get_info()[0],
        }

    def canary(self) -> Job:
        if self._directories["text"] is not None:
            return Job(GenerationKind.CANARY, 17, prompt="a small red cube")
        picture = np.zeros((256, 256, 4), np.uint8)
        picture[64:192, 64:192] = (200, 30, 30, 255)
        return Job(GenerationKind.CANARY, 17, image=picture)

    def close(self) -> None:
        self._pipelines.clear()


def _chosen(asked: float | None, preset: float) -> float:
    return preset if asked is None else asked


def create_backend(settings: WorkerSettings) -> ReferenceBackend:
    """The backend of the worker's settings, not loaded yet."""
    if settings.text_checkpoint is None and settings.image_checkpoint is None:
        raise ValueError("the reference backend needs SN17_TEXT_CHECKPOINT or SN17_IMAGE_CHECKPOINT")
    return ReferenceBackend(settings.text_checkpoint, settings.image_checkpoint, settings.preset or "phase1")
