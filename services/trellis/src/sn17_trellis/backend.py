"""What the worker asks of a generator, whatever it is made of.

A backend is driven by one thread at a time and never by the event loop. It knows nothing of HTTP, of
queues or of metrics: the service around it owns those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from sn17_contract.http import Code
from sn17_contract.metrics import GenerationKind
from sn17_splats import Splats

from sn17_trellis.quality import Quality

Progress = Callable[[str, int, int], None]
"""``progress(stage, step, steps)``: ``step`` steps are done, 0 at a stage's start; cheap, never raises."""

IsCancelled = Callable[[], bool]
"""True once the caller has gone; a backend asks between steps and answers with :class:`Cancelled`."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Wishes of one request; ``None`` leaves the value to the preset, ``preset`` to the backend."""

    preset: str | None = None
    structure_steps: int | None = None
    structure_guidance: float | None = None
    latent_steps: int | None = None
    latent_guidance: float | None = None
    lane: str | None = None
    """``exact`` or ``fast``; None: the preset's."""

    @property
    def steps_and_guidance(self) -> tuple[float | None, ...]:
        return self.structure_steps, self.structure_guidance, self.latent_steps, self.latent_guidance


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One generation. Exactly one of ``prompt``, ``image`` and ``picture`` is set.

    ``image`` is (h, w, 4) uint8 RGBA; ``picture`` the bytes of its file before it is decoded, which no
    backend sees. ``seed`` is in [0, 2^32), a random one already drawn.
    """

    kind: GenerationKind
    seed: int
    prompt: str | None = None
    image: NDArray[np.uint8] | None = None
    sampling: Sampling = field(default_factory=Sampling)
    picture: bytes | None = None

    @property
    def model(self) -> str:
        """The model it needs: ``text`` or ``image``."""
        return "text" if self.image is None and self.picture is None else "image"


@dataclass(frozen=True, slots=True, eq=False)
class EncodedAsset:
    """A PLY file of ``size`` bytes under a temporary name in the spool, already judged.

    ``digest`` is the SHA-256 of a canary's bytes, None for other kinds.
    """

    path: Path
    size: int
    quality: Quality
    digest: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """What came out: the asset and seconds per stage.

    The asset is arrays, PLY bytes, or a call that waits until a model process has encoded it. Either way
    it is fetched on another thread while the next job runs, so arrays must not alias buffers that a later
    ``generate`` writes to.
    """

    asset: Splats | bytes | Callable[[], EncodedAsset]
    gaussians: int
    stage_seconds: Mapping[str, float]
    life_id: str | None = None
    """The model process that made it; None for a backend in this very process."""
    lane: str = "exact"
    """``fast`` where steps were left out."""


def plain(asset: Splats | bytes | Callable[[], EncodedAsset]) -> bytes:
    """The bytes of an asset that was made in this very process.

    Raises:
        TypeError: it is arrays, or lies with a model process.
    """
    if not isinstance(asset, bytes):
        raise TypeError(f"no bytes but {type(asset).__name__}")
    return asset


class UnusableOutput(Exception):  # noqa: N818
    """The backend made something that no one can repair."""


class GenerationError(Exception):
    """A generation that failed for a known reason; the worker stays usable.

    ``code`` becomes the ``code`` of the answer, the message its ``detail``: a sentence for the caller.
    """

    code: ClassVar[Code] = Code.INTERNAL


class BadPrompt(GenerationError):  # noqa: N818
    """The prompt cannot be turned into anything by this backend."""

    code = Code.BAD_PROMPT


class BadImage(GenerationError):  # noqa: N818
    """The image shows nothing to make an object of."""

    code = Code.BAD_IMAGE


class BadSampling(GenerationError):  # noqa: N818
    """An optional parameter or preset that this backend does not know or allow."""

    code = Code.BAD_REQUEST


class EmptyStructure(GenerationError):  # noqa: N818
    """The structure stage found no voxel."""

    code = Code.EMPTY_STRUCTURE


class StructureTooLarge(GenerationError):  # noqa: N818
    """The structure has more voxels than this worker decodes."""

    code = Code.STRUCTURE_TOO_LARGE


class GpuOutOfMemory(GenerationError):  # noqa: N818
    """The device had no room; everything of the job has been freed before this is raised."""

    code = Code.GPU_OUT_OF_MEMORY


class DeviceError(GenerationError):
    """A fatal error of the device (``kind``: xid, ecc, illegal_address, ...); the process must go."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class JobKilledModel(GenerationError):  # noqa: N818
    """The model process ended under this job, and the next one under its second run too."""

    code = Code.JOB_KILLED_MODEL


class ModelFailing(GenerationError):  # noqa: N818
    """The model process is gone and a new one does not start."""

    code = Code.DEGRADED


class Cancelled(GenerationError):  # noqa: N818
    """The caller went away; only counted, never answered."""


class ModelMissing(Exception):  # noqa: N818
    """A backend's weights are not on this machine; the message ends with what brings them."""


class Backend(Protocol):
    """A generator of splats: y up, +z front, unit cube centred at the origin."""

    @property
    def name(self) -> str:
        """As in ``SN17_BACKEND``."""
        ...

    @property
    def models(self) -> tuple[str, ...]:
        """Which of ``text`` and ``image`` are served; known after :meth:`load`."""
        ...

    @property
    def identity(self) -> str:
        """Checkpoint and hardware in one line; canaries are compared only where it is equal."""
        ...

    def load(self) -> None:
        """Read weights; after it the page cache holds none of their files.

        Raises:
            ModelMissing: a person must supply weights.
            Exception: the worker cannot start; the message names file and key.
        """
        ...

    def warmup(self, progress: Progress, cancelled: IsCancelled) -> None:
        """Compile and allocate what the first job would otherwise wait for. May do nothing."""
        ...

    def generate(self, job: Job, progress: Progress, cancelled: IsCancelled) -> Generation:
        """Make one asset; the same job on the same ``identity`` gives the same bytes.

        Raises:
            GenerationError: one of the subclasses above.
        """
        ...

    def cleanup(self) -> None:
        """Free what can be made again: caches, pools, scratch buffers."""
        ...

    def gpu_memory(self) -> Mapping[str, int]:
        """Device bytes by kind (``weights``, ``allocated``, ``reserved``, ``free``); empty without one.

        Called at every scrape from another thread: cheap and without synchronising the device.
        """
        ...

    def canary(self) -> Job:
        """The fixed job whose result is compared with the first one of this ``identity``."""
        ...

    def close(self) -> None:
        """Let go of device and files; the process ends next."""
        ...
