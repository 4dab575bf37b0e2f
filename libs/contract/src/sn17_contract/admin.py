"""``/admin/v1`` of the ops port: bodies and answers, the same classes for who asks and who answers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from sn17_contract.http import LeaseOwner, WorkerState
from sn17_contract.worker import MemoryStatus, RecycleHow

Owner = Literal[LeaseOwner.USER, LeaseOwner.OPERATOR]
"""Who may ask for a lease; a shutdown is never asked for."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Answer(BaseModel):
    # Readers may be older than the service.
    model_config = ConfigDict(extra="ignore", frozen=True)


class DrainRequest(_Body):
    """A lease. The operator's always has a term; without one given it is 60 s."""

    by: Owner
    reason: str = Field(min_length=1, max_length=500)
    ttl_seconds: float | None = Field(None, gt=0, le=86_400)


class ResumeRequest(_Body):
    """Gives a lease up."""

    by: Owner


class ExitRequest(_Body):
    """Ends the service process ``boot_id``, after its job."""

    boot_id: str = Field(max_length=64)
    reason: str = Field("asked by the admin", min_length=1, max_length=500)


class RecycleRequest(_Body):
    """Recycles the model process ``life_id`` and no other.

    With ``verify`` the fresh process takes over only if its canary differs from what the old one makes
    now and agrees with the checkpoint's baseline; else it ends, with outcome ``same_output``.
    """

    life_id: str = Field(min_length=1, max_length=64)
    how: RecycleHow
    reason: str = Field(min_length=1, max_length=500)
    verify: bool = False


class LeaseStatus(_Answer):
    """A lease that holds; None seconds: until it is given up."""

    by: LeaseOwner
    reason: str
    expires_in_seconds: float | None


class AdminState(_Answer):
    """What every admin answer holds. ``life_id`` and ``jobs_in_flight``: None where the service has none."""

    boot_id: str
    life_id: str | None
    draining: bool
    leases: tuple[LeaseStatus, ...]
    jobs_in_flight: int | None


class Lifted(_Answer):
    """Whether there was a lease to give up."""

    lifted: bool


class ResumeAnswer(AdminState):
    """``POST /admin/v1/resume``."""

    result: Lifted


class Cleanup(_Answer):
    """Memory around a clean-up; None where the kernel does not tell."""

    before: MemoryStatus | None
    after: MemoryStatus | None


class CleanupAnswer(AdminState):
    """``POST /admin/v1/cleanup``."""

    result: Cleanup


class Canary(_Answer):
    """A canary. ``passed`` and what follows are None where it did not run; ``reason`` says why not.

    ``first``: there was no baseline, so it became one and proves nothing.
    """

    ran: bool
    passed: bool | None
    reason: str | None
    drift: float | None
    first: bool | None
    same_bytes: bool | None
    gaussians: int | None
    findings: tuple[str, ...]


class CanaryAnswer(AdminState):
    """``POST /admin/v1/canary``."""

    result: Canary


class RecycleAnswer(_Answer):
    """``POST /admin/v1/recycle``, 202: begun. Its end is ``last_recycle`` of ``GET /v1/worker``."""

    boot_id: str
    life_id: str
    how: RecycleHow
    state: WorkerState
