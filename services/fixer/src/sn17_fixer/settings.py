"""Settings of the fixer, by environment."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator
from sn17_contract.http import FIXER_PORT
from sn17_service.settings import Port, ServiceSettings
from sn17_splats import Limits

from sn17_fixer.model import PolicyName
from sn17_fixer.policy import DEFAULT_SEED


class FixerSettings(ServiceSettings):
    """``SN17_*``; see :class:`sn17_service.ServiceSettings` for what every service shares."""

    port: Port = Field(FIXER_PORT, description="data port; 0 picks a free one")
    policy: PolicyName = Field(
        PolicyName.MEASURED, description="policy where a request names none: measured, phase1 or none"
    )
    place: bool = Field(False, description="centre and scale for the validator where a request does not say")
    seed: int = Field(DEFAULT_SEED, ge=0, description="seed of the noise of phase1")
    max_bytes: int = Field(Limits().max_bytes, gt=0, description="largest splat, packed and unpacked")
    max_gaussians: int = Field(Limits().max_gaussians, gt=0, description="most gaussians in a splat")
    threads: int = Field(0, ge=0, le=256, description="splats worked on at once; 0 = one per core")
    work_memory_bytes: int = Field(
        0, ge=0, description="memory for splats at work; 0 = 60 % of the limit, or 4 GiB without one"
    )
    reference_mean: float | None = Field(None, description="mean logit of healthy assets, from calibrate")
    reference_std: float | None = Field(None, gt=0, description="standard deviation beside reference_mean")
    warm_up: bool = Field(True, description="compile and touch the hot path before reporting ready")

    @model_validator(mode="after")
    def _whole_reference(self) -> Self:
        if (self.reference_mean is None) != (self.reference_std is None):
            raise ValueError("SN17_REFERENCE_MEAN and SN17_REFERENCE_STD go together: set both or none")
        return self
