"""Whether the worker's output can be trusted: device errors, suspect outputs, canaries."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import Final

from sn17_contract.metrics import DegradedReason

from sn17_trellis.canary import CanaryBook, CanaryVerdict
from sn17_trellis.metrics import WorkerMetrics
from sn17_trellis.quality import Quality

SUSPECT_OUTPUTS_TO_DEGRADE: Final = 3

log = logging.getLogger("sn17.trellis.degradation")


@dataclass(frozen=True, slots=True)
class Degraded:
    """Why the worker should not be trusted.

    A fatal reason takes no more jobs. Others still serve: only the operator, or a person, can tell a
    drifting worker from a baseline that no longer holds.
    """

    kind: DegradedReason
    reason: str

    @property
    def fatal(self) -> bool:
        return self.kind is DegradedReason.DEVICE_ERROR

    @property
    def lasting(self) -> bool:
        """Another model process does not clear it."""
        return self.kind is DegradedReason.DEVICE_SUSPECT


class Degradation:
    """Evidence from outputs and canaries; a passed canary clears everything but a fatal device error."""

    def __init__(self, canaries: CanaryBook, metrics: WorkerMetrics) -> None:
        self._canaries = canaries
        self._metrics = metrics
        self._suspects = 0
        self._identity = ""
        self._canary_passed = False
        self.degraded: Degraded | None = None

    @property
    def trusted(self) -> bool:
        """Nothing speaks against this worker, and its last canary passed."""
        return self._canary_passed and self.degraded is None and not self._suspects

    def new_life(self, *, canary_holds: bool) -> None:
        """Another model process serves: nothing is known against it yet."""
        self._suspects = 0
        if not canary_holds:
            self._canary_passed = False
            self._metrics.canary_drift = self._metrics.canary_output = None
        if self.degraded is not None and not self.degraded.lasting:
            self.degraded = self._metrics.degraded = None

    def device_suspect(self, reason: str) -> None:
        """A process that was killed does not end: only another place for the worker helps."""
        self._degrade(Degraded(DegradedReason.DEVICE_SUSPECT, f"DeviceSuspect: {reason}"))

    @property
    def fatal(self) -> bool:
        return self.degraded is not None and self.degraded.fatal

    def output(self, quality: Quality) -> None:
        """Note the check of an asset that goes out."""
        for finding in quality.findings:
            self._metrics.findings.labels(finding.value).inc()
        if quality.findings:
            log.warning("suspect output", extra={"findings": ",".join(quality.findings)})
            self.suspect()
        else:
            self._suspects = 0

    def suspect(self) -> None:
        """One more output in a row that has flaws; enough of them degrade the worker."""
        self._suspects += 1
        if self._suspects >= SUSPECT_OUTPUTS_TO_DEGRADE:
            self._degrade(
                Degraded(DegradedReason.SUSPECT_OUTPUTS, f"{self._suspects} suspect outputs in a row")
            )

    def device_failed(self, kind: str) -> None:
        self._metrics.gpu_errors.labels(kind).inc()
        self._degrade(Degraded(DegradedReason.DEVICE_ERROR, f"fatal device error ({kind})"))

    def canary_unusable(self) -> None:
        self._canary_passed = False
        self._degrade(Degraded(DegradedReason.CANARY_UNUSABLE, "the canary's output was unusable"))

    def canary(self, identity: str, quality: Quality, digest: str) -> CanaryVerdict:
        """Compare a canary with the first one of ``identity``."""
        verdict = self.judge(identity, quality, digest)
        self.heard(verdict, digest)
        return verdict

    def judge(self, identity: str, quality: Quality, digest: str, *, proves: bool = False) -> CanaryVerdict:
        """As :meth:`CanaryBook.judge`; nothing that is told of this worker changes."""
        self._identity = identity
        return self._canaries.judge(identity, quality, digest, keep=not proves)

    def heard(self, verdict: CanaryVerdict, digest: str) -> None:
        """Believe a canary of the life that serves."""
        model = hashlib.sha256(self._identity.encode()).hexdigest()[:12]
        self._metrics.canary_output = f"{model}/{digest[:16]}"
        self._metrics.canary_drift = verdict.drift
        self._canary_passed = verdict.passed
        extra = verdict.as_dict()
        if not verdict.passed:
            log.warning("canary failed", extra=extra)
            why = f"drifted by {verdict.drift:.2f}" if verdict.drift else ", ".join(verdict.findings)
            self._degrade(Degraded(DegradedReason.CANARY_FAILED, f"the canary failed: {why}"))
            return
        log.info("canary passed", extra=extra)
        self._suspects = 0
        if self.degraded is not None and not self.fatal and not self.degraded.lasting:
            self.degraded = self._metrics.degraded = None

    def _degrade(self, degraded: Degraded) -> None:
        if self.degraded is not None and (self.fatal or self.degraded.lasting):
            return
        if self.degraded != degraded:
            log.error("degraded: %s", degraded.reason)
        self.degraded = degraded
        self._metrics.degraded = degraded.kind
