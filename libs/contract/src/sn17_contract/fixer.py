"""What the fixer says about a splat in the ``SN17-Report`` header."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sn17_contract.http import HEADER_REPORT, REPORT_HEADER_MAX_BYTES


class FixVerdict(StrEnum):
    """What became of a splat. ``unrepairable``: the validator's gates would still refuse it."""

    HEALTHY = "healthy"
    REPAIRED = "repaired"
    UNREPAIRABLE = "unrepairable"


class ReportError(ValueError):
    """The answer carries no usable report, so nothing is known about the splat."""


class FixStep(BaseModel):
    """One stage of a policy that changed or dropped gaussians."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    changed: int


class FixReport(BaseModel):
    """The compact report of one fix. No field has a default: a value that is missing is never a good one.

    ``reasons`` are the fixer's findings; a newer fixer may name others. Numbers are None where the splat has
    no finite value to take them from. ``alpha_mean``, ``transparent_share``, ``logit_mean`` and ``logit_std``
    describe the splat after the fix, ``pos_inf`` counts infinite logits before it.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    schema_: Literal["sn17.fixer/v1"] = Field(alias="schema")
    """``FIXER_SCHEMA``."""
    verdict: FixVerdict
    reasons: tuple[str, ...]
    gaussians_in: int
    gaussians_out: int
    alpha_mean: float | None
    transparent_share: float | None
    logit_mean: float | None
    logit_std: float | None
    pos_inf: int
    gates_pass: bool
    steps: tuple[FixStep, ...]

    @property
    def changed(self) -> bool:
        """Whether the fix changed the splat."""
        return any(step.changed for step in self.steps)

    def to_header(self) -> str:
        """The header's value: ASCII, at most 4 KiB. Raises ReportError for a report that does not fit."""
        text = self.model_dump_json(by_alias=True)
        if not text.isascii() or len(text) > REPORT_HEADER_MAX_BYTES:
            raise ReportError(f"the report is not ASCII or longer than {REPORT_HEADER_MAX_BYTES} bytes")
        return text

    @classmethod
    def from_header(cls, text: str | None) -> FixReport:
        """Read the header of an answer; None stands for a header that is missing.

        Raises:
            ReportError: it is missing, malformed or incomplete; the message names the fields.
        """
        if text is None:
            raise ReportError(f"the answer has no {HEADER_REPORT} header")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            fields = {".".join(str(part) for part in e["loc"]) or "JSON" for e in error.errors()}
            raise ReportError(f"{HEADER_REPORT} is malformed: {', '.join(sorted(fields))}") from error
