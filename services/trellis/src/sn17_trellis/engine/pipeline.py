"""One checkpoint, loaded: from a prompt or an image to packed gaussians, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sn17_trellis.engine.checkpoint import (
    ModelPath,
    Repositories,
    build,
    fill,
    locate,
    read_pipeline,
    verify,
)
from sn17_trellis.engine.conditioning import (
    BackgroundRemover,
    ImageConditioner,
    RgbaImage,
    TextConditioner,
    conditioner_directory,
)
from sn17_trellis.engine.config import EXACT, ROLES, Normalization, PipelineConfig, SamplerParams, Savings
from sn17_trellis.engine.device import empty_caches, is_out_of_memory, settle
from sn17_trellis.engine.errors import (
    CheckpointError,
    DeviceMemoryError,
    EmptyStructureError,
    OutputError,
    StructureTooLargeError,
    UnsupportedRequestError,
)
from sn17_trellis.engine.gaussians import GaussianDecoder
from sn17_trellis.engine.latents import LatentFlow
from sn17_trellis.engine.runners import EagerRunner, Runner
from sn17_trellis.engine.sampler import STEPS_AHEAD, sample
from sn17_trellis.engine.structure import StructureDecoder, StructureFlow
from sn17_trellis.engine.voxels import Voxels
from sn17_trellis.engine.weights import Reader, onto

T = TypeVar("T")

Stage = Literal["condition", "structure", "structure_decode", "latents", "gaussians", "transfer"]
Progress = Callable[[Stage, int, int], None]
"""Called with (stage, steps done, steps in all): 0 at a stage's start, then as the device finishes each step.

Raising gives the job up.
"""

MAX_VOXELS = 60_000
"""Attention is quadratic in the voxels; released models were trained up to 32,768."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One asset to make: exactly one of prompt and image, a seed, and the parameters of both samplers."""

    seed: int
    structure: SamplerParams
    latents: SamplerParams
    prompt: str | None = None
    image: RgbaImage | None = None
    structure_savings: Savings = EXACT
    latent_savings: Savings = EXACT
    steps_ahead: int = STEPS_AHEAD
    """As for `sampler.sample`. 0: while progress is told the device has nothing left to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Asset:
    """Packed gaussians: float32 [M, 17] in the columns of `gaussians.COLUMNS`, on the host."""

    table: NDArray[np.float32]
    voxels: int
    stage_seconds: dict[str, float]


@dataclass(slots=True, eq=False)
class Pipeline:
    """The networks of one `pipeline.json` and what is needed to run them."""

    kind: Literal["text", "image"]
    device: torch.device
    flow: StructureFlow
    decoder: StructureDecoder
    latent_flow: LatentFlow
    gaussian_decoder: GaussianDecoder
    conditioner: TextConditioner | ImageConditioner
    normalization: Normalization
    defaults: tuple[SamplerParams, SamplerParams]
    runner: Runner = field(default_factory=EagerRunner)
    max_voxels: int = MAX_VOXELS

    @torch.inference_mode()
    def generate(self, request: Request, progress: Progress = lambda *_: None) -> Asset:
        """Make one asset. The same request on the same hardware and versions gives the same bytes.

        Raises an EngineError: EmptyStructureError, StructureTooLargeError, OutputError, DeviceMemoryError,
        ImageError, UnsupportedRequestError, or whatever `progress` raises.
        """
        return self._within_memory(lambda: self._generate(request, progress))

    @torch.inference_mode()
    def warm_up(self, voxels: Voxels, pause: Callable[[], None] = lambda: None) -> None:
        """Run everything for a structure of this size (`voxels.shell` makes one), four steps a stage.

        Afterwards kernels are compiled, graphs captured and memory pools large enough. ``pause`` is called
        between steps, when the device has done all it was given: whoever shares it may have it there.

        Raises DeviceMemoryError where a structure of this size does not fit.
        """
        self._within_memory(lambda: self._warm_up(voxels, pause))

    def _warm_up(self, voxels: Voxels, pause: Callable[[], None]) -> None:
        # Of times 1, 0.9, 0.75 and 0.5 two are guided: what is recorded is recorded at its second run.
        params = SamplerParams(steps=4, cfg_strength=1.0, cfg_interval=(0.8, 1.0), rescale_t=3.0)
        generator = torch.Generator().manual_seed(0)
        cond, uncond = self.conditioner.example()

        def rest(*_: object) -> None:
            settle(self.device)
            pause()

        noise = self.structure_noise(generator)
        latent = self.sample_structure(noise, cond, uncond, params, progress=rest, steps_ahead=0)
        self.decoder(latent)
        rest()
        noise = self.latent_noise(generator, voxels)
        latents = self.sample_latents(noise, cond, uncond, voxels, params, progress=rest, steps_ahead=0)
        rest()
        raw = self.runner.gaussians(self.gaussian_decoder, latents, voxels)
        packed = self.gaussian_decoder.represent(raw, voxels).pack()
        rest()
        self.to_host(packed)

    def _within_memory(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            message = str(error).splitlines()[0].split(". ", 1)[0]
        # Outside the handler: the exception's frames, which hold the tensors, are gone by now.
        self.release()
        raise DeviceMemoryError(f"the GPU ran out of memory: {message}")

    def release(self) -> None:
        """Give back what is kept for the next request and what the allocator caches."""
        self.runner.free()
        empty_caches(self.device)

    def _generate(self, request: Request, progress: Progress) -> Asset:
        seconds: dict[str, float] = {}
        generator = torch.Generator().manual_seed(request.seed)
        with self._timed("condition", seconds, progress):
            cond, uncond = self.condition(request)
        with self._timed("structure", seconds):
            latent = self.sample_structure(
                *(self.structure_noise(generator), cond, uncond, request.structure),
                progress=progress,
                savings=request.structure_savings,
                steps_ahead=request.steps_ahead,
            )
        with self._timed("structure_decode", seconds, progress):
            voxels = self.decode_structure(latent)
        with self._timed("latents", seconds):
            noise = self.latent_noise(generator, voxels)
            latents = self.sample_latents(
                *(noise, cond, uncond, voxels, request.latents),
                progress=progress,
                savings=request.latent_savings,
                steps_ahead=request.steps_ahead,
            )
        with self._timed("gaussians", seconds, progress):
            packed = self.decode_gaussians(latents, voxels)
        with self._timed("transfer", seconds, progress):
            table = self.to_host(packed)
        return Asset(table, len(voxels), seconds)

    def condition(self, request: Request) -> tuple[Tensor, Tensor]:
        """Condition and its absence, each [1, M, C]."""
        if isinstance(self.conditioner, TextConditioner):
            if request.prompt is None:
                raise UnsupportedRequestError("this checkpoint takes a prompt, not an image")
            return self.conditioner.condition(request.prompt)
        if request.image is None:
            raise UnsupportedRequestError("this checkpoint takes an image, not a prompt")
        return self.conditioner.condition(request.image)

    def structure_noise(self, generator: torch.Generator) -> Tensor:
        """First draw of the job's CPU generator."""
        config = self.flow.config
        shape = (1, config.in_channels, *[config.resolution] * 3)
        return torch.randn(shape, generator=generator).to(self.device)

    def latent_noise(self, generator: torch.Generator, voxels: Voxels) -> Tensor:
        """Second draw of the job's CPU generator."""
        return torch.randn((len(voxels), self.latent_flow.config.in_channels), generator=generator).to(
            self.device
        )

    def sample_structure(
        self,
        noise: Tensor,
        cond: Tensor,
        uncond: Tensor,
        params: SamplerParams,
        *,
        progress: Progress = lambda *_: None,
        savings: Savings = EXACT,
        steps_ahead: int = STEPS_AHEAD,
    ) -> Tensor:
        """Structure latent [1, C, r, r, r]."""
        velocity = self.runner.structure(self.flow, params, cond, uncond)
        told = partial(progress, "structure")
        return sample(velocity, noise, params, told, savings, steps_ahead=steps_ahead)

    def decode_structure(self, latent: Tensor) -> Voxels:
        """Occupied voxels in lexicographic order."""
        occupied = self.decoder(latent) > 0
        coords = torch.argwhere(occupied)[:, [0, 2, 3, 4]].int()
        if not len(coords):
            raise EmptyStructureError("no voxel is occupied: try another seed or other words")
        if len(coords) > self.max_voxels:
            raise StructureTooLargeError(
                f"{len(coords)} voxels are occupied, the limit is {self.max_voxels}: try another seed"
            )
        return Voxels(coords, occupied.shape[-1])

    def sample_latents(
        self,
        noise: Tensor,
        cond: Tensor,
        uncond: Tensor,
        voxels: Voxels,
        params: SamplerParams,
        *,
        progress: Progress = lambda *_: None,
        savings: Savings = EXACT,
        steps_ahead: int = STEPS_AHEAD,
    ) -> Tensor:
        """Structured latents [N, C], in the decoder's scale."""
        velocity = self.runner.latents(self.latent_flow, params, cond, uncond, voxels)
        told = partial(progress, "latents")
        out = sample(velocity, noise, params, told, savings, steps_ahead=steps_ahead)
        return out * out.new_tensor(self.normalization.std) + out.new_tensor(self.normalization.mean)

    def decode_gaussians(self, latents: Tensor, voxels: Voxels) -> Tensor:
        """Packed gaussians [M, 17] on the device. Raises OutputError where a value is not finite."""
        raw = self.runner.gaussians(self.gaussian_decoder, latents, voxels)
        packed = self.gaussian_decoder.represent(raw, voxels).pack()
        if not bool(torch.isfinite(packed).all()):
            raise OutputError("the decoder made values that are not finite")
        return packed

    def to_host(self, packed: Tensor) -> NDArray[np.float32]:
        """Copy through pinned memory where the device is a GPU; the result is the caller's own."""
        if packed.device.type != "cuda":
            return packed.numpy()
        host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
        host.copy_(packed, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return host.numpy()

    @contextmanager
    def _timed(
        self, stage: Stage, seconds: dict[str, float], progress: Progress | None = None
    ) -> Iterator[None]:
        if progress is not None:
            progress(stage, 0, 1)
        start = time.perf_counter()
        yield
        settle(self.device)
        seconds[stage] = time.perf_counter() - start
        if progress is not None:
            progress(stage, 1, 1)


Shared = MutableMapping[Path, nn.Module]
"""Networks already loaded, by weights file: text and image checkpoints use the same decoders."""


def _pieces(directory: Path, repositories: Repositories) -> tuple[PipelineConfig, list[ModelPath]]:
    config = read_pipeline(directory)
    return config, [locate(directory, role, config.args.models[role], repositories) for role in ROLES]


def files_of(directory: Path, repositories: Repositories) -> list[Path]:
    """Every file of a checkpoint, wherever its repositories lie. Raises CheckpointError."""
    config, paths = _pieces(directory, repositories)
    conditioner = conditioner_directory(directory, config, repositories)
    return [
        directory / "pipeline.json",
        *(file for path in paths for file in (path.config, path.weights)),
        *sorted(file for file in conditioner.iterdir() if file.is_file()),
    ]


def _consistent(directory: Path, config: PipelineConfig, modules: list[nn.Module]) -> None:
    flow, decoder, latents, gaussians = modules
    assert isinstance(flow, StructureFlow)
    assert isinstance(decoder, StructureDecoder)
    assert isinstance(latents, LatentFlow)
    assert isinstance(gaussians, GaussianDecoder)
    grid = flow.config.resolution * decoder.scale
    width = len(config.args.slat_normalization.mean)
    facts = {
        "structure latent channels": {flow.config.out_channels, decoder.config.latent_channels},
        "voxel grid": {grid, latents.config.resolution, gaussians.config.resolution},
        "structured latent channels": {
            *(latents.config.in_channels, latents.config.out_channels, gaussians.config.latent_channels),
            *(width, len(config.args.slat_normalization.std)),
        },
        "condition width": {flow.config.cond_channels, latents.config.cond_channels},
        "structure channels in and out": {flow.config.in_channels, flow.config.out_channels},
    }
    for what, values in facts.items():
        if len(values) > 1:
            raise CheckpointError(f"{directory}: the networks disagree on the {what}: {sorted(values)}")


def check_checkpoint(directory: Path, repositories: Repositories = Repositories()) -> PipelineConfig:
    """Validate a checkpoint by its headers: names, arguments, keys, shapes, sizes. Raises CheckpointError."""
    config, paths = _pieces(directory, repositories)
    modules = []
    for path in paths:
        modules.append(build(path))
        verify(modules[-1], path)
    _consistent(directory, config, modules)
    return config


def load_pipeline(
    directory: Path,
    device: torch.device,
    *,
    dtype: torch.dtype | None = None,
    repositories: Repositories = Repositories(),
    shared: Shared | None = None,
    runner: Runner | None = None,
    remove_background: BackgroundRemover | None = None,
    max_voxels: int = MAX_VOXELS,
    read: Reader | None = None,
) -> Pipeline:
    """Check everything, then move the weights to the device. `dtype` None keeps the stored dtypes.

    `read` puts weights elsewhere than on the device. Raises CheckpointError before the device is touched.
    """
    config = check_checkpoint(directory, repositories)
    shared = {} if shared is None else shared
    modules = []
    for path in _pieces(directory, repositories)[1]:
        key = path.weights.resolve()
        if key not in shared:
            shared[key] = fill(build(path), path, read or onto(device, dtype))
        modules.append(shared[key])
    flow, decoder, latents, gaussians = modules
    assert isinstance(flow, StructureFlow)
    assert isinstance(decoder, StructureDecoder)
    assert isinstance(latents, LatentFlow)
    assert isinstance(gaussians, GaussianDecoder)
    conditioner: TextConditioner | ImageConditioner
    if config.name == "TrellisTextTo3DPipeline":
        conditioner = TextConditioner.load(directory, config, device, repositories)
    else:
        conditioner = ImageConditioner.load(directory, config, device, repositories, remove_background)
    return Pipeline(
        kind="text" if isinstance(conditioner, TextConditioner) else "image",
        device=device,
        flow=flow,
        decoder=decoder,
        latent_flow=latents,
        gaussian_decoder=gaussians,
        conditioner=conditioner,
        normalization=config.args.slat_normalization,
        defaults=(config.args.sparse_structure_sampler.params, config.args.slat_sampler.params),
        runner=runner or EagerRunner(),
        max_voxels=max_voxels,
    )
