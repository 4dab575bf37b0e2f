"""The ``torch`` backend: the TRELLIS engine behind the worker's protocol."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from pydantic import ValidationError
from sn17_contract.metrics import GenerationKind
from sn17_splats import Splats
from torch import nn

from sn17_trellis.backend import (
    BadImage,
    BadSampling,
    Cancelled,
    DeviceError,
    EmptyStructure,
    Generation,
    GenerationError,
    GpuOutOfMemory,
    IsCancelled,
    Job,
    ModelMissing,
    Progress,
    StructureTooLarge,
    UnusableOutput,
)
from sn17_trellis.engine.background import rembg_remover
from sn17_trellis.engine.calibration import Calibration, read_calibration
from sn17_trellis.engine.checkpoint import Repositories, fingerprint
from sn17_trellis.engine.conditioning import BackgroundRemover
from sn17_trellis.engine.config import PRESETS, Lane, SamplerParams
from sn17_trellis.engine.device import empty_caches, is_out_of_memory
from sn17_trellis.engine.errors import (
    CancelledError,
    CheckpointMissingError,
    DeviceMemoryError,
    EmptyStructureError,
    EngineError,
    ImageError,
    OutputError,
    StructureTooLargeError,
)
from sn17_trellis.engine.fast import FastRunner
from sn17_trellis.engine.pipeline import (
    MAX_VOXELS,
    Pipeline,
    Request,
    files_of,
    load_pipeline,
)
from sn17_trellis.engine.runners import EagerRunner, Runner
from sn17_trellis.engine.voxels import shell
from sn17_trellis.integrity import VerifiedFiles, manifest_directories
from sn17_trellis.settings import WorkerSettings

CANARY_PROMPT: Final = "two small red toruses on a brown table"
CANARY_SEED: Final = 17
WARM_VOXELS: Final[tuple[int, ...]] = (32_000, 16_000, 8_000, 4_000)
"""Sizes that a GPU is prepared for: objects have 8,000 to 30,000 voxels, models are trained up to 32,768.

The largest first: memory that was taken for it serves all smaller ones, and not the other way round.
"""
WARM_VOXELS_CPU: Final[tuple[int, ...]] = (64,)
FROM_CHECKPOINT: Final = "checkpoint"
"""Preset name for what the checkpoint's own `pipeline.json` asks for."""

log = logging.getLogger("sn17.trellis.torch")


def bundled_checkpoint() -> Path:
    """The small trained checkpoint that comes with this package."""
    return Path(str(resources.files("sn17_trellis") / "data" / "mini-text"))


@dataclass(frozen=True, slots=True)
class TorchConfig:
    """What the backend needs to know; ``preset`` None: phase1, or the bundled checkpoint's own values."""

    text_checkpoint: Path | None = None
    image_checkpoint: Path | None = None
    photographs: Literal["required", "refused"] = "required"
    model_roots: tuple[Path, ...] = ()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    attention: Literal["auto", "plain"] = "auto"
    preset: str | None = None
    max_voxels: int = MAX_VOXELS
    threads: int | None = None
    verified: Path | None = None
    """Where to note which fetched files were read through; None reads them at every start."""


class TorchBackend:
    """Text and image pipelines in one process; networks both use are held once."""

    name = "torch"

    def __init__(self, config: TorchConfig) -> None:
        bundled = config.text_checkpoint is None and config.image_checkpoint is None
        text = bundled_checkpoint() if bundled else config.text_checkpoint
        self._directories = {"text": text, "image": config.image_checkpoint}
        self._config = config
        self._preset = config.preset or (FROM_CHECKPOINT if bundled else "phase1")
        self._device = torch.device(
            ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
        )
        self._pipelines: dict[str, Pipeline] = {}
        self._calibrations: dict[str, Calibration] = {}
        self._verified = VerifiedFiles(config.verified)
        self._identity = "torch"
        self._weights = 0

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self._pipelines)

    @property
    def identity(self) -> str:
        return self._identity

    def load(self) -> None:
        try:
            self._load()
        except CheckpointMissingError as error:
            raise ModelMissing(f"{error}. {self._advice()}") from error

    def _load(self) -> None:
        if self._config.threads is not None:
            torch.set_num_threads(self._config.threads)
        on_gpu = self._device.type == "cuda"
        hopper = self._config.attention == "auto"
        runner: Runner = FastRunner(hopper=hopper) if on_gpu else EagerRunner()
        repositories = Repositories(self._config.model_roots)
        shared: dict[Path, nn.Module] = {}
        contents, verified = [], set[Path]()
        for kind, directory in self._directories.items():
            if directory is None:
                continue
            for fetched in manifest_directories(files_of(directory, repositories)):
                if fetched not in verified:
                    self._verified.verify(fetched)
                    verified.add(fetched)
            pipeline = load_pipeline(
                directory,
                self._device,
                dtype=None if on_gpu else torch.float32,
                repositories=repositories,
                shared=shared,
                runner=runner,
                remove_background=self._remover() if kind == "image" else None,
                max_voxels=self._config.max_voxels,
            )
            if pipeline.kind != kind:
                raise ValueError(f"{directory} is a checkpoint for {pipeline.kind}, not for {kind}")
            self._pipelines[kind] = pipeline
            content = fingerprint(directory, repositories)
            contents.append(f"{kind}={content}")
            self._read_lane(kind, directory, content)
        hardware = torch.cuda.get_device_name(self._device) if on_gpu else "cpu"
        self._identity = f"torch/{torch.__version__} {hardware} preset={self._preset} {' '.join(contents)}"
        if on_gpu:
            self._weights = torch.cuda.memory_allocated(self._device)
            self._load_kernels()

    def _load_kernels(self) -> None:
        """Use every kernel once, for a small structure; nothing of it stays but the kernels.

        To compile and load them takes the host seconds and the device next to nothing. In a warm-up, which
        has the device for itself between two pauses, a job of another process would wait for all of them.
        """
        for pipeline in self._pipelines.values():
            try:
                pipeline.warm_up(shell(WARM_VOXELS[-1], pipeline.latent_flow.config.resolution, self._device))
            except DeviceMemoryError as error:
                log.warning("kernels are loaded at the warm-up only: %s", error)
            pipeline.release()

    def _remover(self) -> BackgroundRemover | None:
        """Before any weights are read: without it the worker would refuse all photographs one by one."""
        found = rembg_remover()
        if isinstance(found, str) and self._config.photographs == "required":
            raise ModelMissing(
                f"image tasks: {found}; without it pictures that lack an alpha channel, all photographs that"
                " is, are refused. Install sn17-trellis[background] and its model, or set"
                " SN17_PHOTOGRAPHS=refused to take the other pictures only"
            )
        if isinstance(found, str):
            log.warning("image tasks: photographs will be refused: %s", found)
            return None
        return found

    def warmup(self, progress: Progress, cancelled: IsCancelled) -> None:
        """Capture graphs and fill memory pools, for structures of every usual size."""
        sizes = WARM_VOXELS if self._device.type == "cuda" else WARM_VOXELS_CPU
        sizes = tuple(size for size in sizes if size <= self._config.max_voxels) or sizes[-1:]
        jobs = [(pipeline, size) for pipeline in self._pipelines.values() for size in sizes]
        for done, (pipeline, size) in enumerate(jobs):
            if cancelled():
                return
            progress("warmup", done, len(jobs))
            at = partial(progress, "warmup", done, len(jobs))
            try:
                pipeline.warm_up(shell(size, pipeline.latent_flow.config.resolution, self._device), at)
            except DeviceMemoryError as error:
                log.warning("a structure of %d voxels does not fit this GPU: %s", size, error)
        progress("warmup", len(jobs), len(jobs))

    def generate(self, job: Job, progress: Progress, cancelled: IsCancelled) -> Generation:
        pipeline = self._pipelines[job.model]
        request, lane = self._request(job, pipeline)
        if job.kind is GenerationKind.CANARY:
            # Beside jobs of another process it lets them have the device between its steps.
            request = replace(request, steps_ahead=0)

        def on_step(stage: str, step: int, steps: int) -> None:
            if cancelled():
                raise CancelledError
            progress(stage, step, steps)

        with _translated():
            asset = pipeline.generate(request, on_step)
        t = asset.table
        splats = Splats(t[:, :3], t[:, 10:13], t[:, 13:17], t[:, 9], t[:, 6:9])
        return Generation(splats, len(splats), asset.stage_seconds, lane=lane)

    def cleanup(self) -> None:
        for pipeline in self._pipelines.values():
            pipeline.runner.free()
        empty_caches(self._device)

    def gpu_memory(self) -> Mapping[str, int]:
        if self._device.type != "cuda":
            return {}
        return {
            "weights": self._weights,
            "allocated": torch.cuda.memory_allocated(self._device),
            "reserved": torch.cuda.memory_reserved(self._device),
            "free": torch.cuda.mem_get_info(self._device)[0],
        }

    def canary(self) -> Job:
        if "text" in self._pipelines:
            return Job(GenerationKind.CANARY, CANARY_SEED, prompt=CANARY_PROMPT)
        return Job(GenerationKind.CANARY, CANARY_SEED, image=_test_picture())

    def close(self) -> None:
        self._pipelines.clear()
        self.cleanup()

    def _advice(self) -> str:
        """How to get what is missing. Repositories lie in folders OWNER/NAME, as `fetch` writes them."""
        given = [directory for directory in self._directories.values() if directory is not None]
        names = " ".join(f"{directory.parent.name}/{directory.name}@REVISION" for directory in given)
        return (
            f"Run: sn17-trellis fetch --into {given[0].parent.parent} {names}, with each further repository "
            "it names; in a cluster set trellis.model.revision and trellis.model.extra of the chart"
        )

    def _read_lane(self, kind: str, directory: Path, content: str) -> None:
        """The fast lane of a checkpoint, if it was calibrated for this very content."""
        try:
            calibration = read_calibration(directory)
        except EngineError as error:
            log.warning("no fast lane for %s: %s", kind, error)
            return
        if calibration is None:
            log.info("no fast lane for %s: %s was never calibrated", kind, directory)
        elif calibration.checkpoint != content:
            log.warning(
                "no fast lane for %s: it was calibrated for %s and this is %s; run sn17-trellis calibrate %s",
                *(kind, calibration.checkpoint, content, directory),
            )
        else:
            self._calibrations[kind] = calibration
            log.info("fast lane for %s, calibrated on %d prompts", kind, calibration.prompts)

    def _request(self, job: Job, pipeline: Pipeline) -> tuple[Request, Lane]:
        """What the engine is asked for, and in which lane. Raises BadSampling."""
        asked, name = job.sampling, job.sampling.preset or self._preset
        preset = PRESETS.get(name)
        lane: Lane = "fast" if (asked.lane or (preset.lane if preset else "exact")) == "fast" else "exact"
        if lane == "exact":
            structure, latents = self._parameters(job, pipeline)
            return Request(job.seed, structure, latents, prompt=job.prompt, image=job.image), lane
        calibration = self._calibrations.get(job.model)
        if calibration is None:
            raise BadSampling(
                f"no fast lane: this worker's {job.model} checkpoint has no calibration; "
                "ask for the lane 'exact', or run sn17-trellis calibrate"
            )
        if (name.removesuffix("-fast-lane"), *asked.steps_and_guidance) != (calibration.preset, *[None] * 4):
            raise BadSampling(
                f"the fast lane was calibrated for the preset {calibration.preset!r} "
                "with steps and guidance of its own: ask for no others"
            )
        first, second = calibration.structure.chosen, calibration.latents.chosen
        return Request(
            job.seed,
            first.params,
            second.params,
            prompt=job.prompt,
            image=job.image,
            structure_savings=first.savings,
            latent_savings=second.savings,
        ), lane

    def _parameters(self, job: Job, pipeline: Pipeline) -> tuple[SamplerParams, SamplerParams]:
        asked, (structure, latents) = job.sampling, pipeline.defaults
        name = asked.preset or self._preset
        if name != FROM_CHECKPOINT:
            if name not in PRESETS:
                known = ", ".join((*PRESETS, FROM_CHECKPOINT))
                raise BadSampling(f"no preset {name[:40]!r}: choose one of {known}")
            preset = PRESETS[name]
            structure = _overridden(structure, preset.structure_steps, preset.structure_cfg)
            latents = _overridden(latents, preset.latent_steps, preset.latent_cfg)
        return (
            _overridden(structure, asked.structure_steps, asked.structure_guidance),
            _overridden(latents, asked.latent_steps, asked.latent_guidance),
        )


def _overridden(params: SamplerParams, steps: int | None, guidance: float | None) -> SamplerParams:
    try:
        return params.override(steps=steps, cfg_strength=guidance)
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, each['loc']))} {each['msg']}" for each in error.errors())
        raise BadSampling(f"{reasons.strip()} (preset {FROM_CHECKPOINT!r} asks for nothing else)") from None


@contextmanager
def _translated() -> Iterator[None]:
    """Engine errors as the worker knows them."""
    try:
        yield
    except CancelledError:
        raise Cancelled from None
    except EmptyStructureError as error:
        raise EmptyStructure(str(error)) from None
    except StructureTooLargeError as error:
        raise StructureTooLarge(str(error)) from None
    except ImageError as error:
        raise BadImage(str(error)) from None
    except DeviceMemoryError as error:
        raise GpuOutOfMemory(str(error)) from None
    except OutputError as error:
        raise UnusableOutput(str(error)) from None
    except EngineError as error:
        raise GenerationError(str(error)) from None
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise GpuOutOfMemory(str(error).splitlines()[0]) from None
        if "CUDA error" not in str(error):
            raise
        kind = "illegal_address" if "illegal memory access" in str(error) else "cuda"
        raise DeviceError(kind, str(error).splitlines()[0]) from error


def _test_picture() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A red disc on nothing."""
    y, x = np.mgrid[:256, :256]
    inside = (x - 128) ** 2 + (y - 128) ** 2 < 90**2
    picture = np.zeros((256, 256, 4), np.uint8)
    picture[inside] = (200, 30, 30, 255)
    return picture


def create_backend(settings: WorkerSettings) -> TorchBackend:
    """The backend of the worker's settings, not loaded yet."""
    return TorchBackend(
        TorchConfig(
            text_checkpoint=settings.text_checkpoint,
            image_checkpoint=settings.image_checkpoint,
            photographs=settings.photographs,
            model_roots=settings.model_roots,
            device=settings.device,
            attention=settings.attention,
            preset=settings.preset,
            max_voxels=settings.max_voxels,
            threads=settings.torch_threads,
            verified=settings.spool_dir / "verified.json",
        )
    )
