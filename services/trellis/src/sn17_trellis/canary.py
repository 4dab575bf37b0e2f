"""The fixed-seed canary: is this worker still what it was when this checkpoint first ran here?"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from sn17_contract.admin import Canary
from sn17_contract.metrics import CANARY_DRIFT_THRESHOLD
from sn17_files import write_atomically

from sn17_trellis.quality import Finding, Quality, drift

UNSOUND: Final = {Finding.NON_FINITE, Finding.TRANSPARENT}
"""What a baseline must not show. Few gaussians may be all that this worker is allowed to make."""

log = logging.getLogger("sn17.trellis.canary")


@dataclass(frozen=True, slots=True)
class CanaryVerdict:
    """``drift`` of this canary against the baseline; ``first`` when it became the baseline itself."""

    passed: bool
    drift: float
    first: bool
    same_bytes: bool
    gaussians: int
    findings: tuple[Finding, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def answer(self) -> Canary:
        """What the admin is told."""
        return Canary(ran=True, reason=None, **asdict(self))


def not_run(reason: str) -> Canary:
    """A canary that proves nothing, because it did not run."""
    return Canary(
        ran=False,
        passed=None,
        reason=reason,
        drift=None,
        first=None,
        same_bytes=None,
        gaussians=None,
        findings=(),
    )


class CanaryBook:
    """The first canary of each checkpoint and hardware, kept on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def judge(self, identity: str, quality: Quality, digest: str, *, keep: bool = True) -> CanaryVerdict:
        """Compare with the baseline of ``identity``, or (with ``keep``) become it if it is sound."""
        path = self._folder / (hashlib.sha256(identity.encode()).hexdigest()[:32] + ".json")
        baseline = self._load(path)
        if baseline is None:
            passed = quality.usable and not UNSOUND & set(quality.findings)
            if passed and keep:
                self._write(path, identity, quality, digest)
            return CanaryVerdict(passed, 0.0, True, True, quality.gaussians, quality.findings)
        first, first_digest = baseline
        amount = drift(quality, first)
        passed = amount <= CANARY_DRIFT_THRESHOLD and quality.usable
        return CanaryVerdict(
            passed, amount, False, digest == first_digest, quality.gaussians, quality.findings
        )

    def _load(self, path: Path) -> tuple[Quality, str] | None:
        try:
            value = json.loads(path.read_bytes())
            quality = Quality(
                int(value["gaussians"]),
                float(value["finite_share"]),
                {str(k): float(v) for k, v in value["statistics"].items()},
            )
            return quality, str(value["digest"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("the canary baseline %s is unreadable, taking a new one: %s", path.name, error)
            return None

    def _write(self, path: Path, identity: str, quality: Quality, digest: str) -> None:
        value = {
            "identity": identity,
            "digest": digest,
            "gaussians": quality.gaussians,
            "finite_share": quality.finite_share,
            "statistics": dict(quality.statistics),
        }
        try:
            write_atomically(path, json.dumps(value, indent=1).encode())
        except OSError as error:
            log.warning("could not keep the canary baseline: %s", error)
