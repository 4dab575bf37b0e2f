"""What the service says about a splat: the compact line in a header and the full report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter
from sn17_contract.fixer import FixReport, FixStep
from sn17_contract.http import FIXER_SCHEMA

from sn17_fixer.model import Diagnosis, Step
from sn17_fixer.policy import Fixed


@dataclass(frozen=True, slots=True)
class FullReport:
    """The answer of ``/diagnose``, then without policy, steps and ``after``; part of a multipart fix."""

    schema: str
    verdict: str
    reasons: tuple[str, ...]
    policy: str | None
    steps: tuple[Step, ...]
    before: Diagnosis
    after: Diagnosis | None


FULL_REPORT: Final = TypeAdapter(FullReport)


def full_report(fixed: Fixed, policy: str) -> FullReport:
    """Everything about one fix."""
    return FullReport(
        FIXER_SCHEMA, fixed.verdict, tuple(fixed.reasons), policy, fixed.steps, fixed.before, fixed.after
    )


def diagnosis_report(diagnosis: Diagnosis) -> FullReport:
    """Everything about one diagnosis."""
    return FullReport(FIXER_SCHEMA, diagnosis.verdict, tuple(diagnosis.reasons), None, (), diagnosis, None)


def header_report(fixed: Fixed) -> str:
    """The compact report of the ``SN17-Report`` header."""
    after = fixed.after
    return FixReport(
        schema_=FIXER_SCHEMA,
        verdict=fixed.verdict,
        reasons=tuple(reason.value for reason in fixed.reasons),
        gaussians_in=fixed.before.gaussians,
        gaussians_out=after.gaussians,
        alpha_mean=_rounded(after.opacity.alpha.mean),
        transparent_share=_rounded(after.opacity.transparent_share),
        logit_mean=_rounded(after.opacity.logit.mean),
        logit_std=_rounded(after.opacity.logit.std),
        pos_inf=fixed.before.opacity.pos_inf,
        gates_pass=after.gates.passed,
        steps=tuple(FixStep(name=step.name, changed=step.changed) for step in fixed.steps if step.changed),
    ).to_header()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
