"""``GET /v1/worker``: what a TRELLIS worker says of itself.

What release 0.1.0 said has no default: an answer without it is a wrong answer, never a good state. What came
later has the value that is true of 0.1.0, so that miner and workers can be upgraded in either order.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sn17_contract.http import WorkerState
from sn17_contract.metrics import SwapPhase


class RecycleHow(StrEnum):
    """What is done with a model process.

    ``swap``: a fresh one is made ready beside it and takes its place between two jobs. ``replace``: it ends
    after its job and a new one starts; the worker warms up meanwhile.
    """

    SWAP = "swap"
    REPLACE = "replace"


BY_GUARD = "guard: "
"""How the reason of a recycle begins that the worker's own guard decided on."""


class RecycleOutcome(StrEnum):
    """How a recycle ended. Everything but ``done`` leaves the old model process at work.

    ``same_output``: the fresh process makes what the old one makes, so the process is not at fault.
    """

    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    SAME_OUTPUT = "same_output"
    NO_ROOM = "no_room"


class _Answer(BaseModel):
    # Readers may be older than the worker.
    model_config = ConfigDict(extra="ignore", frozen=True)


class JobStatus(_Answer):
    """The job at work. ``progress_at`` is seconds since the epoch; ``steps`` 0 means not known."""

    key: str | None
    stage: str
    step: int
    steps: int
    progress_at: float


class MemoryStatus(_Answer):
    """Bytes of the container or process; without a limit nothing can be said of how full it is."""

    unreclaimable_bytes: int = Field(ge=0)
    working_set_bytes: int = Field(ge=0)
    limit_bytes: int | None = Field(gt=0)

    @property
    def ratio(self) -> float | None:
        """Unreclaimable share of the limit."""
        return None if self.limit_bytes is None else self.unreclaimable_bytes / self.limit_bytes


class LastRecycle(_Answer):
    """The last recycle of a model process. ``at`` (seconds since the epoch) is its end."""

    how: RecycleHow
    outcome: RecycleOutcome
    reason: str
    from_life: str
    to_life: str | None
    at: float


class WorkerVersion(_Answer):
    """``GET /version``.

    ``identity`` is all that an asset depends on beside its job: the library and its version, the device, the
    preset, a digest of each checkpoint's files; ``none`` until a model is loaded. ``driver`` is the GPU
    driver's version, None without one. ``faults``: some are injected, so the worker is for tests.
    """

    service: str
    version: str
    backend: str
    models: tuple[str, ...]
    faults: bool
    identity: str
    driver: str | None


class WorkerStatus(_Answer):
    """``GET /v1/worker``.

    ``boot_id`` is the service process, ``life_id`` the model process that serves (or is being started in
    place of one that ended). ``model_processes`` counts those alive: 2 during a swap. ``recycling`` is the
    act in progress, ``phase`` how far it is, or how far a process that is started anew; None while nothing is
    being started, and between two attempts. ``start_seconds``: what the latest start of a model process took
    until it was ready, None before the first. ``memory`` is None where the kernel does not tell.
    """

    worker: str
    version: str = "0.1.0"
    boot_id: str
    life_id: str
    state: WorkerState
    reason: str | None
    job: JobStatus | None
    memory: MemoryStatus | None
    models: tuple[str, ...]
    gaussians_mean: float | None
    model_processes: int = Field(1, ge=0)
    recycling: RecycleHow | None = None
    phase: SwapPhase | None = None
    start_seconds: float | None = Field(None, ge=0)
    last_recycle: LastRecycle | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_life(cls, value: Any) -> Any:
        """In 0.1.0 the model lived in the service's own process."""
        if isinstance(value, dict) and "life_id" not in value and "boot_id" in value:
            return {**value, "life_id": value["boot_id"]}
        return value
