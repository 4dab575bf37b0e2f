"""The policies: which steps run, in which order, on what evidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sn17_splats import SplatError, Splats

from sn17_fixer.diagnosis import diagnose
from sn17_fixer.model import Diagnosis, PolicyName, Reason, Repair, Step, Verdict
from sn17_fixer.reference import TRELLIS, Reference
from sn17_fixer.scan import Scanner
from sn17_fixer.steps.phase1 import shift_with_noise
from sn17_fixer.steps.placement import place
from sn17_fixer.steps.sanitise import clamp_infinities, clamp_scales, drop_bad_rows, fill_opacity
from sn17_fixer.steps.trim import drop_strays

DEFAULT_SEED: Final = 17


@dataclass(frozen=True, slots=True)
class FixOptions:
    """How to fix. ``seed`` drives the noise of ``phase1``; ``reference`` is of the generator's assets."""

    policy: PolicyName = PolicyName.MEASURED
    place: bool = False
    seed: int = DEFAULT_SEED
    reference: Reference = TRELLIS


@dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    """The outcome: the splat to send, what was found before and after, and every step on the way."""

    splats: Splats
    before: Diagnosis
    after: Diagnosis
    steps: tuple[Step, ...]
    verdict: Verdict
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
    if options.policy is not PolicyName.NONE:
        _sanitise(run, before)
    if options.policy is PolicyName.PHASE1:
        run.take(shift_with_noise(run.splats, seed=options.seed))
    elif options.policy is PolicyName.MEASURED:
        _measured(run, before)
    if options.place and len(run.splats):
        run.take(place(run.splats))
    if not len(run.splats):
        raise SplatError("no gaussian is left: all of them hold values that are not numbers")
    changed = any(step.changed for step in run.steps)
    after = diagnose(run.splats, scanner=scanner, reference=options.reference) if changed else before
    repairs = any(step.changed for step in run.steps if step.name not in ("clamp_infinities", "place"))
    verdict = Verdict.REPAIRED if repairs else Verdict.HEALTHY
    reasons = list(before.reasons)
    if not after.gates.passed:
        verdict = Verdict.UNREPAIRABLE
        reasons += [reason for reason in after.reasons if reason not in reasons]
    return Fixed(run.splats, before, after, tuple(run.steps), verdict, tuple(reasons))


def _sanitise(run: _Run, before: Diagnosis) -> None:
    if before.opacity.pos_inf or before.opacity.neg_inf:
        run.take(clamp_infinities(run.splats))
    if before.opacity.nan:
        # Before rows are dropped: afterwards the blocks of the generator are no longer whole.
        run.take(fill_opacity(run.splats, blocks=before.fingerprint.is_trellis))
    if before.bad_rows or run.splats.f_rest is not None:
        run.take(drop_bad_rows(run.splats))


def _measured(run: _Run, before: Diagnosis) -> None:
    flat = any(column.neg_inf for column in before.columns[3:6])
    if before.extents.strays:
        run.take(drop_strays(run.splats))
    if before.oversized or flat:
        run.take(clamp_scales(run.splats, before.extents.core_extent))
