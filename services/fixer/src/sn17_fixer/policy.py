"""The policies: which steps run, in which order, on what evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from sn17_contract.fixer import FixVerdict
from sn17_splats import SplatError, Splats

from sn17_fixer.conventions import coefficients, logarithms, real_part_first
from sn17_fixer.diagnosis import diagnose, double_activation_clamp, signature_of
from sn17_fixer.model import Diagnosis, PolicyName, Reason, RenderCheck, Repair, Scalar, Step
from sn17_fixer.reference import TRELLIS, Reference
from sn17_fixer.render.check import check_render
from sn17_fixer.scan.columns import SCALES, Scanner
from sn17_fixer.steps.opacity import (
    COLLAPSED_TO,
    COLLAPSED_TO_TRELLIS,
    fill_collapsed,
    impute_clamped,
    invert_alpha,
    match_reference,
    undo_double_activation,
)
from sn17_fixer.steps.phase1 import shift_with_noise
from sn17_fixer.steps.placement import place
from sn17_fixer.steps.sanitise import clamp_infinities, clamp_scales, drop_bad_rows, fill_opacity
from sn17_fixer.steps.trim import drop_strays

DEFAULT_SEED: Final = 17
#: Damage is visible where a tenth of the silhouette lets 1 % of the background through; healthy assets of
#: the generator have 0.9997.
VISIBLE_P10: Final = 0.99
#: The largest finite logit that 8-bit alpha holds is ln 254 = 5.54.
SATURATED_LOGIT: Final = 5.6


@dataclass(frozen=True, slots=True)
class FixOptions:
    """How to fix. ``seed`` drives the noise of ``phase1``; ``reference`` is of the generator's assets,
    ``checker`` renders where the policy asks for it."""

    policy: PolicyName = PolicyName.MEASURED
    place: bool = False
    seed: int = DEFAULT_SEED
    reference: Reference = TRELLIS
    checker: Callable[[Splats], RenderCheck] = check_render


@dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    """The outcome: the splat to send, what was found before and after, and every step on the way."""

    splats: Splats
    before: Diagnosis
    after: Diagnosis
    steps: tuple[Step, ...]
    verdict: FixVerdict
    reasons: tuple[Reason, ...]


@dataclass(slots=True)
class _Run:
    splats: Splats
    steps: list[Step] = field(default_factory=list)

    def take(self, repair: Repair) -> bool:
        """Go on with the outcome of a step; whether it changed anything."""
        self.splats = repair.splats
        self.steps.append(repair.step)
        return repair.step.changed > 0


def fix(splats: Splats, options: FixOptions = FixOptions(), *, scanner: Scanner | None = None) -> Fixed:
    """Diagnose ``splats``, repair them by ``options.policy``, and diagnose what came out.

    Pure: the input arrays are not written to. Raises :class:`sn17_splats.SplatError` where no gaussian is
    left or can't be placed.
    """
    before = diagnose(splats, scanner=scanner, reference=options.reference)
    run = _Run(splats)
    reasons = list(before.reasons)
    found = before
    if options.policy is not PolicyName.NONE and _as_ours(run, before):
        # All that was judged of the other convention's columns was judged wrongly.
        found = diagnose(run.splats, scanner=scanner, reference=options.reference)
        reasons += [reason for reason in found.reasons if reason not in reasons]
    if options.policy is PolicyName.PHASE1:
        _sanitise(run, found)
        if run.take(shift_with_noise(run.splats, seed=options.seed)):
            reasons.append(Reason.LOW_MEAN_LOGIT)
    elif options.policy is PolicyName.MEASURED:
        reasons += _measured(run, found, options)
    if options.place and len(run.splats):
        run.take(place(run.splats))
    if not len(run.splats):
        raise SplatError("no gaussian is left: all of them hold values that are not numbers")
    changed = any(step.changed for step in run.steps)
    after = diagnose(run.splats, scanner=scanner, reference=options.reference) if changed else before
    repairs = any(step.changed for step in run.steps if step.name not in ("clamp_infinities", "place"))
    verdict = FixVerdict.REPAIRED if repairs else FixVerdict.HEALTHY
    if not after.gates.passed:
        verdict = FixVerdict.UNREPAIRABLE
        reasons += [reason for reason in after.reasons if reason not in reasons]
    return Fixed(run.splats, before, after, tuple(run.steps), verdict, tuple(reasons))


def _as_ours(run: _Run, before: Diagnosis) -> bool:
    """Bring columns that follow another exporter's convention to ours; whether there were any."""
    steps: dict[Reason, Callable[[Splats], Repair]] = {
        Reason.LINEAR_SCALES: logarithms,
        Reason.ACTIVATED_COLOURS: coefficients,
        Reason.ROTATIONS_XYZW: real_part_first,
    }
    foreign = [reason for reason in before.reasons if reason in steps]
    for reason in foreign:
        run.take(steps[reason](run.splats))
    return bool(foreign)


def _sanitise(run: _Run, before: Diagnosis) -> None:
    opacity = before.opacity
    if opacity.nan:
        # What writes NaN writes no true infinities either, unless 8 bits cut the finite ones off.
        saturated = opacity.maximum is not None and opacity.maximum <= SATURATED_LOGIT
        run.take(fill_opacity(run.splats, infinite=not saturated))
    if opacity.pos_inf or opacity.neg_inf:
        run.take(clamp_infinities(run.splats))
    if before.bad_rows or run.splats.f_rest is not None:
        run.take(drop_bad_rows(run.splats))


def _measured(run: _Run, before: Diagnosis, options: FixOptions) -> list[Reason]:
    """The default policy; returns what it found beyond the diagnosis.

    What was overwritten is filled in before what is missing, so that the one is no evidence for the other.
    """
    _undo_signature(run, before, options.reference)
    _sanitise(run, before)
    if before.extents.strays:
        run.take(drop_strays(run.splats))
    if before.oversized or any(column.neg_inf for column in before.columns[SCALES]):
        run.take(clamp_scales(run.splats, before.extents.core_extent))
    if before.fingerprint.is_trellis and len(run.splats):
        return _show(run, options)
    return []


def _undo_signature(run: _Run, before: Diagnosis, reference: Reference) -> None:
    trellis, opacity = before.fingerprint.is_trellis, before.opacity
    match signature_of(opacity):
        case Reason.ALPHA_AS_LOGIT:
            run.take(invert_alpha(run.splats))
        case Reason.DOUBLE_ACTIVATION:
            clamp = double_activation_clamp(opacity)
            assert clamp is not None
            run.take(undo_double_activation(run.splats, clamp=clamp, reference=reference))
        case Reason.OPACITY_COLLAPSED:
            run.take(fill_collapsed(run.splats, value=COLLAPSED_TO_TRELLIS if trellis else COLLAPSED_TO))
        case Reason.OPACITY_CLAMPED:
            assert opacity.repeated is not None
            run.take(impute_clamped(run.splats, value=opacity.repeated))


def _show(run: _Run, options: FixOptions) -> list[Reason]:
    """Match the reference where the generator's asset is visibly transparent and that makes it less so."""
    if float(run.splats.opacity_logits.mean(dtype=np.float64)) >= options.reference.suspect_below:
        return []
    seen = options.checker(run.splats)
    flagged = seen.alpha_p10 < VISIBLE_P10
    detail: dict[str, Scalar] = {"alpha_p10": round(seen.alpha_p10, 4), "coverage": round(seen.coverage, 4)}
    run.steps.append(Step("render_check", 0, detail | {"flagged": flagged}))
    if not flagged:
        return []
    repair = match_reference(run.splats, options.reference)
    then = options.checker(repair.splats)
    helped = then.alpha_p10 > seen.alpha_p10 and then.coverage > seen.coverage
    detail = repair.step.detail | {
        "alpha_p10": round(then.alpha_p10, 4), "coverage": round(then.coverage, 4), "accepted": helped
    }  # fmt: skip
    step = Step("match_reference", repair.step.changed if helped else 0, detail)
    run.take(Repair(repair.splats if helped else run.splats, step))
    return [Reason.VISIBLY_TRANSPARENT]
