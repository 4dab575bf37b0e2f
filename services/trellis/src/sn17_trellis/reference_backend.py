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

from sn17_service.contract import GenerationKind

from sn17_trellis.backend import BadSampling, EmptyStructure, Generation, IsCancelled, Job, Progress
from sn17_trellis.engine.config import PRESETS
from sn17_trellis.settings import WorkerSettings


class ReferenceBackend:
    """Text prompts through `TrellisTextTo3DPipeline`; its own PLY writer, byte for byte."""

    name = "reference"
    models = ("text",)

    def __init__(self, checkpoint: Path, preset: str = "phase1") -> None:
        self._checkpoint = checkpoint
        self._preset = preset
        self._pipeline: Any = None
        self.identity = f"reference {checkpoint.name} preset={preset}"

    def load(self) -> None:
        try:
            pipelines = importlib.import_module("trellis.pipelines")
        except ImportError as error:
            raise RuntimeError(
                f"the reference package is not installed ({error.name}); see github.com/microsoft/TRELLIS"
            ) from error
        self._pipeline = pipelines.TrellisTextTo3DPipeline.from_pretrained(str(self._checkpoint))
        self._pipeline.cuda()

    def warmup(self, progress: Progress, cancelled: IsCancelled) -> None:
        self.generate(self.canary(), progress, cancelled)

    def generate(self, job: Job, progress: Progress, cancelled: IsCancelled) -> Generation:
        name = job.sampling.preset or self._preset
        if name not in PRESETS:
            raise BadSampling(f"no preset {name[:40]!r}: choose one of {', '.join(PRESETS)}")
        preset, wish = PRESETS[name], job.sampling
        started = time.perf_counter()
        try:
            out = self._pipeline.run(
                job.prompt,
                seed=job.seed,
                formats=["gaussian"],
                sparse_structure_sampler_params={
                    "steps": wish.structure_steps or preset.structure_steps,
                    "cfg_strength": wish.structure_guidance or preset.structure_cfg,
                },
                slat_sampler_params={
                    "steps": wish.latent_steps or preset.latent_steps,
                    "cfg_strength": wish.latent_guidance or preset.latent_cfg,
                },
            )
        except RuntimeError as error:
            if "Expected reduction dim" in str(error):
                raise EmptyStructure("no voxel is occupied: try another seed or other words") from error
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
        return {}

    def canary(self) -> Job:
        return Job(GenerationKind.CANARY, 17, prompt="a small red cube")

    def close(self) -> None:
        self._pipeline = None


def create_backend(settings: WorkerSettings) -> ReferenceBackend:
    """The backend of the worker's settings, not loaded yet."""
    if settings.text_checkpoint is None:
        raise ValueError("the reference backend needs SN17_TEXT_CHECKPOINT")
    return ReferenceBackend(settings.text_checkpoint, settings.preset or "phase1")
