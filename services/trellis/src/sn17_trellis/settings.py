"""What a worker can be told."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sn17_contract.http import TRELLIS_PORT
from sn17_contract.memory import GUARD_CLEANUP_RATIO, GUARD_REFUSE_RATIO
from sn17_service import ServiceSettings


class Faults(BaseModel):
    """Faults to inject, for tests only; a worker that has any says so in its log and in its version."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    leak_mib_per_generation: float = Field(0, ge=0, le=16_384, description="memory lost for good")
    leak_is_cache: bool = Field(False, description="let a clean-up free what leaked")
    gaussian_decay: bool = Field(False, description="lose gaussians as memory fills: down to 1/8")
    gaussian_decay_from: float = Field(0.4, ge=0, lt=1, description="share of the limit where it starts")
    gaussian_decay_to: float = Field(0.8, gt=0, le=1, description="share of the limit where it is worst")
    hang_after: int | None = Field(
        None, ge=0, description="after so many task generations the next never ends"
    )
    crash_after: int | None = Field(None, ge=0, description="after so many the next kills the process")
    gpu_error_after: int | None = Field(
        None, ge=0, description="after so many the next is a fatal device error"
    )
    slow_seconds: float = Field(0, ge=0, le=3600, description="added to every task generation")
    half_answer_every: int | None = Field(None, ge=1, description="every n-th answer ends half way")
    garbage_every: int | None = Field(None, ge=1, description="every n-th answer holds random bytes")
    empty_every: int | None = Field(None, ge=1, description="every n-th task generation has no structure")


class WorkerSettings(ServiceSettings):
    """Environment of ``sn17-trellis serve``."""

    port: int = Field(TRELLIS_PORT, ge=0, le=65535, description="data port; 0 picks a free one")
    worker_name: str = Field(
        default_factory=lambda: os.environ.get("HOSTNAME") or socket.gethostname(),
        min_length=1,
        max_length=253,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="how the worker calls itself; the pod's name in a cluster",
    )
    backend: Literal["procedural", "torch", "reference"] = Field("procedural", description="the generator")
    spool_dir: Path = Field(
        Path(".sn17/spool"), description="kept results, canary baselines, self-recycle book"
    )
    result_ttl_seconds: float = Field(600, gt=0, description="how long a keyed result is kept")
    results_kept: int = Field(4, ge=1, le=64, description="how many keyed results are kept at most")
    max_prompt_characters: int = Field(1024, ge=1, le=65_536)
    max_image_bytes: int = Field(20_000_000, ge=1)
    max_image_pixels: int = Field(16_777_216, ge=1)
    text_checkpoint: Path | None = Field(None, description="directory of a text checkpoint (torch backend)")
    image_checkpoint: Path | None = Field(None, description="directory of an image checkpoint")
    photographs: Literal["required", "refused"] = Field(
        "required",
        description="pictures without an alpha channel: required = no start without what cuts them out",
    )
    model_roots: tuple[Path, ...] = Field((), description="folders with OWNER/NAME/..., as fetch writes")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    attention: Literal["auto", "plain"] = Field(
        "auto", description="auto = a kernel of its own on Hopper GPUs, where it agrees; plain = never"
    )
    preset: Literal["phase1", "fast", "checkpoint"] | None = Field(
        None, description="steps and guidance; phase1, or the bundled checkpoint's own"
    )
    max_voxels: int = Field(60_000, ge=1, le=262_144, description="largest structure that is decoded")
    torch_threads: int | None = Field(None, ge=1, le=1024, description="CPU threads of torch")
    procedural_max_gaussians: int = Field(700_000, ge=7_168, le=5_000_000)
    procedural_ballast_mib: int = Field(
        0, ge=0, le=65_536, description="memory that each process of the procedural backend holds"
    )
    procedural_load_seconds: float = Field(
        0, ge=0, le=600, description="how long the procedural backend takes to load"
    )
    procedural_warmup_seconds: float = Field(
        0, ge=0, le=600, description="how long the procedural backend's warm-up holds the device"
    )
    procedural_job_seconds: float = Field(
        0, ge=0, le=600, description="how long each of its generations holds the device besides computing"
    )
    model_process: Literal["on", "off"] = Field(
        "on", description="the model in a process of its own; off for debugging"
    )
    device_lock_dir: Path | None = Field(
        None, description="folder of workers that share devices: a lock by device UUID; none = the spool"
    )
    swap_deadline_seconds: float = Field(
        180, gt=0, description="how long two model processes may live beside each other"
    )
    guard_swap_after_seconds: float = Field(
        45, ge=0, description="above the swap threshold so long, the worker swaps by itself"
    )
    idle_swap_after_seconds: float = Field(
        20, ge=0, description="idle so long, above half way to the threshold, it swaps; 0 = never"
    )
    guard: Literal["on", "off"] = Field("on", description="the worker's own memory guard")
    guard_cleanup_ratio: float = Field(GUARD_CLEANUP_RATIO, gt=0, le=1)
    guard_refuse_ratio: float = Field(GUARD_REFUSE_RATIO, gt=0, le=1)
    self_recycle_after_seconds: float = Field(
        600, gt=0, description="refusing so long, alone, ends the process"
    )
    self_recycle_interval_seconds: float = Field(
        900, ge=0, description="one per interval; more if the last one cured a leak of the service"
    )
    canary_every: int = Field(
        50,
        ge=0,
        description="run the canary after so many tasks; 0 = only in each fresh life, and in every one",
    )
    stall_seconds: float = Field(900, gt=0, description="without progress for so long /health fails")
    faults: Faults = Field(Faults(), description="JSON of faults to inject, for tests only")

    @property
    def device_locks(self) -> Path:
        """The folder of the locks by device."""
        return self.device_lock_dir or self.spool_dir
